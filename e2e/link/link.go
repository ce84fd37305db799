// Package link is a TCP proxy between a client and a server that behaves like a bad network: it cuts connections, dies,
// stalls, slows down, or changes bytes.
//
//	l, err := link.New("127.0.0.1:8000", 1) // a seed
//	// the client connects to l.Addr
//	l.Set(link.Fault{CutAfter: 100_000})
//	l.Set(link.Fault{}) // the network works again
package link

import (
	"math/rand/v2"
	"net"
	"sync"
	"time"
)

// Fault says what the network does. The zero value forwards everything unchanged. Bytes of both directions are counted
// together.
type Fault struct {
	// CutAfter resets each connection after a random number of bytes, 1 to CutAfter.
	CutAfter int64
	// DeadAfter resets all connections, and every new one, as soon as that many bytes have passed through all connections.
	DeadAfter int64
	// StallAfter forwards nothing more as soon as that many bytes have passed through all connections. Connections stay open.
	StallAfter int64
	// Rate is the number of bytes per second that a connection forwards in each direction.
	Rate int64
	// Delay is how long each read of data waits before it is forwarded.
	Delay time.Duration
	// FlipUp and FlipDown change one bit in that many bytes on average: of those to the server, and of those to the client.
	FlipUp, FlipDown int64
}

// Link is a running proxy.
type Link struct {
	Addr string // HOST:PORT for the client

	listener net.Listener
	target   string

	mu       sync.Mutex
	random   *rand.Rand
	fault    Fault
	changed  chan struct{} // closed by the next Set
	passed   int64         // bytes since the last Set
	hit      int64         // cuts, flipped bits, and connections that stalled or died, since the last Set
	untilBit [2]int64      // bytes until the next flip, down and up
	open     map[net.Conn]bool
}

// New starts a proxy for the server at target, HOST:PORT. The caller must close it.
func New(target string, seed uint64) (*Link, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	l := &Link{Addr: listener.Addr().String(), listener: listener, target: target, random: rand.New(rand.NewPCG(seed, 0)),
		changed: make(chan struct{}), open: map[net.Conn]bool{}}
	go l.serve()
	return l, nil
}

// Close stops the proxy and closes its connections.
func (l *Link) Close() {
	_ = l.listener.Close()
	l.Set(Fault{})
}

// Set closes all connections and begins to treat new ones in that way. It returns how many bytes passed since the previous
// Set, and how often the previous fault struck.
func (l *Link) Set(f Fault) (passed, hit int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	passed, hit = l.passed, l.hit
	l.fault, l.passed, l.hit = f, 0, 0
	l.untilBit = [2]int64{l.upTo(2 * f.FlipDown), l.upTo(2 * f.FlipUp)}
	close(l.changed)
	l.changed = make(chan struct{})
	l.resetAll()
	return passed, hit
}

// upTo returns a random number from 1 to n, or 0 if n is 0. The caller holds l.mu.
func (l *Link) upTo(n int64) int64 {
	if n <= 0 {
		return 0
	}
	return 1 + l.random.Int64N(n)
}

func (l *Link) resetAll() {
	for c := range l.open {
		reset(c)
	}
}

// reset closes a connection with RST, as a router does that has lost its table.
func reset(c net.Conn) {
	if t, ok := c.(*net.TCPConn); ok {
		_ = t.SetLinger(0)
	}
	_ = c.Close()
}

func (l *Link) serve() {
	for {
		client, err := l.listener.Accept()
		if err != nil {
			return
		}
		go l.connect(client)
	}
}

func (l *Link) connect(client net.Conn) {
	server, err := net.Dial("tcp", l.target)
	if err != nil {
		reset(client)
		return
	}
	l.mu.Lock()
	p := &pair{link: l, fault: l.fault, changed: l.changed, left: l.upTo(l.fault.CutAfter), client: client, server: server}
	if dead := l.fault.DeadAfter; dead > 0 && l.passed >= dead {
		l.hit++
		l.mu.Unlock()
		p.cut()
		return
	}
	l.open[client], l.open[server] = true, true
	l.mu.Unlock()
	var both sync.WaitGroup
	both.Go(func() { p.forward(server, client, 1) })
	both.Go(func() { p.forward(client, server, 0) })
	both.Wait()
	_ = client.Close()
	_ = server.Close()
	l.mu.Lock()
	delete(l.open, client)
	delete(l.open, server)
	l.mu.Unlock()
}

// pair is the two connections of a client.
type pair struct {
	link           *Link
	fault          Fault
	changed        <-chan struct{}
	left           int64 // bytes until the cut; guarded by link.mu
	client, server net.Conn
}

func (p *pair) cut() {
	reset(p.client)
	reset(p.server)
}

// forward copies in one direction, 0 to the client and 1 to the server, until an end or a fault.
func (p *pair) forward(to, from net.Conn, direction int) {
	buf := make([]byte, 16<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			pass, cut, stall := p.account(buf[:n], direction)
			if stall {
				<-p.changed
				p.cut()
				return
			}
			p.wait(n)
			if _, err := to.Write(buf[:pass]); err != nil {
				p.cut()
				return
			}
			if cut {
				p.cut()
				return
			}
		}
		if err != nil {
			// The other direction may still have data.
			if t, ok := to.(*net.TCPConn); ok {
				_ = t.CloseWrite()
			}
			return
		}
	}
}

// wait makes a connection slow. It ends early if the fault does.
func (p *pair) wait(n int) {
	d := p.fault.Delay
	if p.fault.Rate > 0 {
		d += time.Duration(n) * time.Second / time.Duration(p.fault.Rate)
	}
	if d == 0 {
		return
	}
	select {
	case <-time.After(d):
	case <-p.changed:
	}
}

// account counts the bytes, changes some of them, and returns how many of them to forward, and what happens then.
func (p *pair) account(b []byte, direction int) (pass int, cut, stall bool) {
	l := p.link
	l.mu.Lock()
	defer l.mu.Unlock()
	n := int64(len(b))
	l.passed += n
	if every := [2]int64{p.fault.FlipDown, p.fault.FlipUp}[direction]; every > 0 {
		for at := l.untilBit[direction] - 1; ; {
			if at >= n {
				l.untilBit[direction] = at - n + 1
				break
			}
			b[at] ^= 1 << l.random.IntN(8)
			l.hit++
			at += l.upTo(2 * every)
		}
	}
	if f := p.fault.StallAfter; f > 0 && l.passed >= f {
		l.hit++
		return 0, false, true
	}
	if f := p.fault.DeadAfter; f > 0 && l.passed >= f {
		l.hit++
		l.resetAll()
		return 0, true, false
	}
	if p.fault.CutAfter > 0 {
		if p.left -= n; p.left <= 0 {
			l.hit++
			return int(max(0, n+p.left)), true, false
		}
	}
	return len(b), false, false
}

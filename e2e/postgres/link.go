package postgres

import (
	"errors"
	"net"
	"sync"
	"time"
)

// Link is the network between a primary and its standby. It can be slow, and it can be cut.
type Link struct {
	listener net.Listener
	delay    time.Duration

	mu    sync.Mutex
	down  bool
	quiet bool
	conns map[net.Conn]bool
}

// NewLink returns a link on which everything arrives late by the delay, in both directions. The caller must call Close.
func NewLink(delay time.Duration) (*Link, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	return &Link{listener: listener, delay: delay, conns: map[net.Conn]bool{}}, nil
}

// serve forwards connections to the unix socket of the primary until the link is closed.
func (l *Link) serve(socket string) {
	for {
		near, err := l.listener.Accept()
		if err != nil {
			return
		}
		far, err := net.Dial("unix", socket)
		if err != nil {
			_ = near.Close() // the primary is down
			continue
		}
		if !l.add(near, far) {
			continue
		}
		go l.forward(far, near, l.silent)
		go l.forward(near, far, func(net.Conn) bool { return false })
	}
}

// add registers the two ends of a connection, so that Cut can close them. It returns false if the link is down.
func (l *Link) add(ends ...net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range ends {
		if l.down {
			_ = c.Close()
		} else {
			l.conns[c] = true
		}
	}
	return !l.down
}

// forward copies from src to dst, late by the delay. If one of them is closed, it closes the other one at once: data that is
// still on its way is lost. While waits returns true, nothing arrives.
func (l *Link) forward(dst, src net.Conn, waits func(dst net.Conn) bool) {
	type chunk struct {
		data []byte
		due  time.Time
	}
	defer l.hangUp(dst, src)
	way := make(chan chunk, 1<<14)
	go func() {
		defer close(way)
		for {
			buf := make([]byte, 32<<10)
			n, err := src.Read(buf)
			if n > 0 {
				way <- chunk{buf[:n], time.Now().Add(l.delay)}
			}
			if err != nil {
				return
			}
		}
	}()
	for c := range way {
		time.Sleep(time.Until(c.due))
		for waits(dst) {
			time.Sleep(5 * time.Millisecond)
		}
		if _, err := dst.Write(c.data); err != nil {
			go func() {
				for range way { // lets the reader end
				}
			}()
			return
		}
	}
}

func (l *Link) hangUp(ends ...net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range ends {
		_ = c.Close()
		delete(l.conns, c)
	}
}

// Mute keeps what the standby answers from the primary until the link is cut. The standby still receives everything.
func (l *Link) Mute() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.quiet = true
}

// silent reports whether the link is mute and the connection is still open.
func (l *Link) silent(dst net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.quiet && l.conns[dst]
}

// Cut ends all connections and accepts no new ones. Data that is on its way is lost.
func (l *Link) Cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.down, l.quiet = true, false
	for c := range l.conns {
		_ = c.Close()
	}
	clear(l.conns)
}

// Close cuts the link for good.
func (l *Link) Close() error {
	l.Cut()
	if err := l.listener.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

// port returns the TCP port to which the standby connects.
func (l *Link) port() int { return l.listener.Addr().(*net.TCPAddr).Port }

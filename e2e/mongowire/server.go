// Package mongowire is a small MongoDB server for tests. It speaks the wire protocol (OP_MSG), has raw BSON documents in memory, and
// answers the commands of mongo-driver/v2. It has the semantics of MongoDB 7 that a sync job depends on: comparison order across types,
// type bracketing of range operators, null and missing fields, retryable writes.
//
// It can also store documents that the driver would not marshal, with duplicate keys, text that is not UTF-8, or deprecated types. Tests
// can make it fail: see Server.Intercept.
//
// It does not have authentication (every attempt fails as with a wrong password), transactions, change streams, indexes other than
// that on _id, sorting by the elements of an array, and field paths with numbers.
package mongowire

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/x/bsonx/bsoncore"
)

// Config configures the server. The zero value is a standalone server on a free port of 127.0.0.1.
type Config struct {
	// Address is host:port, or the path of a unix socket, which must end in .sock.
	Address string
	// ReplicaSet is the name of the replica set whose primary the server is. The driver retries some writes only on a replica set.
	ReplicaSet string
	// Hosts are the members of the set, by default this server only.
	Hosts []string
	// WireVersion is the highest version that the server announces, by default that of MongoDB 7.0.
	WireVersion int32
}

// Server is one server with its data. All methods are safe for concurrent use.
type Server struct {
	config   Config
	listener net.Listener
	ended    sync.WaitGroup
	closing  chan struct{} // closed by Close, to end all sleeps

	data      sync.RWMutex // guards the fields below and their content
	databases map[string]map[string]*collection
	kinds     map[string]string            // types of collections that are not plain collections, by name
	retried   map[string]bsoncore.Document // answers by session and transaction number

	state       sync.Mutex // guards the fields below
	connections map[net.Conn]bool
	closed      bool
	cursors     map[int64]*cursor
	lastCursor  int64
	intercept   func(*Call) Action
	calls       map[string]int // by command name; "" has the total
}

// Run starts a server and closes it at the end of the test.
func Run(tb testing.TB, config Config) *Server {
	tb.Helper()
	s, err := New(config)
	if err != nil {
		tb.Fatalf("start the MongoDB stand-in: %v", err)
	}
	tb.Cleanup(func() {
		if err := s.Close(); err != nil {
			tb.Errorf("stop the MongoDB stand-in: %v", err)
		}
	})
	return s
}

// New starts a server. The caller must call Close.
func New(config Config) (*Server, error) {
	s := &Server{
		config:      config,
		closing:     make(chan struct{}),
		databases:   map[string]map[string]*collection{},
		kinds:       map[string]string{},
		retried:     map[string]bsoncore.Document{},
		connections: map[net.Conn]bool{},
		cursors:     map[int64]*cursor{},
		calls:       map[string]int{},
	}
	network, address := "tcp", config.Address
	if len(address) > 5 && address[len(address)-5:] == ".sock" {
		network = "unix"
	}
	if address == "" {
		address = "127.0.0.1:0"
	}
	listener, err := net.Listen(network, address)
	if err != nil {
		return nil, err
	}
	s.listener = listener
	s.ended.Add(1)
	go s.accept()
	return s, nil
}

// Address returns the address on which the server listens.
func (s *Server) Address() string { return s.listener.Addr().String() }

// URI returns the connection string for clients.
func (s *Server) URI() string { return "mongodb://" + s.Address() + "/" }

// Close closes all connections and returns after all goroutines of the server have ended.
func (s *Server) Close() error {
	s.state.Lock()
	if s.closed {
		s.state.Unlock()
		return nil
	}
	s.closed = true
	close(s.closing)
	s.state.Unlock()
	err := s.listener.Close()
	s.Disconnect()
	s.ended.Wait()
	return err
}

// Disconnect closes all connections and loses all cursors, as a restart of the server does.
func (s *Server) Disconnect() {
	s.state.Lock()
	defer s.state.Unlock()
	for c := range s.connections {
		_ = c.Close()
	}
	s.cursors = map[int64]*cursor{}
}

// Calls returns the number of commands of that name that have arrived, or of all except housekeeping if the name is "".
func (s *Server) Calls(command string) int {
	s.state.Lock()
	defer s.state.Unlock()
	return s.calls[command]
}

// Cursors returns the number of open cursors.
func (s *Server) Cursors() int {
	s.state.Lock()
	defer s.state.Unlock()
	return len(s.cursors)
}

func (s *Server) accept() {
	defer s.ended.Done()
	for {
		c, err := s.listener.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			time.Sleep(time.Millisecond) // out of descriptors: other connections may end
			continue
		}
		s.state.Lock()
		if s.closed {
			s.state.Unlock()
			_ = c.Close()
			return
		}
		s.connections[c] = true
		s.ended.Add(1)
		s.state.Unlock()
		go func() {
			defer s.ended.Done()
			s.serve(c)
			_ = c.Close()
			s.state.Lock()
			delete(s.connections, c)
			s.state.Unlock()
		}()
	}
}

// serve answers one connection until it ends. Like MongoDB, it disconnects a client that does not speak the protocol.
func (s *Server) serve(c net.Conn) {
	in := bufio.NewReaderSize(c, 64<<10)
	var out []byte
	for {
		m, err := readMessage(in)
		if err != nil {
			return
		}
		answer, action := s.answer(m)
		if action.DropBefore || action.DropAfter {
			return
		}
		if !m.wantsAnswer {
			continue
		}
		out = m.appendAnswer(out[:0], answer)
		switch {
		case action.Raw != nil:
			out = append(out[:0], action.Raw...)
		case action.Oversize:
			out = bsoncore.UpdateLength(out, 0, maxMessage+1)
		case action.Truncate > 0 && action.Truncate < len(out):
			out = out[:action.Truncate]
		}
		if err := s.write(c, out, action); err != nil || action.broken() {
			return
		}
	}
}

// write sends an answer. With action.Trickle it sends pieces with pauses.
func (s *Server) write(c io.Writer, out []byte, action Action) error {
	if action.Trickle == 0 {
		_, err := c.Write(out)
		return err
	}
	const pieces = 10
	size := len(out)/pieces + 1
	for len(out) > 0 {
		n := min(size, len(out))
		if _, err := c.Write(out[:n]); err != nil {
			return err
		}
		out = out[n:]
		s.sleep(action.Trickle / pieces)
	}
	return nil
}

func (s *Server) sleep(d time.Duration) {
	if d <= 0 {
		return
	}
	select {
	case <-time.After(d):
	case <-s.closing:
	}
}

// answer asks the interceptor how to treat a command, and executes it accordingly.
func (s *Server) answer(m *message) (bsoncore.Document, Action) {
	call := &Call{Command: m.command(), Body: m.body}
	call.Database, _ = m.body.Lookup("$db").StringValueOK()
	call.Collection, _ = m.body.Lookup(call.Command).StringValueOK()
	if call.Command == "getMore" {
		call.Collection, _ = m.body.Lookup("collection").StringValueOK()
	}
	var action Action
	if !housekeeping[call.Command] {
		s.state.Lock()
		s.calls[""]++
		s.calls[call.Command]++
		call.N, call.OfCommand = s.calls[""], s.calls[call.Command]
		intercept := s.intercept
		s.state.Unlock()
		if intercept != nil {
			action = intercept(call)
		}
	}
	s.sleep(action.Delay)
	if action.DropBefore {
		return nil, action
	}
	if action.Fail != nil {
		return action.Fail.answer(), action
	}
	answer := s.execute(call, m)
	if action.WriteConcernError != nil {
		answer = action.WriteConcernError.attach(answer)
	}
	if action.Rewrite != nil {
		answer = action.Rewrite(answer)
	}
	if action.After != nil {
		action.After()
	}
	return answer, action
}

// housekeeping has the commands that a driver sends by itself. They are not counted and not intercepted.
var housekeeping = map[string]bool{"hello": true, "isMaster": true, "ismaster": true, "ping": true, "endSessions": true, "killCursors": true, "buildInfo": true}

// Put stores documents unchanged, also invalid ones. A document replaces an existing one with the same _id.
func (s *Server) Put(database, name string, documents ...[]byte) error {
	s.data.Lock()
	defer s.data.Unlock()
	c := s.collection(database, name, true)
	entries := make([]*entry, 0, len(documents))
	for i, raw := range documents {
		e, err := newEntry(raw)
		if err != nil {
			return fmt.Errorf("document %d: %w", i, err)
		}
		entries = append(entries, e)
	}
	c.put(entries)
	return nil
}

// Documents returns the stored documents of a collection in the order of their _id. The caller must not change them.
func (s *Server) Documents(database, name string) [][]byte {
	s.data.RLock()
	defer s.data.RUnlock()
	c := s.collection(database, name, false)
	if c == nil {
		return nil
	}
	all := make([][]byte, 0, len(c.byID))
	for _, e := range c.byID {
		all = append(all, e.raw)
	}
	return all
}

// SetKind sets the type that listCollections returns for a collection, such as view or timeseries.
func (s *Server) SetKind(name, kind string) {
	s.data.Lock()
	defer s.data.Unlock()
	s.kinds[name] = kind
}

// Drop removes a collection.
func (s *Server) Drop(database, name string) {
	s.data.Lock()
	defer s.data.Unlock()
	delete(s.databases[database], name)
}

// collection returns a collection. With create it creates a missing one; otherwise it returns nil. The caller holds the lock data.
func (s *Server) collection(database, name string, create bool) *collection {
	c := s.databases[database][name]
	if c == nil && create {
		if s.databases[database] == nil {
			s.databases[database] = map[string]*collection{}
		}
		c = &collection{}
		s.databases[database][name] = c
	}
	return c
}

package link

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"
)

// echo starts a server that returns what it reads, and a link to it.
func echo(t *testing.T) *Link {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(c, c)
				c.Close()
			}()
		}
	}()
	l, err := New(listener.Addr().String(), 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l
}

// send sends data through the link, and returns what comes back until the end, an error, or the deadline.
func send(t *testing.T, l *Link, data []byte, limit time.Duration) ([]byte, error) {
	t.Helper()
	c, err := net.Dial("tcp", l.Addr)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(limit)); err != nil {
		t.Fatal(err)
	}
	go func() {
		_, _ = c.Write(data)
		_ = c.(*net.TCPConn).CloseWrite()
	}()
	return io.ReadAll(c)
}

func TestFaults(t *testing.T) {
	data := bytes.Repeat([]byte("0123456789abcdef"), 20_000)
	const limit = 20 * time.Second
	l := echo(t)
	for _, c := range []struct {
		name  string
		fault Fault
		limit time.Duration
		right func(got []byte, err error) bool
	}{
		{"none", Fault{}, limit, func(got []byte, err error) bool { return err == nil && bytes.Equal(got, data) }},
		{"cut", Fault{CutAfter: 100_000}, limit, func(got []byte, err error) bool { return len(got) < 100_000 }},
		{"dead", Fault{DeadAfter: 50_000}, limit, func(got []byte, err error) bool { return len(got) < 50_000 }},
		{"stalled", Fault{StallAfter: 50_000}, time.Second, func(got []byte, err error) bool {
			return len(got) < 50_000 && errors.Is(err, os.ErrDeadlineExceeded)
		}},
		{"slow", Fault{Rate: 10 << 20, Delay: time.Millisecond}, limit, func(got []byte, err error) bool { return err == nil && bytes.Equal(got, data) }},
		{"flipped up", Fault{FlipUp: 10_000}, limit, func(got []byte, err error) bool {
			return err == nil && len(got) == len(data) && !bytes.Equal(got, data)
		}},
		{"flipped down", Fault{FlipDown: 10_000}, limit, func(got []byte, err error) bool {
			return err == nil && len(got) == len(data) && !bytes.Equal(got, data)
		}},
	} {
		l.Set(c.fault)
		got, err := send(t, l, data, c.limit)
		if !c.right(got, err) {
			t.Errorf("%s: %d of %d bytes, equal %v, error %v", c.name, len(got), len(data), bytes.Equal(got, data), err)
		}
		if _, hit := l.Set(Fault{}); hit == 0 && c.fault != (Fault{}) && c.fault.Rate == 0 {
			t.Errorf("%s: the fault did not strike", c.name)
		}
		if got, err := send(t, l, data, limit); err != nil || !bytes.Equal(got, data) {
			t.Errorf("after %s: %d bytes, %v", c.name, len(got), err)
		}
	}
}

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"observability-hub/lib/cli"
	"observability-hub/lib/sysexits"
)

// serving is an endpoint that takes connections.
type serving struct {
	*testing.T
	url    string
	listen *net.TCPListener
	ctx    context.Context
	stop   context.CancelFunc
	ended  chan ran
}

func listenHere(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// serveHere serves in this process until the test ends or stop is called.
func serveHere(t *testing.T, sync func(context.Context) (int64, error)) *serving {
	t.Helper()
	return serveOn(t, listenHere(t), 0, sync)
}

// serveOn serves at a listener, and ends too when the endpoint is idle for long enough.
func serveOn(t *testing.T, l net.Listener, idle time.Duration, sync func(context.Context) (int64, error)) *serving {
	t.Helper()
	s := &serving{T: t, url: "http://" + l.Addr().String() + syncPath, listen: l.(*net.TCPListener), ended: make(chan ran, 1)}
	s.ctx, s.stop = context.WithCancel(context.Background())
	gone := make(chan bool)
	go func() {
		defer close(gone)
		s.ended <- inTool(t, func(_ context.Context, env *cli.Env) error {
			return (&endpoint{env: env, sync: sync}).serve(s.ctx, []net.Listener{l}, idle)
		})
	}()
	t.Cleanup(func() {
		s.stop()
		<-gone
	})
	return s
}

// end waits for the end of the service.
func (s *serving) end() ran {
	s.Helper()
	select {
	case r := <-s.ended:
		return r
	case <-time.After(time.Minute):
		s.Fatal("it does not end")
		return ran{}
	}
}

func post(t *testing.T, url string) (a answered) {
	t.Helper()
	resp, err := http.Post(url, "", nil)
	if err != nil {
		t.Error(err)
		return a
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	a.status, a.header, a.body = resp.StatusCode, resp.Header, string(body)
	if err = errors.Join(err, json.Unmarshal(body, &a.answer)); err != nil {
		t.Errorf("%v: %s", err, body)
	}
	return a
}

func TestServeOneAtATime(t *testing.T) {
	begun, proceed := make(chan bool), make(chan bool)
	s := serveHere(t, func(context.Context) (int64, error) {
		begun <- true
		<-proceed
		return 1, nil
	})
	first := make(chan answered)
	go func() { first <- post(t, s.url) }()
	<-begun
	for range 3 {
		if a := post(t, s.url); a.status != 409 || a.header.Get("Retry-After") != "5" {
			t.Errorf("a second call meanwhile: %d, %s", a.status, a.body)
		}
	}
	proceed <- true
	if a := <-first; a.status != 200 {
		t.Errorf("the first call: %d, %s", a.status, a.body)
	}
	go func() { <-begun; proceed <- true }()
	if a := post(t, s.url); a.status != 200 {
		t.Errorf("a call after it: %d, %s", a.status, a.body)
	}
}

// The sync goes on when the caller is gone, and counts as somebody being there.
func TestServeCallerGone(t *testing.T) {
	begun, proceed := make(chan bool), make(chan bool)
	var synced, cut atomic.Bool
	l := listenHere(t)
	// The call is there before the service is: it cannot be idle for long enough without one.
	caller, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer caller.Close()
	if _, err := io.WriteString(caller, "POST "+syncPath+" HTTP/1.1\r\nHost: here\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	const idle = 500 * time.Millisecond
	s := serveOn(t, l, idle, func(ctx context.Context) (int64, error) {
		begun <- true
		<-proceed
		cut.Store(ctx.Err() != nil)
		synced.Store(true)
		return 1, nil
	})
	<-begun
	caller.Close()
	if a := post(t, s.url); a.status != 409 {
		t.Errorf("a call while the sync goes on: %d, %s", a.status, a.body)
	}
	time.Sleep(2 * idle) // that it does not end can only be waited for
	proceed <- true
	if end := s.end(); end.status != 0 || !synced.Load() || cut.Load() {
		t.Errorf("the service ended with %d, synced %v, cut short %v\n%s", end.status, synced.Load(), cut.Load(), end.stderr)
	}
}

// A stop ends the sync, which answers, and then the service.
func TestServeStopped(t *testing.T) {
	begun := make(chan bool)
	s := serveHere(t, func(ctx context.Context) (int64, error) {
		begun <- true
		<-ctx.Done()
		return 3, context.Cause(ctx)
	})
	first := make(chan answered)
	go func() { first <- post(t, s.url) }()
	<-begun
	s.stop()
	if a := <-first; a.status != 503 || a.Status != "error" || a.header.Get("Retry-After") == "" {
		t.Errorf("the call that was cut short: %d, %s", a.status, a.body)
	}
	if end := s.end(); end.status != 0 || end.stderr != "" {
		t.Errorf("the service ended with %d\n%s", end.status, end.stderr)
	}
}

// Connections that say nothing do not keep a stop waiting.
func TestServeStoppedBesideSilence(t *testing.T) {
	s := serveHere(t, func(context.Context) (int64, error) { return 0, nil })
	c, err := net.Dial("tcp", s.listen.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if a := post(t, s.url); a.status != 200 {
		t.Errorf("a call beside it: %d", a.status)
	}
	began := time.Now()
	s.stop()
	if end := s.end(); end.status != 0 || time.Since(began) > 5*time.Second {
		t.Errorf("the service ended with %d after %v\n%s", end.status, time.Since(began), end.stderr)
	}
}

// As systemd has it: the socket stays when the service exits, and the next call starts it. No call is lost, whenever it comes.
func TestServeIdleLosesNothing(t *testing.T) {
	socket, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	file, err := socket.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	ctx, stop := context.WithCancel(t.Context())
	var services int
	ended := make(chan bool)
	go func() {
		defer close(ended)
		for ; ctx.Err() == nil; services++ {
			l, err := net.FileListener(file)
			if err != nil {
				t.Error(err)
				return
			}
			r := inTool(t, func(_ context.Context, env *cli.Env) error {
				e := &endpoint{env: env, sync: func(context.Context) (int64, error) { return 1, nil }}
				return e.serve(ctx, []net.Listener{l}, time.Millisecond)
			})
			if r.status != 0 || r.stderr != "" {
				t.Errorf("a service ended with %d\n%s", r.status, r.stderr)
			}
		}
	}()
	url := "http://" + socket.Addr().String() + syncPath
	var callers sync.WaitGroup
	for caller := range 2 {
		callers.Go(func() {
			client := &http.Client{Transport: &http.Transport{}}
			for i := range 150 {
				resp, err := client.Post(url, "", nil)
				if err != nil {
					t.Errorf("call %d: %v", i, err)
					return
				}
				if resp.Body.Close(); resp.StatusCode != 200 && resp.StatusCode != 409 {
					t.Errorf("call %d: status %d", i, resp.StatusCode)
				}
				time.Sleep(time.Duration((i*7+caller*3)%13) * 200 * time.Microsecond)
			}
		})
	}
	callers.Wait()
	stop()
	<-ended
	if services < 10 {
		t.Errorf("only %d services ended in between: the test shows nothing", services)
	}
}

// Too long a header, no HTTP, and a client that is slow to begin are the client's trouble alone.
func TestServeOddClients(t *testing.T) {
	s := serveHere(t, func(context.Context) (int64, error) { return 1, nil })
	for _, request := range []string{
		"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
		"POST " + syncPath + " HTTP/1.1\r\nHost: localhost\r\nX: " + strings.Repeat("x", 64<<10) + "\r\n\r\n",
		"POST " + syncPath + " HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\n{",
		"POST " + syncPath + " HTTP/1.1\r\nHost: localhost\r\nHost: evil\r\n\r\n",
		"POST " + syncPath + " HTTP/9.9\r\n\r\n",
		"GET http://evil.example/ HTTP/1.1\r\nHost: localhost\r\n\r\n",
	} {
		c, err := net.Dial("tcp", s.listen.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(c, request) // it may hang up meanwhile
		_ = c.(*net.TCPConn).CloseWrite()
		said, _ := io.ReadAll(c)
		c.Close()
		if strings.Contains(string(said), "success") {
			t.Errorf("%.60q is answered by %s", request, said)
		}
	}
	if a := post(t, s.url); a.status != 200 {
		t.Errorf("status %d, %s", a.status, a.body)
	}
}

func TestServeUsage(t *testing.T) {
	for _, args := range [][]string{{"--listen", "8085"}, {"--idle", "-1s"}, {"--timeout", "0s"}, {"--dry-run"}} {
		if r := run(t, append([]string{"serve"}, args...)...); r.status != sysexits.Usage {
			t.Errorf("%q: exit status %d\n%s", args, r.status, r.stderr)
		}
	}
	if got := fmt.Sprint(new(serveCmd).Idle); got != "<nil>" {
		t.Errorf("idle is %s by default", got)
	}
}

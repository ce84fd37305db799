package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"observability-hub/lib/cli"
	"observability-hub/lib/sysexits"
)

// inTest is a command that is a function of a test.
type inTest struct {
	do func(context.Context, *cli.Env) error `kong:"-"`
}

func (c *inTest) Run(ctx context.Context, env *cli.Env) error { return c.do(ctx, env) }

// inTool calls do as a command of the tool.
func inTool(t *testing.T, do func(context.Context, *cli.Env) error) ran {
	t.Helper()
	a := app()
	a.Commands = []cli.Command{{Name: "test", Default: true, Grammar: &inTest{do}}}
	return runApp(t, a)
}

// withEndpoint gives do an endpoint that syncs by calling sync.
func withEndpoint(t *testing.T, sync func(context.Context) (int64, error), do func(*endpoint)) ran {
	t.Helper()
	return inTool(t, func(ctx context.Context, env *cli.Env) error {
		do(&endpoint{env: env, hosts: []string{"hub.example"}, sync: sync, stopping: ctx})
		return nil
	})
}

// answered is the decoded answer to a call.
type answered struct {
	answer
	status int
	header http.Header
	body   string
}

func ask(t *testing.T, e http.Handler, r *http.Request) (a answered) {
	t.Helper()
	w := httptest.NewRecorder()
	e.ServeHTTP(w, r)
	a.status, a.header, a.body = w.Code, w.Header(), w.Body.String()
	if err := json.Unmarshal(w.Body.Bytes(), &a.answer); err != nil || a.Service != "reading-sync" || a.header.Get("Content-Type") != "application/json" {
		t.Errorf("no answer as it should be: %s", w.Body)
	}
	return a
}

func aCall() *http.Request { return httptest.NewRequest("POST", "http://localhost:8085"+syncPath, nil) }

func TestServeAnswer(t *testing.T) {
	withEndpoint(t, func(context.Context) (int64, error) { return 42, nil }, func(e *endpoint) {
		a := ask(t, e, aCall())
		stamp, err := time.Parse(time.RFC3339, a.Timestamp)
		want := `{"service":"reading-sync","status":"success","processed_count":42,"timestamp":"` + a.Timestamp + `"}` + "\n"
		if a.status != 200 || a.body != want || err != nil || time.Since(stamp) > time.Minute {
			t.Errorf("status %d, %s", a.status, a.body)
		}
		if n, err := processedCount([]byte(a.body)); n != 42 || err != nil {
			t.Errorf("trigger reads it as %d, %v", n, err)
		}
	})
	withEndpoint(t, func(context.Context) (int64, error) { return 0, nil }, func(e *endpoint) {
		if n, err := processedCount([]byte(ask(t, e, aCall()).body)); n != 0 || err != nil {
			t.Errorf("trigger reads nothing left as %d, %v", n, err)
		}
	})
}

func TestServeRequests(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*http.Request)
		status int
	}{
		"plain":            {func(*http.Request) {}, 200},
		"IPv4":             {func(r *http.Request) { r.Host = "127.0.0.1:8085" }, 200},
		"other loopback":   {func(r *http.Request) { r.Host = "127.8.9.10" }, 200},
		"IPv6":             {func(r *http.Request) { r.Host = "[::1]:8085" }, 200},
		"IPv6 without":     {func(r *http.Request) { r.Host = "[::1]" }, 200},
		"upper case":       {func(r *http.Request) { r.Host = "LOCALHOST." }, 200},
		"named":            {func(r *http.Request) { r.Host = "Hub.example:80" }, 200},
		"HTTP/1.0, none":   {func(r *http.Request) { r.Host = "" }, 200},
		"body":             {func(r *http.Request) { r.Body = io.NopCloser(strings.NewReader("{}")) }, 200},
		"query":            {func(r *http.Request) { r.URL.RawQuery = "a=b;c" }, 200},
		"own page":         {func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "same-origin") }, 200},
		"own origin":       {func(r *http.Request) { r.Header.Set("Origin", "http://localhost:8085") }, 200},
		"other host":       {func(r *http.Request) { r.Host = "evil.example" }, 403},
		"other address":    {func(r *http.Request) { r.Host = "192.0.2.1:8085" }, 403},
		"rebound":          {func(r *http.Request) { r.Host = "localhost.evil.example:8085" }, 403},
		"other site":       {func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "cross-site") }, 403},
		"same site":        {func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "same-site") }, 403},
		"other origin":     {func(r *http.Request) { r.Header.Set("Origin", "http://evil.example") }, 403},
		"null origin":      {func(r *http.Request) { r.Header.Set("Origin", "null") }, 403},
		"GET":              {func(r *http.Request) { r.Method = "GET" }, 405},
		"HEAD":             {func(r *http.Request) { r.Method = "HEAD" }, 405},
		"OPTIONS":          {func(r *http.Request) { r.Method = "OPTIONS" }, 405},
		"DELETE":           {func(r *http.Request) { r.Method = "DELETE" }, 405},
		"other path":       {func(r *http.Request) { r.URL.Path = "/" }, 404},
		"trailing slash":   {func(r *http.Request) { r.URL.Path += "/" }, 404},
		"dots":             {func(r *http.Request) { r.URL.Path = "/x/.." + syncPath }, 404},
		"large body":       {func(r *http.Request) { r.Body = io.NopCloser(io.LimitReader(zeros{}, 1<<20)) }, 413},
		"endless body":     {func(r *http.Request) { r.Body = io.NopCloser(zeros{}) }, 413},
		"body breaks off":  {func(r *http.Request) { r.Body = io.NopCloser(broken{}) }, 400},
		"other host, path": {func(r *http.Request) { r.Host, r.URL.Path = "evil.example", "/" }, 403},
	} {
		t.Run(name, func(t *testing.T) {
			syncs := 0
			withEndpoint(t, func(context.Context) (int64, error) { syncs++; return 1, nil }, func(e *endpoint) {
				r := aCall()
				c.change(r)
				a := ask(t, e, r)
				if want := map[bool]int{true: 1}[c.status == 200]; a.status != c.status || syncs != want {
					t.Errorf("status %d and %d syncs; want %d and %d\n%s", a.status, syncs, c.status, want, a.body)
				}
				if ok := a.status == 200; ok != (a.Status == "success") || !ok && (a.Status != "error" || a.Message == "") {
					t.Errorf("status %d: %s", a.status, a.body)
				}
				if (a.header.Get("Allow") == "POST") != (c.status == 405) {
					t.Errorf("Allow: %q", a.header.Get("Allow"))
				}
			})
		})
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func TestServeFailures(t *testing.T) {
	failing := func(code int) error {
		return sysexits.New(code, "failed", errors.New("connect to postgres://hub:hunter2@db/hub password=hunter3: "+strings.Repeat("long ", 1000)))
	}
	for name, c := range map[string]struct {
		err     error
		status  int
		text    string // what the JSON status is
		exit    int    // of the service
		retried bool   // by trigger
	}{
		"done":              {nil, 200, "success", 0, false},
		"partly":            {failing(sysexits.Partial), 200, "success", 11, false},
		"too many rejected": {failing(sysexits.DataErr), 500, "error", 11, true},
		"database down":     {failing(sysexits.Unavailable), 503, "error", 0, true},
		"other run":         {failing(sysexits.TempFail), 409, "error", 0, true},
		"configuration":     {failing(sysexits.Config), 500, "error", 0, true},
		"disk full":         {failing(sysexits.CantCreate), 500, "error", 0, true},
		"unbalanced":        {errors.Join(failing(sysexits.Failed), failing(sysexits.Partial)), 500, "error", 0, true},
	} {
		t.Run(name, func(t *testing.T) {
			var exit int
			r := withEndpoint(t, func(context.Context) (int64, error) { return 5, c.err }, func(e *endpoint) {
				a := ask(t, e, aCall())
				if a.status != c.status || a.Status != c.text || len(a.body) > 2000 || strings.Contains(a.body, "hunter") {
					t.Errorf("status %d; want %d, %s\n%s", a.status, c.status, c.text, a.body)
				}
				if a.status == 200 && *a.Processed != 5 {
					t.Errorf("processed %d; want 5", *a.Processed)
				}
				if a.status == 409 && a.header.Get("Retry-After") == "" {
					t.Error("409 without Retry-After")
				}
				exit = sysexits.Code(e.verdict())
			})
			if exit != c.exit {
				t.Errorf("the service exits with %d; want %d", exit, c.exit)
			}
			if (c.err == nil) != (r.stderr == "") || strings.Contains(r.stderr, "hunter") {
				t.Errorf("stderr: %s", r.stderr)
			}
		})
	}
}

func TestServePanic(t *testing.T) {
	r := withEndpoint(t, func(context.Context) (int64, error) { panic("hunter2") }, func(e *endpoint) {
		for range 2 { // the lock is free again
			if a := ask(t, e, aCall()); a.status != 500 || strings.Contains(a.body, "hunter2") {
				t.Errorf("status %d, %s", a.status, a.body)
			}
		}
	})
	if !strings.Contains(r.stderr, "panic: hunter2") || !strings.Contains(r.stderr, "serve_test.go") {
		t.Errorf("stderr does not say where: %s", r.stderr)
	}
}

// serving is an endpoint that takes connections.
type serving struct {
	*testing.T
	url    string
	listen *net.TCPListener
	ctx    context.Context
	stop   context.CancelFunc
	ended  chan ran
}

// serveHere serves in this process until the test ends, the endpoint is idle for long enough, or stop is called.
func serveHere(t *testing.T, idle time.Duration, sync func(context.Context) (int64, error)) *serving {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
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
	s := serveHere(t, 0, func(context.Context) (int64, error) {
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
	s := serveHere(t, 20*time.Millisecond, func(ctx context.Context) (int64, error) {
		begun <- true
		<-proceed
		cut.Store(ctx.Err() != nil)
		synced.Store(true)
		return 1, nil
	})
	ctx, hangUp := context.WithCancel(t.Context())
	r, err := http.NewRequestWithContext(ctx, "POST", s.url, nil)
	if err != nil {
		t.Fatal(err)
	}
	gone := make(chan error)
	go func() {
		_, err := http.DefaultClient.Do(r)
		gone <- err
	}()
	<-begun
	hangUp()
	if err := <-gone; err == nil {
		t.Error("the caller has an answer all the same")
	}
	if a := post(t, s.url); a.status != 409 {
		t.Errorf("a call while the sync goes on: %d, %s", a.status, a.body)
	}
	time.Sleep(60 * time.Millisecond) // longer than idle
	proceed <- true
	if end := s.end(); end.status != 0 || !synced.Load() || cut.Load() {
		t.Errorf("the service ended with %d, synced %v, cut short %v\n%s", end.status, synced.Load(), cut.Load(), end.stderr)
	}
}

// A stop ends the sync, which answers, and then the service.
func TestServeStopped(t *testing.T) {
	begun := make(chan bool)
	s := serveHere(t, 0, func(ctx context.Context) (int64, error) {
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
	s := serveHere(t, 0, func(context.Context) (int64, error) { return 0, nil })
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

// unreachable is a configuration whose databases are not there.
func unreachable(cmd *exec.Cmd) {
	cmd.Env = append(cmd.Env, "MONGO_URI=mongodb://127.0.0.1:1", "MONGO_DB_NAME=hub", "MONGO_COLLECTION=readings",
		"DATABASE_URL=postgres://hub:hunter2@127.0.0.1:1/hub")
}

// passed gives the tool a descriptor as systemd does. LISTEN_PID is the shell's own number, which exec keeps.
func passed(t *testing.T, f *os.File, pid string) func(*exec.Cmd) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return func(cmd *exec.Cmd) {
		unreachable(cmd)
		cmd.Path = "/bin/sh"
		cmd.Args = append([]string{"sh", "-c", "LISTEN_PID=" + pid + ` LISTEN_FDS=1 LISTEN_FDNAMES=x exec "$0" "$@"`, self}, cmd.Args[1:]...)
		cmd.ExtraFiles = []*os.File{f}
	}
}

func TestServeSocketActivation(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	file, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for range 2 { // the second one takes over the same socket
		p := startTool(t, passed(t, file, "$$"), "serve", "--idle", "200ms")
		a := post(t, "http://"+l.Addr().String()+syncPath)
		if a.status != 503 || strings.Contains(a.body, "hunter2") {
			t.Errorf("status %d, %s", a.status, a.body)
		}
		if status := p.wait(); status != 0 || !strings.Contains(p.stdout(), `"addresses":["`+l.Addr().String()+`"]`) {
			t.Errorf("it ended with %d\n%s%s", status, p.stdout(), p.stderr())
		}
	}
}

func TestServeUnixSocketActivation(t *testing.T) {
	path := filepath.Join(t.TempDir(), "socket")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	file, err := l.(*net.UnixListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	p := startTool(t, passed(t, file, "$$"), "serve", "--idle", "200ms")
	client := &http.Client{Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return net.Dial("unix", path) }}}
	resp, err := client.Post("http://localhost"+syncPath, "", nil)
	if err != nil || resp.StatusCode != 503 {
		t.Errorf("%v, %v", resp, err)
	}
	if status := p.wait(); status != 0 {
		t.Errorf("it ended with %d\n%s%s", status, p.stdout(), p.stderr())
	}
	if _, err := os.Stat(path); err != nil {
		t.Errorf("systemd's socket is gone: %v", err)
	}
}

// What was not passed to this process, or is no listening socket, is not used.
func TestServeWrongDescriptors(t *testing.T) {
	file, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	p := startTool(t, passed(t, file, "$$"), "serve")
	if status := p.wait(); status != 78 || !strings.Contains(p.stderr(), `"msg":"cannot_listen"`) {
		t.Errorf("with /dev/null it ended with %d\n%s", status, p.stderr())
	}
	p = startTool(t, passed(t, file, "1"), "serve", "--listen", "127.0.0.1:0")
	p.awaitAddress()
	p.signal(syscall.SIGTERM)
	if status := p.wait(); status != 0 {
		t.Errorf("with another process's descriptors it ended with %d\n%s", status, p.stderr())
	}
}

// awaitAddress waits until the tool listens, and returns where.
func (p *process) awaitAddress() string {
	p.Helper()
	var rec struct{ Addresses []string }
	await(p.T, "the listening record", func() bool {
		line, _, ended := strings.Cut(p.stdout(), "\n")
		return ended && json.Unmarshal([]byte(line), &rec) == nil && len(rec.Addresses) == 1
	})
	return rec.Addresses[0]
}

func TestServeListens(t *testing.T) {
	p := startTool(t, unreachable, "serve", "--listen", "127.0.0.1:0")
	address := p.awaitAddress()
	if a := post(t, "http://"+address+syncPath); a.status != 503 {
		t.Errorf("status %d, %s", a.status, a.body)
	}
	// The lock of the state directory, as another process holds it.
	dir, err := os.Open(filepath.Join(p.dir, ".local/state/reading-sync"))
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	if err := syscall.Flock(int(dir.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	if a := post(t, "http://"+address+syncPath); a.status != 409 {
		t.Errorf("beside another run: status %d, %s", a.status, a.body)
	}
	second := startTool(t, unreachable, "serve", "--listen", address)
	if status := second.wait(); status != 78 || !strings.Contains(second.stderr(), `"msg":"cannot_listen"`) {
		t.Errorf("a second one at the same address ended with %d\n%s", status, second.stderr())
	}
	began := time.Now()
	p.signal(syscall.SIGTERM)
	if status := p.wait(); status != 0 || time.Since(began) > 5*time.Second {
		t.Errorf("SIGTERM: it ended with %d after %v\n%s", status, time.Since(began), p.stderr())
	}
}

// Too long a header, no HTTP, and a client that is slow to begin are the client's trouble alone.
func TestServeOddClients(t *testing.T) {
	s := serveHere(t, 0, func(context.Context) (int64, error) { return 1, nil })
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

package readsync

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"observability-hub/e2e/mongowire"
)

// proxy starts a Proxy Service like that of existing hubs, which syncs 100 documents per call.
func (h *hub) proxy() *httptest.Server {
	h.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost || r.URL.Path != "/api/sync/reading" {
			http.NotFound(w, r)
			return
		}
		var out bytes.Buffer
		cmd := h.shell("readsync extract --limit 100 | readsync load | readsync mark")
		cmd.Stdout = &out
		if err := cmd.Run(); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		fmt.Fprintf(w, `{"service":"reading-sync","status":"success","processed_count":%d,"timestamp":%q}`+"\n",
			outcome{stdout: out.String()}.account(h).Marked, time.Now().Format(time.RFC3339))
	}))
	h.Cleanup(server.Close)
	return server
}

// triggered is the record of a trigger.
type triggered struct {
	Msg            string
	ProcessedCount int `json:"processed_count"`
	Calls          int
}

func (o outcome) triggered(h *hub) (r triggered) {
	h.Helper()
	if err := json.Unmarshal([]byte(o.stdout), &r); err != nil || r.Msg != "triggered" {
		h.Fatalf("%v: no triggered record: %s\n%s", err, o.stdout, o.stderr)
	}
	return r
}

// TestTriggerDrains calls a Proxy Service that syncs 100 documents per call, until a call syncs none.
func TestTriggerDrains(t *testing.T) {
	t.Parallel()
	h := newHub(t, mongowire.Config{})
	h.fill(730)
	url := h.proxy().URL + "/api/sync/reading"
	got := h.want(0, h.command("trigger", "--url", url)).triggered(h)
	if got.ProcessedCount != 730 || got.Calls != 9 {
		t.Errorf("%+v; want 730 documents by 9 calls", got)
	}
	h.settled("drained")
}

// serving is a socket that starts a process for each connection, as systemd does.
type serving struct {
	url     string
	running func() int       // number of running calls
	stop    func() []outcome // sends SIGTERM to running calls and returns the outcome of all
}

// serve starts the endpoint on a free port.
func (h *hub) serve(args ...string) serving {
	h.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		h.Fatal(err)
	}
	var lock sync.Mutex
	var calls []outcome
	var running []*exec.Cmd
	var ended sync.WaitGroup
	ended.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			f, err := c.(*net.TCPConn).File()
			c.Close()
			if err != nil {
				h.Error(err)
				return
			}
			cmd := h.command(append([]string{"serve"}, args...)...)
			cmd.Stdin = f
			var stdout, stderr bytes.Buffer
			cmd.Stdout, cmd.Stderr = &stdout, &stderr
			lock.Lock()
			err = cmd.Start()
			running = append(running, cmd)
			lock.Unlock()
			f.Close()
			if err != nil {
				h.Error(err)
				return
			}
			ended.Go(func() {
				_ = cmd.Wait()
				lock.Lock()
				calls = append(calls, outcome{exitStatus(cmd.ProcessState), stdout.String(), stderr.String()})
				lock.Unlock()
			})
		}
	})
	stop := sync.OnceValue(func() []outcome {
		l.Close()
		lock.Lock()
		for _, cmd := range running {
			_ = cmd.Process.Signal(syscall.SIGTERM) // fails if it has ended
		}
		lock.Unlock()
		ended.Wait()
		return calls
	})
	h.Cleanup(func() { stop() })
	return serving{"http://" + l.Addr().String() + "/api/sync/reading", func() int {
		lock.Lock()
		defer lock.Unlock()
		return len(running) - len(calls)
	}, stop}
}

// wellEnded stops the endpoint and fails the test if a call exited with another status than 0.
func (s serving) wellEnded(h *hub) {
	h.Helper()
	for _, got := range s.stop() {
		if got.status != 0 {
			h.Errorf("a call exited with status %d\n%s", got.status, got.stderr)
		}
	}
}

// TestServe lets trigger call serve, for some time with a stopped database.
func TestServe(t *testing.T) {
	t.Parallel()
	h := newHub(t, mongowire.Config{})
	h.fill(2300)
	s := h.serve()
	url := s.url
	if got := h.want(0, h.command("trigger", "--url", url)).triggered(h); got.ProcessedCount != 2300 {
		t.Errorf("%+v; want 2300 documents", got)
	}
	h.settled("served")
	// While the database is stopped, calls fail. After it is started, the same endpoint works.
	if err := h.pg.Stop(); err != nil {
		t.Fatal(err)
	}
	h.put(document(t, "late"))
	if got := finish(t, h.command("trigger", "--url", url, "--deadline", "2s")); got.status != exitUnavailable {
		t.Errorf("with the database down: exit status %d\n%s%s", got.status, got.stdout, got.stderr)
	}
	if err := h.pg.Start(); err != nil {
		t.Fatal(err)
	}
	h.want(0, h.command("trigger", "--url", url))
	h.settled("served again")
	s.wellEnded(h)
}

// TestCallerGone disconnects the caller during a sync. The sync finishes, or the next call finishes it.
func TestCallerGone(t *testing.T) {
	t.Parallel()
	h := newHub(t, mongowire.Config{})
	h.fill(3000)
	s := h.serve()
	url := s.url
	var updates atomic.Int64
	h.mongo.Intercept(func(call *mongowire.Call) mongowire.Action {
		if call.Command == "update" {
			updates.Add(1)
			return mongowire.Action{Delay: 300 * time.Millisecond}
		}
		return mongowire.Action{}
	})
	client := http.Client{Timeout: 400 * time.Millisecond}
	if answer, err := client.Post(url, "", nil); err == nil {
		t.Errorf("the call was answered before its timeout: %s", answer.Status)
	}
	h.mongo.Intercept(nil)
	h.want(0, h.command("trigger", "--url", url))
	h.settled("caller gone")
	s.wellEnded(h)
}

// TestServeTerminated stops the service during a sync. It ends within five seconds after a complete batch.
func TestServeTerminated(t *testing.T) {
	t.Parallel()
	h := newHub(t, mongowire.Config{})
	h.fill(5000)
	s := h.serve()
	url := s.url
	reached := make(chan struct{}, 100)
	h.mongo.Intercept(func(call *mongowire.Call) mongowire.Action {
		if call.Command == "update" {
			reached <- struct{}{}
			return mongowire.Action{Delay: 50 * time.Millisecond}
		}
		return mongowire.Action{}
	})
	answered := make(chan string, 1)
	go func() {
		answer, err := http.Post(url, "", nil)
		if err != nil {
			answered <- err.Error()
			return
		}
		_ = answer.Body.Close()
		answered <- strconv.Itoa(answer.StatusCode)
	}()
	<-reached
	began := time.Now()
	ended := s.stop()
	if d := time.Since(began); d > 5*time.Second {
		t.Errorf("serve took %v to end", d)
	}
	if caller := <-answered; len(ended) != 1 || ended[0].status != 0 || caller != "503" {
		t.Errorf("serve ended as %+v, the caller got %s; want 0 and 503", ended, caller)
	}
	h.mongo.Intercept(nil)
	h.check("terminated")
	if rows, marked := h.count(), h.statuses()["processed"]; rows != marked {
		t.Errorf("%d rows, %d marked: a batch was interrupted", rows, marked)
	}
	h.want(0, h.command("run"))
	h.settled("terminated")
}

// raw sends text to serve and returns the complete answer. With half, it closes the sending side after the text.
func (s serving) raw(h *hub, text string, half bool) string {
	h.Helper()
	c, err := net.Dial("tcp", strings.TrimSuffix(strings.TrimPrefix(s.url, "http://"), "/api/sync/reading"))
	if err != nil {
		h.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(60 * time.Second))
	if _, err := io.WriteString(c, text); err != nil {
		h.Log(err) // serve may have answered before everything was sent
	}
	if half {
		_ = c.(*net.TCPConn).CloseWrite()
	}
	answer, err := io.ReadAll(c)
	if err != nil {
		h.Errorf("%.60q: %v", text, err)
	}
	return string(answer)
}

// TestServeOddCallers sends unusual HTTP, and text that is not HTTP. Each caller gets one bounded answer, or none.
func TestServeOddCallers(t *testing.T) {
	t.Parallel()
	h := newHub(t, mongowire.Config{})
	h.fill(3)
	s := h.serve()
	const target = "/api/sync/reading HTTP/1.1\r\nHost: localhost\r\n"
	for _, test := range []struct {
		name, text, want string
		half             bool
	}{
		{"plain", "POST " + target + "\r\n", "HTTP/1.1 200 OK\r\n", false},
		{"HTTP/1.0", "POST /api/sync/reading HTTP/1.0\r\n\r\n", "HTTP/1.1 200 OK\r\n", false},
		{"half closed", "POST " + target + "\r\n", "HTTP/1.1 200 OK\r\n", true},
		{"a body", "POST " + target + "Content-Length: 2\r\n\r\n{}", "HTTP/1.1 200 OK\r\n", false},
		{"chunks", "POST " + target + "Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", "HTTP/1.1 200 OK\r\n", false},
		{"100-continue", "POST " + target + "Expect: 100-continue\r\nContent-Length: 2\r\n\r\n{}", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n", false},
		{"pipelined", strings.Repeat("POST "+target+"\r\n", 3), "HTTP/1.1 200 OK\r\n", false},
		{"GET", "GET " + target + "\r\n", "HTTP/1.1 405 ", false},
		{"HEAD", "HEAD " + target + "\r\n", "HTTP/1.1 405 ", false},
		{"OPTIONS", "OPTIONS " + target + "\r\n", "HTTP/1.1 405 ", false},
		{"another path", "POST / HTTP/1.1\r\nHost: localhost\r\n\r\n", "HTTP/1.1 404 ", false},
		{"another host", "POST /api/sync/reading HTTP/1.1\r\nHost: evil.example\r\n\r\n", "HTTP/1.1 403 ", false},
		{"no host", "POST /api/sync/reading HTTP/1.1\r\n\r\n", "HTTP/1.1 400 ", false},
		{"a large header", "POST " + target + "X: " + strings.Repeat("x", 1<<20) + "\r\n\r\n", "HTTP/1.1 431 ", false},
		{"many headers", "POST " + target + strings.Repeat("X: y\r\n", 10000) + "\r\n", "HTTP/1.1 431 ", false},
		{"a large body", "POST " + target + "Content-Length: 900000\r\n\r\n" + strings.Repeat("x", 900000), "HTTP/1.1 413 ", false},
		{"large chunks", "POST " + target + "Transfer-Encoding: chunked\r\n\r\n" + strings.Repeat("1000\r\n"+strings.Repeat("x", 4096)+"\r\n", 40), "HTTP/1.1 413 ", false},
		{"bad chunks", "POST " + target + "Transfer-Encoding: chunked\r\n\r\nzz\r\n", "HTTP/1.1 400 ", false},
		{"an incomplete body", "POST " + target + "Content-Length: 100\r\n\r\nx", "HTTP/1.1 400 ", true},
		{"a body that does not arrive", "POST " + target + "Content-Length: 100\r\n\r\n", "HTTP/1.1 400 ", false},
		{"an incomplete header", "POST " + target, "HTTP/1.1 400 ", true},
		{"a header that never ends", "POST " + target, "HTTP/1.1 408 ", false},
		{"TLS", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", "HTTP/1.1 400 ", false},
		{"nothing", "", "", true},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			h := *h
			h.TB = t
			h.state = filepath.Join(t.TempDir(), "state") // calls must not wait for each other's lock
			s := h.serve()
			got := s.raw(&h, test.text, test.half)
			if !strings.HasPrefix(got, test.want) || test.want == "" && got != "" || strings.Count(got, "Content-Length") > 1 {
				t.Errorf("%.200q; want %q", got, test.want)
			}
			if test.name == "HEAD" && !strings.HasSuffix(got, "\r\n\r\n") {
				t.Errorf("the answer to HEAD has a body: %q", got)
			}
			s.wellEnded(&h)
		})
	}
	s.wellEnded(h)
}

// TestServeBusy calls during another sync. The calls are answered with 409 at once.
func TestServeBusy(t *testing.T) {
	t.Parallel()
	h := newHub(t, mongowire.Config{})
	h.fill(10)
	s := h.serve()
	reached, proceed := make(chan struct{}), make(chan struct{})
	var first sync.Once
	h.mongo.Intercept(func(call *mongowire.Call) mongowire.Action {
		first.Do(func() {
			close(reached)
			<-proceed
		})
		return mongowire.Action{}
	})
	run := h.command("run")
	if err := run.Start(); err != nil {
		t.Fatal(err)
	}
	<-reached
	for range 20 {
		answer, err := http.Post(s.url, "", nil)
		if err != nil || answer.StatusCode != http.StatusConflict || answer.Header.Get("Retry-After") == "" {
			t.Errorf("%v, %v; want 409 and Retry-After", answer, err)
		}
	}
	close(proceed)
	if err := run.Wait(); err != nil {
		t.Error(err)
	}
	s.wellEnded(h)
	h.settled("busy")
}

// TestServeByHand runs serve by hand. If stdin is not usable, a hint says what to do. If stdin is a pipe, serve answers on stdout.
func TestServeByHand(t *testing.T) {
	t.Parallel()
	h := newHub(t, mongowire.Config{})
	h.fill(3)
	got := h.want(64, h.command("serve")) // stdin is /dev/null
	if !strings.Contains(got.stderr, "reading-sync-api.socket") || !strings.Contains(got.stderr, "systemd-socket-activate") {
		t.Errorf("stderr lacks the hint: %s", got.stderr)
	}
	got = h.want(0, h.shell(`printf 'POST /api/sync/reading HTTP/1.1\r\nHost: localhost\r\n\r\n' | readsync serve`))
	if !strings.HasPrefix(got.stdout, "HTTP/1.1 200 OK\r\n") || !strings.Contains(got.stdout, `"processed_count":3`) || strings.Contains(got.stdout, "synced") || !strings.Contains(got.stderr, `"msg":"synced"`) {
		t.Errorf("%s\n%s", got.stdout, got.stderr)
	}
	h.settled("by hand")
}

package main

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// serve answers exactly one request of a connection, also if it is not valid.
func TestCall(t *testing.T) {
	const post = "POST /api/sync/reading HTTP/1.1\r\nHost: localhost\r\n"
	for name, tc := range map[string]struct {
		request string
		want    string // the beginning of the answer
		synced  int
	}{
		"a call":             {post + "\r\n", "HTTP/1.1 200 OK\r\n", 1},
		"HTTP/1.0":           {"POST /api/sync/reading HTTP/1.0\r\n\r\n", "HTTP/1.1 200 OK\r\n", 1},
		"a body":             {post + "Content-Length: 2\r\n\r\n{}", "HTTP/1.1 200 OK\r\n", 1},
		"100-continue":       {post + "Expect: 100-continue\r\nContent-Length: 2\r\n\r\n{}", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n", 1},
		"an incomplete body": {post + "Content-Length: 20\r\n\r\n{}", "HTTP/1.1 400 Bad Request\r\n", 0},
		"a body too large":   {post + "Content-Length: 70000\r\n\r\n" + strings.Repeat("x", 70000), "HTTP/1.1 413 ", 0},
		"no Host":            {"POST /api/sync/reading HTTP/1.1\r\n\r\n", "HTTP/1.1 400 Bad Request\r\n", 0},
		"not HTTP":           {"SSH-2.0-x\r\n\r\n", "HTTP/1.1 400 Bad Request\r\n", 0},
		"an endless header":  {post + "X: " + strings.Repeat("x", maxHeader), "HTTP/1.1 431 ", 0},
		"another path":       {"POST / HTTP/1.1\r\nHost: localhost\r\n\r\n", "HTTP/1.1 404 Not Found\r\n", 0},
		"two requests":       {post + "\r\n" + post + "\r\n", "HTTP/1.1 200 OK\r\n", 1},
		"nothing":            {"", "", 0},
	} {
		t.Run(name, func(t *testing.T) {
			synced := 0
			var out bytes.Buffer
			withEndpoint(t, func(context.Context) (int64, error) { synced++; return 5, nil }, func(e *endpoint) {
				c := &call{in: strings.NewReader(tc.request), out: &out}
				c.serve(e.stopping, e)
			})
			if !strings.HasPrefix(out.String(), tc.want) || tc.want == "" && out.Len() > 0 || synced != tc.synced || strings.Count(out.String(), "HTTP/1.1 200") > 1 {
				t.Errorf("%d syncs, %.300s", synced, out.String())
			}
			if tc.want != "" && !strings.Contains(out.String(), "Connection: close\r\n") {
				t.Errorf("the connection is not closed: %.300s", out.String())
			}
		})
	}
	// The answer to HEAD has no body, but the length of one.
	var out bytes.Buffer
	withEndpoint(t, nil, func(e *endpoint) {
		(&call{in: strings.NewReader("HEAD /api/sync/reading HTTP/1.1\r\nHost: localhost\r\n\r\n"), out: &out}).serve(e.stopping, e)
	})
	if head, body, _ := strings.Cut(out.String(), "\r\n\r\n"); body != "" || !strings.Contains(head, "405") || strings.Contains(head, "Content-Length: 0") {
		t.Errorf("HEAD: %q", out.String())
	}
}

// A caller that has sent no request when the service stops gets no answer. A body that
// does not arrive in time is an error.
func TestCallStopped(t *testing.T) {
	r, w := io.Pipe()
	defer w.Close()
	var out bytes.Buffer
	withEndpoint(t, nil, func(e *endpoint) {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		(&call{in: r, out: &out}).serve(ctx, e)
	})
	if out.Len() > 0 {
		t.Errorf("the caller got an answer: %s", out.String())
	}
	slow := &deadlineReader{r, time.Now().Add(-time.Second)}
	if _, err := slow.Read(make([]byte, 1)); !os.IsTimeout(err) {
		t.Errorf("reading a body that does not arrive: %v; want a timeout", err)
	}
}

// A TCP caller gets its answer.
func TestCallOverTCP(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		conn, err := l.Accept()
		if err != nil {
			t.Error(err)
			return
		}
		tcp := conn.(*net.TCPConn)
		withEndpoint(t, func(context.Context) (int64, error) { return 7, nil }, func(e *endpoint) {
			(&call{in: tcp, out: tcp, tcp: tcp}).serve(e.stopping, e)
		})
		tcp.Close()
	}()
	resp, err := http.Post("http://"+l.Addr().String()+syncPath, "application/json", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if n, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != 200 || !bytes.Contains(n, []byte(`"processed_count":7`)) {
		t.Errorf("%s, %s, %v", resp.Status, n, err)
	}
	<-done
}

// An answer to a caller that has closed the connection meanwhile, for example because its deadline was over, is not delivered.
func TestCallThatEnded(t *testing.T) {
	for _, ends := range []bool{false, true} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		caller, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		conn, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		tcp := conn.(*net.TCPConn)
		if _, err := io.WriteString(caller, "POST "+syncPath+" HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		sync := func(context.Context) (int64, error) {
			if ends {
				return 7, caller.Close()
			}
			go func() { _, _ = io.Copy(io.Discard, caller); caller.Close() }()
			return 7, nil
		}
		withEndpoint(t, sync, func(e *endpoint) {
			if got := (&call{in: tcp, out: tcp, tcp: tcp}).serve(e.stopping, e); got == ends {
				t.Errorf("the caller ends: %v; delivered: %v", ends, got)
			}
		})
		tcp.Close()
		l.Close()
	}
}

// serve exits with status 64 if stdin is neither a connection nor a pipe nor a file.
func TestServeNotByHand(t *testing.T) {
	null, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	p := startTool(t, func(cmd *exec.Cmd) { cmd.Stdin = null }, "serve")
	if status := p.wait(); status != 64 || !strings.Contains(p.stderr(), "neither a socket, nor a pipe") {
		t.Errorf("exit status %d\n%s", status, p.stderr())
	}
	// If stdin is a pipe, stdout has the answer and stderr has the records.
	p = startTool(t, func(cmd *exec.Cmd) {
		cmd.Stdin = strings.NewReader("POST /api/sync/reading HTTP/1.1\r\nHost: localhost\r\n\r\n")
	}, "serve")
	if status := p.wait(); status != 0 || !strings.HasPrefix(p.stdout(), "HTTP/1.1 500 ") || !strings.Contains(p.stderr(), `"msg":"synced"`) {
		t.Errorf("exit status %d\n%s\n%s", status, p.stdout(), p.stderr())
	}
}

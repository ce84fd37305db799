package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"observability-hub/lib/cli"
	"observability-hub/lib/record"
	"observability-hub/lib/sysexits"
)

// ran is the result of a run of the tool in this process.
type ran struct {
	status         int
	stdout, stderr string
}

// run runs the tool in this process.
func run(t *testing.T, args ...string) ran {
	t.Helper()
	return runApp(t, app(), args...)
}

// hurry runs trigger with waits of milliseconds.
func hurry(t *testing.T, args ...string) ran {
	t.Helper()
	a, p := app(), usualPace()
	p.first, p.longest, p.calls = time.Millisecond, 2*time.Millisecond, 20
	i := slices.IndexFunc(a.Commands, func(c cli.Command) bool { return c.Name == "trigger" })
	a.Commands[i].Grammar = &triggerCmd{pace: p}
	return runApp(t, a, append([]string{"trigger"}, args...)...)
}

func runApp(t *testing.T, app cli.App, args ...string) ran {
	t.Helper()
	return runInput(t, app, "", args...)
}

func runInput(t *testing.T, app cli.App, stdin string, args ...string) ran {
	t.Helper()
	stdout, stderr := nameless(t), nameless(t)
	defer stdout.Close()
	defer stderr.Close()
	r := ran{status: cli.Main(app, args, strings.NewReader(stdin), stdout, stderr)}
	for f, text := range map[*os.File]*string{stdout: &r.stdout, stderr: &r.stderr} {
		b, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<30))
		if err != nil {
			t.Error(err)
		}
		*text = string(b)
	}
	return r
}

// nameless creates a file that is removed already and exists until it is closed.
func nameless(t *testing.T) *os.File {
	t.Helper()
	f, err := os.CreateTemp("", "readsync-test")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(f.Name()); err != nil {
		t.Error(err)
	}
	return f
}

// triggered is the record of a trigger.
type triggered struct {
	Level, Msg, URL string
	Processed       int64 `json:"processed_count"`
	LeftBehind      bool  `json:"left_behind"`
	Calls, Attempts int
}

func (r ran) triggered(t *testing.T) (rec triggered) {
	t.Helper()
	if strings.Count(r.stdout, "\n") != 1 || json.Unmarshal([]byte(r.stdout), &rec) != nil || rec.Msg != "triggered" {
		t.Errorf("stdout is not one triggered record: %s", r.stdout)
	}
	return rec
}

// proxyOf starts a peer. It answers each call with the next handler, and all further
// calls with the last one.
func proxyOf(t *testing.T, handlers ...http.HandlerFunc) (url string, calls *atomic.Int64) {
	t.Helper()
	calls = &atomic.Int64{}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := int(calls.Add(1))
		handlers[min(n, len(handlers))-1](w, r)
	}))
	t.Cleanup(srv.Close)
	return srv.URL + syncPath, calls
}

// says returns a handler that answers with a status, a body and headers.
func says(status int, body string, header ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

// did returns a handler that answers that a call has processed n documents.
func did(n int) http.HandlerFunc {
	return says(200, fmt.Sprintf(`{"service":"reading-sync","status":"success","processed_count":%d,"timestamp":"2026-01-02T03:04:05Z"}`, n),
		"Content-Type", "application/json")
}

// hangUp returns a handler that closes the connection after a part of an answer.
func hangUp(part string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		c, _, err := http.NewResponseController(w).Hijack()
		if err == nil {
			_, _ = io.WriteString(c, part)
			c.Close()
		}
	}
}

func TestTriggerDrains(t *testing.T) {
	var method, path string
	url, _ := proxyOf(t, func(w http.ResponseWriter, r *http.Request) {
		method, path = r.Method, r.URL.RequestURI()
		did(100)(w, r)
	}, did(100), did(7), did(0), did(99))
	r := run(t, "trigger", "--url", url+"?batch=a")
	if rec := r.triggered(t); r.status != 0 || rec.Level != "INFO" || rec.Processed != 207 || rec.Calls != 4 || rec.Attempts != 4 || rec.URL != url+"?batch=xxxxx" {
		t.Errorf("exit status %d, %+v; want 0, 207 documents in 4 calls\n%s", r.status, rec, r.stderr)
	}
	if method != "POST" || path != syncPath+"?batch=a" {
		t.Errorf("the proxy got the request %s %s", method, path)
	}
}

// trigger retries after transient failures.
func TestTriggerRetries(t *testing.T) {
	url, _ := proxyOf(t, hangUp(""), says(500, "oh"), says(429, ""), did(3),
		hangUp("HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{\"status\":"), says(503, `{"status":"error","message":"database"}`),
		says(409, ""), says(502, "<html>"), says(504, ""), did(2), did(0))
	r := hurry(t, "--url", url)
	if rec := r.triggered(t); r.status != 0 || rec.Processed != 5 || rec.Calls != 3 || rec.Attempts != 11 {
		t.Errorf("exit status %d, %+v; want 0, 5 documents, 3 calls, 11 attempts\n%s", r.status, rec, r.stderr)
	}
	if n := strings.Count(r.stderr, `"msg":"call_failed"`); n != 8 || strings.Count(r.stderr, "\n") != 8 {
		t.Errorf("%d warnings about failed calls; want 8 and nothing else\n%s", n, r.stderr)
	}
}

// After a wrong answer the exit status tells systemd whether a retry makes sense.
func TestTriggerAnswers(t *testing.T) {
	const once, again = 1, 8
	for name, c := range map[string]struct {
		handler http.HandlerFunc
		status  int
		event   string
		calls   int64
	}{
		"HTML":               {says(200, "<!DOCTYPE html><p>Sign in</p>", "Content-Type", "text/html"), 65, "bad_answer", once},
		"empty":              {says(200, ""), 65, "bad_answer", once},
		"204":                {says(204, ""), 65, "bad_answer", once},
		"null":               {says(200, "null"), 65, "bad_answer", once},
		"array":              {says(200, "[]"), 65, "bad_answer", once},
		"no status":          {says(200, `{"processed_count":0}`), 65, "bad_answer", once},
		"other status":       {says(200, `{"status":"ok","processed_count":0}`), 65, "bad_answer", once},
		"no count":           {says(200, `{"status":"success"}`), 65, "bad_answer", once},
		"count null":         {says(200, `{"status":"success","processed_count":null}`), 65, "bad_answer", once},
		"count text":         {says(200, `{"status":"success","processed_count":"1"}`), 65, "bad_answer", once},
		"count negative":     {says(200, `{"status":"success","processed_count":-1}`), 65, "bad_answer", once},
		"count fraction":     {says(200, `{"status":"success","processed_count":0.5}`), 65, "bad_answer", once},
		"count beyond 2^53":  {says(200, `{"status":"success","processed_count":9007199254740993}`), 65, "bad_answer", once},
		"two answers":        {says(200, `{"status":"success","processed_count":0}{}`), 65, "bad_answer", once},
		"incomplete JSON":    {says(200, `{"status":"success","processed_count":1`), 65, "bad_answer", once},
		"byte order mark":    {says(200, "\ufeff"+`{"status":"success","processed_count":0}`), 65, "bad_answer", once},
		"huge":               {says(200, `{"status":"success","processed_count":0,"x":"`+strings.Repeat("x", 1<<20)+`"}`), 65, "bad_answer", once},
		"endless":            {drip([]byte(strings.Repeat(" ", 4<<10)), 0), 65, "bad_answer", once},
		"failed with 200":    {says(200, `{"status":"error","message":"no table"}`), 1, "sync_failed", once},
		"redirect":           {says(302, "", "Location", "/login?token=secret"), 78, "proxy_refused", once},
		"redirect to itself": {says(307, "", "Location", syncPath), 78, "proxy_refused", once},
		"401":                {says(401, ""), 78, "proxy_refused", once},
		"403":                {says(403, "no"), 78, "proxy_refused", once},
		"404":                {says(404, "404 page not found"), 78, "proxy_refused", once},
		"405":                {says(405, ""), 78, "proxy_refused", once},
		"500":                {says(500, ""), 69, "proxy_unavailable", again},
		"503":                {says(503, "<html>maintenance</html>"), 69, "proxy_unavailable", again},
		"429":                {says(429, ""), 69, "proxy_unavailable", again},
		"closes":             {hangUp(""), 69, "proxy_unavailable", again},
		"not HTTP":           {hangUp("SSH-2.0-x\r\n"), 69, "proxy_unavailable", again},
		"endless header":     {hangUp("HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 1<<20)), 69, "proxy_unavailable", again},
		"truncated":          {hangUp("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"status\":\"success\",\"processed_count\":0}"), 69, "proxy_unavailable", again},
		"truncated chunks":   {hangUp("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n28\r\n{\"status\":\"success\",\"processed_count\":0}\r\n"), 69, "proxy_unavailable", again},
	} {
		t.Run(name, func(t *testing.T) {
			url, calls := proxyOf(t, c.handler)
			url = strings.Replace(url, "://", "://hub:hunter2@", 1) + "?token=hunter3"
			r := hurry(t, "--url", url)
			if r.status != c.status || !strings.Contains(r.stderr, `"msg":"`+c.event+`"`) || calls.Load() != c.calls {
				t.Errorf("exit status %d after %d calls; want %d, %s after %d\n%s", r.status, calls.Load(), c.status, c.event, c.calls, r.stderr)
			}
			if rec := r.triggered(t); rec.Level != "WARN" || rec.Calls != 0 {
				t.Errorf("the record is %+v", rec)
			}
			if all := r.stdout + r.stderr; strings.Contains(all, "hunter") || strings.Contains(all, "secret") || !strings.Contains(all, "token=xxxxx") {
				t.Errorf("the output contains a secret, or lacks the URL: %s", all)
			}
			if len(r.stderr) > 10<<10 {
				t.Errorf("%d bytes of messages", len(r.stderr))
			}
		})
	}
}

// trigger accepts valid JSON of any content type.
func TestTriggerContentType(t *testing.T) {
	for _, header := range []string{"application/json", "text/plain; charset=utf-8", "application/problem+json", ""} {
		url, _ := proxyOf(t, says(200, ` {"status":"success","processed_count":0} `, "Content-Type", header))
		if r := run(t, "trigger", "--url", url); r.status != 0 {
			t.Errorf("%q: exit status %d\n%s", header, r.status, r.stderr)
		}
	}
}

// drip returns a handler that writes bit repeatedly until the caller disconnects.
func drip(bit []byte, every time.Duration) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(200)
		for r.Context().Err() == nil {
			_, _ = w.Write(bit)
			_ = http.NewResponseController(w).Flush()
			select {
			case <-r.Context().Done():
			case <-time.After(every):
			}
		}
	}
}

func TestTriggerSlowDrip(t *testing.T) {
	url, _ := proxyOf(t, drip([]byte(" "), time.Millisecond))
	p, err := newProxy(url)
	if err != nil {
		t.Fatal(err)
	}
	p.bodyWait = 20 * time.Millisecond
	if _, _, f := p.call(t.Context()); f == nil || !f.again || !strings.Contains(f.err.Error(), errSlow.Error()) {
		t.Errorf("a slow answer gives %+v", f)
	}
}

func TestTriggerDeadline(t *testing.T) {
	silent := func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	for name, c := range map[string]struct {
		handlers []http.HandlerFunc
		status   int
		event    string
	}{
		"no answer at all":               {[]http.HandlerFunc{silent}, 69, "proxy_unavailable"},
		"no answer after some documents": {[]http.HandlerFunc{did(100), silent}, 75, "not_drained"},
		"a Retry-After beyond it":        {[]http.HandlerFunc{says(503, "", "Retry-After", "3600")}, 69, "proxy_unavailable"},
		"another sync until then":        {[]http.HandlerFunc{says(409, "", "Retry-After", "1")}, 75, "proxy_busy"},
	} {
		t.Run(name, func(t *testing.T) {
			url, _ := proxyOf(t, c.handlers...)
			began := time.Now()
			r := run(t, "trigger", "--url", url, "--deadline", "300ms")
			if r.status != c.status || !strings.Contains(r.stderr, `"msg":"`+c.event+`"`) {
				t.Errorf("exit status %d; want %d, %s\n%s", r.status, c.status, c.event, r.stderr)
			}
			if took := time.Since(began); took > 10*time.Second {
				t.Errorf("trigger took %v", took)
			}
		})
	}
}

// trigger stops if every call processes documents.
func TestTriggerEndless(t *testing.T) {
	url, calls := proxyOf(t, did(100))
	r := hurry(t, "--url", url)
	if rec := r.triggered(t); r.status != 75 || calls.Load() != 20 || rec.Processed != 2000 || !strings.Contains(r.stderr, `"msg":"not_drained"`) {
		t.Errorf("exit status %d after %d calls: %+v\n%s", r.status, calls.Load(), rec, r.stderr)
	}
}

func TestTriggerRetryAfter(t *testing.T) {
	url, _ := proxyOf(t, says(429, "", "Retry-After", "1"), did(0))
	began := time.Now()
	if r := run(t, "trigger", "--url", url); r.status != 0 || time.Since(began) < time.Second {
		t.Errorf("exit status %d after %v; want a wait of a second\n%s", r.status, time.Since(began), r.stderr)
	}
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for header, want := range map[string]time.Duration{
		"": 0, "0": 0, "7": 7 * time.Second, " 7 ": 7 * time.Second, "-1": 0, "soon": 0, "99999999999999999999": 0,
		"Fri, 02 Jan 2026 03:04:15 GMT": 10 * time.Second,
		"Fri, 02 Jan 2026 03:04:00 GMT": 0,
	} {
		if got := retryAfter(header, now); got != want {
			t.Errorf("retryAfter(%q) = %v; want %v", header, got, want)
		}
	}
}

// trigger waits for a Proxy Service that restarts: at first nothing listens.
func TestTriggerRestartedProxy(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	go func() {
		time.Sleep(200 * time.Millisecond)
		l, err := net.Listen("tcp", address)
		if err != nil {
			t.Error(err)
			return
		}
		srv := &http.Server{Handler: did(0)}
		t.Cleanup(func() { srv.Close() })
		_ = srv.Serve(l)
	}()
	r := run(t, "trigger", "--url", "http://"+address+syncPath)
	if rec := r.triggered(t); r.status != 0 || rec.Attempts < 2 || !strings.Contains(r.stderr, "connection refused") {
		t.Errorf("exit status %d, %+v\n%s", r.status, rec, r.stderr)
	}
}

func TestTriggerCredential(t *testing.T) {
	var user, password string
	url, _ := proxyOf(t, func(w http.ResponseWriter, r *http.Request) {
		user, password, _ = r.BasicAuth()
		did(0)(w, r)
	})
	dir := t.TempDir()
	t.Setenv("CREDENTIALS_DIRECTORY", dir)
	if err := os.WriteFile(filepath.Join(dir, "proxy_auth"), []byte("hub:p:w/@d\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := run(t, "trigger", "--url", url); r.status != 0 || user != "hub" || password != "p:w/@d" || strings.Contains(r.stdout, "p:w") {
		t.Errorf("exit status %d, user %q, password %q\n%s%s", r.status, user, password, r.stdout, r.stderr)
	}
	if err := os.WriteFile(filepath.Join(dir, "proxy_auth"), []byte("hunter2"), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := run(t, "trigger", "--url", url); r.status != 78 || strings.Contains(r.stderr, "hunter2") {
		t.Errorf("exit status %d; want 78\n%s", r.status, r.stderr)
	}
}

// trigger never uses a proxy for this machine. It runs in a separate process, because Go
// reads the variables only once per process.
func TestTriggerIgnoresProxyForLoopback(t *testing.T) {
	url, _ := proxyOf(t, did(0))
	for _, url := range []string{url, strings.Replace(url, "127.0.0.1", "localhost", 1)} {
		p := startTool(t, func(cmd *exec.Cmd) {
			cmd.Env = append(cmd.Env, "http_proxy=http://127.0.0.1:1", "HTTP_PROXY=http://127.0.0.1:1", "all_proxy=http://127.0.0.1:1")
		}, "trigger", "--url", url)
		if status := p.wait(); status != 0 {
			t.Errorf("%s: exit status %d\n%s", url, status, p.stderr())
		}
	}
}

// trigger fails if it cannot write its record.
func TestTriggerFullDisk(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	url, _ := proxyOf(t, did(0))
	for _, args := range [][]string{{"trigger", "--url", url}} {
		p := startTool(t, func(cmd *exec.Cmd) { cmd.Stdout = full }, args...)
		if status := p.wait(); status != sysexits.CantCreate || !strings.Contains(p.stderr(), `"msg":"output_failed"`) {
			t.Errorf("%s: exit status %d\n%s", args[0], status, p.stderr())
		}
	}
}

// A certificate that this host does not trust needs a person, so it is not tried again.
func TestTriggerCertificate(t *testing.T) {
	calls := atomic.Int64{}
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { calls.Add(1) }))
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.StartTLS()
	t.Cleanup(srv.Close)
	r := hurry(t, "--url", srv.URL+syncPath)
	if r.status != sysexits.Config || !strings.Contains(r.stderr, `"msg":"proxy_refused"`) || !strings.Contains(r.stderr, "its certificate must be valid") {
		t.Errorf("exit status %d, %s", r.status, r.stderr)
	}
	if rec := r.triggered(t); rec.Attempts != 1 || calls.Load() != 0 {
		t.Errorf("%d attempts, %d calls; want one attempt that gets no answer", rec.Attempts, calls.Load())
	}
}

// A redirect is not followed; the message names where it leads, without secrets.
func TestTriggerRedirect(t *testing.T) {
	for location, want := range map[string]string{
		"https://u:hunter2@login.example/in?token=hunter2&x": "status 302, which redirects to https://xxxxx@login.example/in?token=xxxxx&x",
		"/login": "status 302, which redirects to /login",
		"":       "status 302\"",
	} {
		url, _ := proxyOf(t, says(302, "", "Location", location))
		r := run(t, "trigger", "--url", url)
		if r.status != sysexits.Config || !strings.Contains(r.stderr, want) || strings.Contains(r.stderr, "hunter2") {
			t.Errorf("%q: exit status %d, %s; want %q", location, r.status, r.stderr, want)
		}
	}
}

// trigger reaches localhost by IPv4 and by IPv6.
func TestTriggerLocalhost(t *testing.T) {
	for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
		l, err := net.Listen("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		srv := &http.Server{Handler: did(0)}
		t.Cleanup(func() { srv.Close() })
		go func() { _ = srv.Serve(l) }()
		url := fmt.Sprintf("http://localhost:%d%s", l.Addr().(*net.TCPAddr).Port, syncPath)
		if r := run(t, "trigger", "--url", url); r.status != 0 {
			t.Errorf("%s: exit status %d\n%s", address, r.status, r.stderr)
		}
	}
}

func TestTriggerUsage(t *testing.T) {
	for _, args := range [][]string{
		{"--url", "localhost:8085"}, {"--url", "http://"}, {"--url", "ftp://localhost/"}, {"--url", "http://u:hunter2@[::1"},
		{"--url", "http://u:hunter2%@localhost/"}, {"--deadline", "0s"}, {"--deadline", "-1s"},
	} {
		if r := run(t, append([]string{"trigger"}, args...)...); r.status != sysexits.Usage || r.stdout != "" || strings.Contains(r.stderr, "hunter2") {
			t.Errorf("%q: exit status %d, %s%s", args, r.status, r.stdout, r.stderr)
		}
	}
}

// A signal ends a wait at once, and trigger still prints its record.
func TestTriggerSignalled(t *testing.T) {
	url, calls := proxyOf(t, says(503, "", "Retry-After", "60"))
	c := startTool(t, nil, "trigger", "--url", url)
	await(t, "the first call", func() bool { return calls.Load() > 0 })
	c.signal(syscall.SIGTERM)
	if status := c.wait(); status != 128+int(syscall.SIGTERM) {
		t.Errorf("trigger ended with status %d; want death by the signal", status)
	}
	if out := c.stdout(); !strings.Contains(out, `"msg":"triggered"`) {
		t.Errorf("stdout: %s", out)
	}
}

// The unit of the timer fails if the endpoint left documents behind, whatever a later call answers. Nothing is tried again
// because of it.
func TestTriggerLeftBehind(t *testing.T) {
	const aside = `"left_behind":"set 1 document aside in /letters"`
	success := func(n int, more string) http.HandlerFunc {
		return says(200, fmt.Sprintf(`{"service":"reading-sync","status":"success","processed_count":%d%s,"timestamp":"2026-01-01T00:00:00Z"}`, n, more))
	}
	for name, tc := range map[string]struct {
		answers           []http.HandlerFunc
		status, processed int
		left              bool
	}{
		"nothing":       {[]http.HandlerFunc{success(5, ""), success(0, "")}, 0, 5, false},
		"in a success":  {[]http.HandlerFunc{success(5, ","+aside), success(0, "")}, sysexits.Partial, 5, true},
		"in the last":   {[]http.HandlerFunc{success(5, ""), success(0, ","+aside)}, sysexits.Partial, 5, true},
		"in an error":   {[]http.HandlerFunc{says(500, `{"status":"error","message":"stopped",`+aside+`}`), success(3, ""), success(0, "")}, sysexits.Partial, 3, true},
		"always errors": {[]http.HandlerFunc{says(500, `{"status":"error","message":"stopped",`+aside+`}`)}, sysexits.Unavailable, 0, true},
	} {
		t.Run(name, func(t *testing.T) {
			reports := ""
			first := tc.answers[0]
			tc.answers[0] = func(w http.ResponseWriter, r *http.Request) {
				reports = r.Header.Get(reportsHeader)
				first(w, r)
			}
			url, _ := proxyOf(t, tc.answers...)
			r := hurry(t, "--url", url)
			rec := r.triggered(t)
			level := record.Info
			if tc.status == sysexits.Unavailable {
				level = record.Warn
			}
			if r.status != tc.status || rec.LeftBehind != tc.left || rec.Processed != int64(tc.processed) || rec.Level != level || reports == "" {
				t.Errorf("status %d, %+v, %s: %q", r.status, rec, reportsHeader, reports)
			}
			if got := strings.Contains(r.stderr, `"msg":"left_behind"`) && strings.Contains(r.stderr, "aside in /letters"); got != tc.left {
				t.Errorf("stderr: %s", r.stderr)
			}
		})
	}
}

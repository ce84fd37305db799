package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"observability-hub/lib/cli"
	"observability-hub/lib/sysexits"
)

// inTest is a command that calls a function of a test.
type inTest struct {
	do func(context.Context, *cli.Env) error `kong:"-"`
}

func (c *inTest) Run(ctx context.Context, env *cli.Env) error { return c.do(ctx, env) }

// inTool runs the tool with do as its only command.
func inTool(t *testing.T, do func(context.Context, *cli.Env) error) ran {
	t.Helper()
	a := app()
	a.Commands = []cli.Command{{Name: "test", Default: true, Grammar: &inTest{do}}}
	return runApp(t, a)
}

// withEndpoint calls do with an endpoint whose sync is the function sync.
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
		t.Errorf("not a valid answer: %s", w.Body)
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
		if n, _, err := parseAnswer([]byte(a.body)); n != 42 || err != nil {
			t.Errorf("trigger parses the answer as %d, %v", n, err)
		}
	})
	withEndpoint(t, func(context.Context) (int64, error) { return 0, nil }, func(e *endpoint) {
		if n, _, err := parseAnswer([]byte(ask(t, e, aCall()).body)); n != 0 || err != nil {
			t.Errorf("trigger parses the answer with 0 documents as %d, %v", n, err)
		}
	})
}

func TestServeRequests(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*http.Request)
		status int
	}{
		"plain":             {func(*http.Request) {}, 200},
		"IPv4":              {func(r *http.Request) { r.Host = "127.0.0.1:8085" }, 200},
		"other loopback":    {func(r *http.Request) { r.Host = "127.8.9.10" }, 200},
		"IPv6":              {func(r *http.Request) { r.Host = "[::1]:8085" }, 200},
		"IPv6, no port":     {func(r *http.Request) { r.Host = "[::1]" }, 200},
		"upper case":        {func(r *http.Request) { r.Host = "LOCALHOST." }, 200},
		"named":             {func(r *http.Request) { r.Host = "Hub.example:80" }, 200},
		"HTTP/1.0, no Host": {func(r *http.Request) { r.Host = "" }, 200},
		"body":              {func(r *http.Request) { r.Body = io.NopCloser(strings.NewReader("{}")) }, 200},
		"query":             {func(r *http.Request) { r.URL.RawQuery = "a=b;c" }, 200},
		"own page":          {func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "same-origin") }, 200},
		"own origin":        {func(r *http.Request) { r.Header.Set("Origin", "http://localhost:8085") }, 200},
		"other host":        {func(r *http.Request) { r.Host = "evil.example" }, 403},
		"other address":     {func(r *http.Request) { r.Host = "192.0.2.1:8085" }, 403},
		"rebound":           {func(r *http.Request) { r.Host = "localhost.evil.example:8085" }, 403},
		"other site":        {func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "cross-site") }, 403},
		"same site":         {func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "same-site") }, 403},
		"other origin":      {func(r *http.Request) { r.Header.Set("Origin", "http://evil.example") }, 403},
		"null origin":       {func(r *http.Request) { r.Header.Set("Origin", "null") }, 403},
		"GET":               {func(r *http.Request) { r.Method = "GET" }, 405},
		"HEAD":              {func(r *http.Request) { r.Method = "HEAD" }, 405},
		"OPTIONS":           {func(r *http.Request) { r.Method = "OPTIONS" }, 405},
		"DELETE":            {func(r *http.Request) { r.Method = "DELETE" }, 405},
		"other path":        {func(r *http.Request) { r.URL.Path = "/" }, 404},
		"trailing slash":    {func(r *http.Request) { r.URL.Path += "/" }, 404},
		"dots":              {func(r *http.Request) { r.URL.Path = "/x/.." + syncPath }, 404},
		"large body":        {func(r *http.Request) { r.Body = io.NopCloser(io.LimitReader(zeros{}, 1<<20)) }, 413},
		"endless body":      {func(r *http.Request) { r.Body = io.NopCloser(zeros{}) }, 413},
		"incomplete body":   {func(r *http.Request) { r.Body = io.NopCloser(broken{}) }, 400},
		"other host, path":  {func(r *http.Request) { r.Host, r.URL.Path = "evil.example", "/" }, 403},
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
		text    string // the status in the JSON
		exit    int    // exit status of the service
		retried bool   // whether trigger retries
	}{
		"done":              {nil, 200, "success", 0, false},
		"some rejected":     {failing(sysexits.Partial), 200, "success", 11, false},
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
				if (a.LeftBehind != "") != (c.exit != 0) {
					t.Errorf("left_behind is %q", a.LeftBehind)
				}
				exit = sysexits.Code(e.verdict(true))
				// A caller that reports left_behind itself, such as trigger, gets the same answer.
				reports := aCall()
				reports.Header.Set(reportsHeader, "yes")
				b := ask(t, e, reports)
				if b.status != a.status || b.LeftBehind != a.LeftBehind {
					t.Errorf("with %s: status %d, %s", reportsHeader, b.status, b.body)
				}
				if got := sysexits.Code(e.verdict(true)); got != 0 {
					t.Errorf("the service exits with status %d although its caller reports", got)
				}
				if got := sysexits.Code(e.verdict(false)); got != c.exit {
					t.Errorf("the service exits with status %d although the answer was not delivered; want %d", got, c.exit)
				}
			})
			if exit != c.exit {
				t.Errorf("the service exits with status %d; want %d", exit, c.exit)
			}
			if (c.err == nil) != (r.stderr == "") || strings.Contains(r.stderr, "hunter") {
				t.Errorf("stderr: %s", r.stderr)
			}
		})
	}
}

func TestServePanic(t *testing.T) {
	r := withEndpoint(t, func(context.Context) (int64, error) { panic("hunter2") }, func(e *endpoint) {
		for range 2 { // the panic must not block the next call
			if a := ask(t, e, aCall()); a.status != 500 || strings.Contains(a.body, "hunter2") {
				t.Errorf("status %d, %s", a.status, a.body)
			}
		}
	})
	if !strings.Contains(r.stderr, "panic: hunter2") || !strings.Contains(r.stderr, "endpoint_test.go") {
		t.Errorf("stderr does not have the place of the panic: %s", r.stderr)
	}
}

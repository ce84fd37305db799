package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"observability-hub/lib/cli"
	"observability-hub/lib/credential"
	"observability-hub/lib/diag"
	"observability-hub/lib/record"
	"observability-hub/lib/sysexits"
)

// triggerCmd calls a Proxy Service, or readsync serve, until it has nothing left
// to sync.
type triggerCmd struct {
	URL      string        `name:"url" default:"http://localhost:8085/api/sync/reading" placeholder:"URL"`
	Deadline time.Duration `default:"30m"`
	pace     pace          `kong:"-"`
}

// Validate is kong's check after parsing. It does not repeat the URL, which may
// hold a password.
func (t *triggerCmd) Validate() error {
	u, err := url.Parse(t.URL)
	switch {
	case err != nil:
		return errors.New("--url: not a well-formed URL")
	case u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "":
		return errors.New("--url: want http://HOST[:PORT]/PATH or https://…")
	case t.Deadline <= 0:
		return fmt.Errorf("--deadline must be greater than 0, got %v", t.Deadline)
	}
	return nil
}

// Run is what kong calls.
func (t *triggerCmd) Run(ctx context.Context, env *cli.Env) error {
	p, err := newProxy(t.URL)
	if err != nil {
		return err
	}
	run := &triggering{triggerCmd: *t, env: env, proxy: p, began: time.Now()}
	return run.finish(ctx, run.drain(ctx))
}

// pace is how patient a run is with a peer that fails.
type pace struct {
	first, longest time.Duration // of the waits, each twice as long as the one before
	tries          int           // of one call
	calls          int           // that process something, of one run
}

// usualPace gives a peer that is being restarted a minute or so. The unit's own
// restarts come on top of that. A Proxy Service syncs 100 documents a call, and
// one that never says 0 must not be called for ever.
func usualPace() pace {
	return pace{first: time.Second, longest: 30 * time.Second, tries: 8, calls: 10_000}
}

// triggering is the state of a run.
type triggering struct {
	triggerCmd
	env       *cli.Env
	proxy     *proxy
	began     time.Time
	processed int64
	calls     int // that were answered as they should
	attempts  int
}

// drain calls until a call processes nothing.
func (t *triggering) drain(ctx context.Context) error {
	deadline := t.began.Add(t.Deadline)
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	for {
		n, err := t.call(ctx, deadline)
		if err != nil {
			return err
		}
		t.calls++
		t.processed += n
		if n == 0 {
			return nil
		}
		if t.calls >= t.pace.calls {
			return notDrained(fmt.Errorf("stopped after %d calls that each processed documents", t.calls))
		}
	}
}

// call makes one call, again and again while it fails in a way that may pass.
func (t *triggering) call(ctx context.Context, deadline time.Time) (processed int64, err error) {
	wait, failed := t.pace.first, 0
	for {
		t.attempts++
		n, f := t.proxy.call(ctx)
		if f == nil {
			return n, nil
		}
		if ctx.Err() != nil && t.calls > 0 {
			return 0, notDrained(fmt.Errorf("the deadline of %v expired after %s", t.Deadline, plural(int64(t.calls), "call")))
		}
		if ctx.Err() != nil || !f.again {
			return 0, f.err
		}
		// A sync that is under way is no failure: it is waited for.
		if !f.busy {
			failed++
		}
		pause := max(f.after, jitter(wait))
		wait = min(2*wait, t.pace.longest)
		if failed >= t.pace.tries || time.Until(deadline) <= pause {
			return 0, f.err
		}
		t.env.Diag.Warn("call_failed", fmt.Sprintf("%v; next attempt in %v", f.err, pause.Round(time.Millisecond)),
			diag.Field{Key: "attempt", Value: t.attempts})
		select {
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		case <-time.After(pause):
		}
	}
}

// jitter returns between half of d and d, so that hosts which failed together do
// not come back together.
func jitter(d time.Duration) time.Duration { return d/2 + rand.N(d/2+1) }

func notDrained(err error) error {
	return sysexits.New(sysexits.TempFail, "not_drained", err).
		WithHint("run again, because documents may be left; for a large backlog use a longer --deadline")
}

// finish prints the record of the run and returns err.
func (t *triggering) finish(ctx context.Context, err error) error {
	if ctx.Err() != nil { // a signal
		err = context.Cause(ctx)
	}
	level := record.Info
	if err != nil {
		level = record.Warn
	}
	l := record.New(time.Now(), level, "triggered", t.env.Service)
	l.Int("processed_count", t.processed)
	l.Int("calls", int64(t.calls))
	l.Int("attempts", int64(t.attempts))
	l.Float("duration_s", seconds(t.began))
	l.String("url", shownURL(t.proxy.url))
	return errors.Join(err, t.env.Stdout.Record(level, l.End()))
}

// shownURL is a URL without what may be secret in it: the user, and the value of
// each parameter.
func shownURL(u *url.URL) string {
	shown := &url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}
	text := shown.String()
	if u.User != nil {
		text = strings.Replace(text, "://", "://xxxxx@", 1)
	}
	for i, parameter := range strings.FieldsFunc(u.RawQuery, func(r rune) bool { return r == '&' }) {
		key, _, hasValue := strings.Cut(parameter, "=")
		text += string("?&"[min(i, 1)])
		if text += key; hasValue {
			text += "=xxxxx"
		}
	}
	return text
}

// newProxy prepares calls of the endpoint that rawURL names. A user and a
// password for it may come from the credential proxy_auth.
func newProxy(rawURL string) (*proxy, error) {
	u, err := url.Parse(rawURL)
	if err != nil {
		return nil, errors.New("--url: not a well-formed URL") // see Validate
	}
	auth, ok, err := credential.Lookup("proxy_auth")
	if err != nil {
		return nil, proxyConfig(err)
	}
	if ok {
		user, password, both := strings.Cut(auth, ":")
		if !both {
			return nil, proxyConfig(errors.New("proxy_auth: want user:password"))
		}
		u.User = url.UserPassword(user, password)
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	// An answer is some hundred bytes. What is compressed could be any size.
	transport.MaxResponseHeaderBytes = maxAnswer
	transport.DisableCompression = true
	transport.DialContext = dialLocalhost
	return &proxy{
		url: u,
		client: &http.Client{
			Transport: transport,
			// A redirected POST becomes a GET, which syncs nothing.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		bodyWait: 30 * time.Second,
	}, nil
}

// dialLocalhost connects to localhost without asking anybody where that is
// (RFC 6761, 6.3): a host that is in trouble may have lost /etc/hosts or its
// name server.
func dialLocalhost(ctx context.Context, network, address string) (net.Conn, error) {
	dialer := &net.Dialer{Timeout: 30 * time.Second}
	host, port, err := net.SplitHostPort(address)
	if err != nil || !strings.EqualFold(host, "localhost") {
		return dialer.DialContext(ctx, network, address)
	}
	c, err := dialer.DialContext(ctx, network, net.JoinHostPort("127.0.0.1", port))
	if err != nil {
		if six, failed := dialer.DialContext(ctx, network, net.JoinHostPort("::1", port)); failed == nil {
			return six, nil
		}
	}
	return c, err
}

func proxyConfig(err error) error {
	return sysexits.New(sysexits.Config, "bad_configuration", err).
		WithHint("the credential proxy_auth, or $PROXY_AUTH, must be user:password")
}

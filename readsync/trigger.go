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

// triggerCmd is the command trigger.
type triggerCmd struct {
	URL      string        `name:"url" default:"http://localhost:8085/api/sync/reading" placeholder:"URL"`
	Deadline time.Duration `default:"30m"`
	pace     pace          `kong:"-"`
}

// Validate checks the flags. Its errors do not quote the URL, which may contain a
// password.
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

// Run calls a Proxy Service, or readsync serve, until a call processes no documents.
func (t *triggerCmd) Run(ctx context.Context, env *cli.Env) error {
	p, err := newProxy(t.URL)
	if err != nil {
		return err
	}
	run := &triggering{triggerCmd: *t, env: env, proxy: p, began: time.Now()}
	return run.finish(ctx, run.drain(ctx))
}

// pace limits the retries and the calls of a run.
type pace struct {
	first, longest time.Duration // the first and the longest wait; each wait is twice the one before
	tries          int           // maximum attempts of one call
	calls          int           // maximum calls of a run that processed documents
}

// usualPace gives a peer that restarts about a minute. The unit retries after that. The
// number of calls is limited in case a Proxy Service never answers 0. A Proxy Service
// syncs 100 documents per call.
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
	calls     int // calls that succeeded
	attempts  int
	left      int    // answers with left_behind
	leftFirst string // left_behind of the first of them
}

// drain makes calls until a call processes no documents.
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

// call makes one call. It retries while the failure may be transient.
func (t *triggering) call(ctx context.Context, deadline time.Time) (processed int64, err error) {
	wait, failed := t.pace.first, 0
	for {
		t.attempts++
		n, left, f := t.proxy.call(ctx)
		if f != nil {
			left = f.leftBehind
		}
		if left != "" {
			if t.left++; t.left == 1 {
				t.leftFirst = left
			}
		}
		if f == nil {
			return n, nil
		}
		if ctx.Err() != nil && t.calls > 0 {
			return 0, notDrained(fmt.Errorf("the deadline of %v expired after %s", t.Deadline, plural(int64(t.calls), "call")))
		}
		if ctx.Err() != nil || !f.again {
			return 0, f.err
		}
		// Another sync that runs is not a failure, so waiting for it is not limited by
		// the number of attempts.
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

// jitter returns a random duration between d/2 and d. Otherwise hosts that failed at the
// same time would retry at the same time.
func jitter(d time.Duration) time.Duration { return d/2 + rand.N(d/2+1) }

func notDrained(err error) error {
	return sysexits.New(sysexits.TempFail, "not_drained", err).
		WithHint("run again, because documents may be left; for a large backlog use a longer --deadline")
}

// leftBehind returns an error if the endpoint could not sync or mark all documents. A
// later call does not change that, so the run was otherwise a success.
func (t *triggering) leftBehind() error {
	if t.left == 0 {
		return nil
	}
	return sysexits.New(sysexits.Partial, "left_behind", fmt.Errorf("the endpoint could not sync or mark all documents, in %d of %s; at first: %s", t.left, plural(int64(t.attempts), "call"), excerpt([]byte(t.leftFirst)))).
		WithHint("the errors and warnings of the endpoint name them: journalctl -u 'reading-sync-api@*' -p warning")
}

// finish prints the triggered record and returns err, joined with the error of documents
// that were left behind.
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
	l.Bool("left_behind", t.left > 0)
	return errors.Join(err, t.leftBehind(), t.env.Stdout.Record(level, l.End()))
}

// shownURL returns a URL for messages. It replaces the user and the values of the
// parameters, which may be secret.
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

// newProxy returns the proxy for the endpoint rawURL. If the credential proxy_auth is
// set, its user and password are used.
func newProxy(rawURL string) (*proxy, error) {
	u, err := url.Parse(rawURL)
	if err != nil {
		return nil, errors.New("--url: not a well-formed URL") // Validate has checked it
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
	// An answer has some hundred bytes. A compressed answer could expand to any size.
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

// dialLocalhost connects to localhost without looking up the name (RFC 6761, 6.3),
// because a damaged host may have lost /etc/hosts or its name server.
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
	if e, ok := errors.AsType[*sysexits.Error](err); ok {
		return e // it has a hint of its own
	}
	return sysexits.New(sysexits.Config, "bad_configuration", err).
		WithHint("the credential proxy_auth, or $PROXY_AUTH, must be user:password")
}

package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"time"

	"observability-hub/lib/cli"
	"observability-hub/lib/record"
	"observability-hub/lib/sysexits"
)

// serveCmd is the endpoint of a Proxy Service, for hosts without one.
type serveCmd struct {
	peerFlags
	deadLetterFlags
	datesFlag
	Listen    string         `default:"127.0.0.1:8085" placeholder:"ADDRESS"`
	Idle      *time.Duration `placeholder:"D"`
	AllowHost []string       `placeholder:"NAME"`
}

// Validate is kong's check after parsing.
func (s *serveCmd) Validate() error {
	err := errors.Join(s.peerFlags.Validate(), s.deadLetterFlags.Validate())
	if _, _, bad := net.SplitHostPort(s.Listen); bad != nil {
		err = errors.Join(err, fmt.Errorf("--listen %s: want HOST:PORT", s.Listen))
	}
	if s.Idle != nil && *s.Idle < 0 {
		err = errors.Join(err, fmt.Errorf("--idle %v: below zero", *s.Idle))
	}
	return err
}

// Run is what kong calls. SIGTERM is a good end, unless documents were left behind.
func (s *serveCmd) Run(ctx context.Context, env *cli.Env) error {
	e := &endpoint{env: env, hosts: s.AllowHost, sync: func(ctx context.Context) (int64, error) {
		run := &runCmd{peerFlags: s.peerFlags, deadLetterFlags: s.deadLetterFlags, datesFlag: s.datesFlag}
		a, err := run.sync(ctx, env)
		return a.inserted + a.identical, err
	}}
	err := cli.Interruptible(ctx, func(ctx context.Context) error {
		listeners, err := passedListeners()
		if err != nil {
			return err
		}
		idle := time.Minute
		if len(listeners) == 0 {
			l, err := listen(s.Listen)
			if err != nil {
				return err
			}
			listeners, idle = []net.Listener{l}, 0
		}
		if s.Idle != nil {
			idle = *s.Idle
		}
		return e.serve(ctx, listeners, idle)
	})
	if err != nil {
		return err
	}
	return e.verdict()
}

// Limits of one connection. The answer may take as long as the sync does.
const (
	readWait  = 10 * time.Second
	writeWait = 10 * time.Second
	// stopWait is less than what Interruptible leaves of the 5 s after a signal.
	stopWait = 3500 * time.Millisecond
)

// serve answers until ctx is done or, if idle is not zero, until there was no
// connection for that long.
func (e *endpoint) serve(ctx context.Context, listeners []net.Listener, idle time.Duration) error {
	e.stopping = ctx
	quiet := newQuiet(idle)
	srv := &http.Server{
		Handler:           e,
		ReadTimeout:       readWait,
		ReadHeaderTimeout: readWait,
		MaxHeaderBytes:    16 << 10,
		ConnState:         quiet.note,
		ErrorLog:          log.New(serverLog{e.env}, "", 0),
	}
	// A call an hour needs no connection that is kept, and none that is kept can be
	// closed at the moment at which it is used again.
	srv.SetKeepAlivesEnabled(false)
	if err := e.announce(listeners); err != nil {
		return err
	}
	ended := make(chan error, len(listeners))
	for _, l := range listeners {
		go func() { ended <- srv.Serve(l) }()
	}
	var err error
	open := len(listeners)
	select {
	case <-ctx.Done():
	case <-quiet.over:
	case err = <-ended:
		open--
	}
	// First nothing new is accepted. A connection that comes now waits in the socket,
	// which systemd keeps, and starts the service again. One that was accepted at
	// the last moment is known when the server's loop has ended, and is served:
	// Shutdown would drop it if its request has not been read yet.
	for _, l := range listeners {
		_ = l.Close()
	}
	for range open {
		<-ended
	}
	quiet.wait(ctx, stopWait)
	_ = srv.Close()
	if err != nil {
		return fmt.Errorf("accept connections: %w", err)
	}
	return nil
}

// announce says where calls are taken.
func (e *endpoint) announce(listeners []net.Listener) error {
	addresses := make([]string, len(listeners))
	for i, l := range listeners {
		addresses[i] = l.Addr().String()
	}
	l := record.New(time.Now(), record.Info, "listening", e.env.Service)
	l.Strings("addresses", addresses)
	return e.env.Stdout.Record(record.Info, l.End())
}

// verdict is the end of a service: whether documents were left behind in any of
// its syncs, as nobody else says so. Other failures were told to the caller, who
// tries again or fails.
func (e *endpoint) verdict() error {
	e.running.Lock()
	defer e.running.Unlock()
	if e.leftBehind == 0 {
		return nil
	}
	return sysexits.New(sysexits.Partial, "left_behind", fmt.Errorf("%s left documents behind", plural(e.leftBehind, "sync"))).
		WithHint("the errors before this one say which, and why")
}

// serverLog takes what http.Server has to say, such as a failing accept.
type serverLog struct{ env *cli.Env }

func (s serverLog) Write(p []byte) (int, error) {
	s.env.Diag.Warn("http_server", string(p[:max(0, len(p)-1)]))
	return len(p), nil
}

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"observability-hub/lib/cli"
	"observability-hub/lib/record"
	"observability-hub/lib/statedir"
	"observability-hub/lib/sysexits"
	"observability-hub/lib/table"
)

type statusCmd struct {
	stateFlags
	Source string        `placeholder:"DIR"`
	MaxAge time.Duration `placeholder:"D"`
	table.Flag
}

// Viewer implements [cli.Viewable].
func (c *statusCmd) Viewer(w io.Writer) cli.Viewer { return c.Show(w, nil) }

func (c *statusCmd) Validate() error {
	if c.MaxAge < 0 {
		return fmt.Errorf("--max-age must not be negative, got %v", c.MaxAge)
	}
	return nil
}

// Run reads the state files and takes no lock. It therefore also answers while an
// apply runs. Every file that it reads is replaced atomically.
func (c *statusCmd) Run(ctx context.Context, env *cli.Env) error {
	state, err := c.existing()
	if err != nil {
		return err
	}
	if c.Source == "" {
		c.Source = defaultSource(state)
	}
	s, err := readStatus(state, c.Source, time.Now())
	if err != nil {
		return err
	}
	stale := s.stale(c.MaxAge)
	level := record.Info
	if stale != "" {
		level = record.Warn
	}
	if err := env.Stdout.Record(level, s.record(level, env.Service, stale != "")); err != nil {
		return err
	}
	if stale != "" {
		return sysexits.New(sysexits.Failed, "stale", errors.New(stale)).
			WithHint("journalctl -u gitops-sync -u gitops-apply shows the errors")
	}
	return nil
}

// status is what the state files say about this host. Only drift is found by
// reading files of the host.
type status struct {
	now         time.Time
	pulled      pulled
	pulledAt    time.Time // of the last successful pull; zero if there was none
	ledger      *ledger
	appliedAt   time.Time // of the last successful apply; zero if there was none
	quarantine  quarantine
	hold        hold
	held        bool
	interrupted bool
	drift       []string // files of the ledger that have changed since they were deployed
}

func readStatus(state, source string, now time.Time) (*status, error) {
	s := &status{now: now}
	var err error
	if s.pulled, err = readPulled(source); err != nil {
		return nil, err
	}
	if s.ledger, err = readLedger(state); err != nil {
		return nil, err
	}
	if s.quarantine, err = readQuarantine(state); err != nil {
		return nil, err
	}
	if s.hold, s.held, err = readHold(state, now); err != nil {
		return nil, err
	}
	// Only the user of apply may read the journal. Other users see that there is one.
	j, err := readJournal(state)
	if err != nil && !errors.Is(err, fs.ErrPermission) {
		return nil, err
	}
	s.interrupted = j != nil || err != nil
	s.pulledAt, s.appliedAt = modified(filepath.Join(source, pulledFile)), modified(filepath.Join(state, ledgerFile))
	h := host{root: s.ledger.Root}
	if h.root == "" {
		h.root = "/"
	}
	for _, p := range slices.Sorted(maps.Keys(s.ledger.Files)) {
		f := s.ledger.Files[p]
		is, err := h.state(p)
		changed := is.kind != "file" || fmt.Sprintf("%04o", is.mode) != f.Mode
		if err != nil && !(changed && is.kind != "" && errors.Is(err, fs.ErrPermission)) {
			return nil, statedir.Unreadable(err)
		}
		if changed || is.sum != f.Sum {
			s.drift = append(s.drift, p)
		}
	}
	return s, nil
}

// modified returns the modification time of a file. It is zero if there is no file.
func modified(name string) time.Time {
	info, err := os.Stat(name)
	if err != nil {
		return time.Time{}
	}
	return info.ModTime()
}

// stale returns why the state is stale: the last successful pull or apply is older
// than limit. It returns "" if the state is not stale.
func (s *status) stale(limit time.Duration) string {
	if limit == 0 {
		return ""
	}
	for _, half := range []struct {
		name string
		at   time.Time
	}{{"pull", s.pulledAt}, {"apply", s.appliedAt}} {
		if half.at.IsZero() {
			return "no " + half.name + " has succeeded yet"
		}
		if age := s.now.Sub(half.at); age > limit {
			return fmt.Sprintf("the last successful %s was %v ago, more than %v", half.name, age.Round(time.Second), limit)
		}
	}
	return ""
}

func (s *status) record(level, service string, stale bool) []byte {
	l := record.New(s.now, level, "status", service)
	text := func(key, value string) {
		if value == "" {
			l.Null(key)
		} else {
			l.String(key, value)
		}
	}
	age := func(key string, at time.Time) {
		if at.IsZero() {
			l.Null(key)
		} else {
			l.Float(key, s.now.Sub(at).Seconds())
		}
	}
	text("applied", s.ledger.Commit)
	text("fetched", s.pulled.Commit)
	s.pulled.Waiting.record(l)
	text("quarantined", s.quarantine.Commit)
	text("quarantine_reason", s.quarantine.Reason)
	l.Bool("held", s.held)
	if s.held && !s.hold.Until.IsZero() {
		l.String("held_until", s.hold.Until.Format(record.TimeFormat))
	} else {
		l.Null("held_until")
	}
	age("pull_age_s", s.pulledAt)
	age("apply_age_s", s.appliedAt)
	l.Bool("stale", stale)
	l.Bool("interrupted", s.interrupted)
	l.Int("files", int64(len(s.ledger.Files)))
	l.Int("drift", int64(len(s.drift)))
	const most = 50 // because a line must fit into the journal
	l.Strings("drifted", s.drift[:min(len(s.drift), most)])
	return l.End()
}

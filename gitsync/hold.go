package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"observability-hub/lib/cli"
	"observability-hub/lib/record"
	"observability-hub/lib/statedir"
	"observability-hub/lib/sysexits"
)

// hold keeps apply from changing the host while an administrator works on it by
// hand.
type hold struct {
	Since time.Time `json:"since"`
	Until time.Time `json:"until"` // zero if the hold lasts until resume
}

const holdFile = "hold.json"

// readHold returns the hold that is in force, and whether one is.
func readHold(state string, now time.Time) (hold, bool, error) {
	var h hold
	if err := readState(state, holdFile, &h); err != nil {
		return h, false, err
	}
	return h, !h.Since.IsZero() && (h.Until.IsZero() || now.Before(h.Until)), nil
}

// lockWait is how long a command that a person types waits for the lock of another
// run.
const lockWait = 30 * time.Second

// timerWait is how long the commands of the units wait for the lock. A program that
// a killed run was starting holds the lock a moment longer than that run.
const timerWait = 500 * time.Millisecond

type holdCmd struct {
	stateFlags
	For *time.Duration `placeholder:"D"`
}

func (c *holdCmd) Validate() error {
	if c.For != nil && *c.For <= 0 {
		return fmt.Errorf("--for must be greater than 0, got %v", *c.For)
	}
	return nil
}

func (c *holdCmd) Run(ctx context.Context, env *cli.Env) error {
	dir, err := c.openExisting(ctx, lockWait)
	if err != nil {
		return err
	}
	defer dir.Close()
	if units, other := statedir.Unit(applyState, dir.Path); other && c.StateDir == "" && os.Getenv("STATE_DIRECTORY") == "" {
		return sysexits.New(sysexits.Config, "other_state", fmt.Errorf("the state of this user is %s, but the units have theirs in %s: this hold would not hold them", dir.Path, units)).
			WithHint("run it as root, or pass --state-dir to name the state to hold")
	}
	now := time.Now().UTC()
	h := hold{Since: now}
	if c.For != nil {
		h.Until = now.Add(*c.For)
	}
	if err := writeState(dir, holdFile, h); err != nil {
		return err
	}
	return env.Stdout.Record(record.Info, h.record(now, env.Service))
}

// record returns the record that says that nothing is applied.
func (h hold) record(now time.Time, service string) []byte {
	l := record.New(now, record.Info, "held", service)
	l.String("since", h.Since.Format(record.TimeFormat))
	if h.Until.IsZero() {
		l.Null("until")
	} else {
		l.String("until", h.Until.Format(record.TimeFormat))
	}
	return l.End()
}

type resumeCmd struct {
	stateFlags
}

func (c *resumeCmd) Run(ctx context.Context, env *cli.Env) error {
	dir, err := c.openExisting(ctx, lockWait)
	if err != nil {
		return err
	}
	defer dir.Close()
	_, held, err := readHold(dir.Path, time.Now())
	if err != nil {
		env.Diag.Warn("hold_unreadable", err.Error()) // the file is removed below
	}
	if err := dir.Remove(holdFile); err != nil {
		return err
	}
	l := record.New(time.Now(), record.Info, "resumed", env.Service)
	l.Bool("was_held", held)
	return env.Stdout.Record(record.Info, l.End())
}

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"syscall"
	"time"

	"observability-hub/lib/cli"
	"observability-hub/lib/diag"
	"observability-hub/lib/record"
	"observability-hub/lib/statedir"
	"observability-hub/lib/sysexits"
)

type applyCmd struct {
	stateFlags
	originFlags
	hostFlags
	applyFlags
	Plan string `arg:"" optional:"" help:"- to do only the lines of a plan on stdin."`
}

// Validate is kong's check after parsing.
func (c *applyCmd) Validate() error {
	if c.Plan != "" && c.Plan != "-" {
		return fmt.Errorf("%s: neither - nor a flag", c.Plan)
	}
	return validate(c.originFlags, c.hostFlags, c.applyFlags)
}

func (c *applyCmd) Run(ctx context.Context, env *cli.Env) error {
	return cli.Interruptible(ctx, func(ctx context.Context) error {
		var only *selection
		if c.Plan == "-" {
			var err error
			// Before the lock: a plan that is being made holds it.
			if only, err = readSelection(env.Stdin); err != nil {
				return err
			}
		}
		dir, err := c.openWith(ctx, c.Source, timerWait)
		if err != nil {
			return err
		}
		defer dir.Close()
		a := &apply{env: env, dir: dir, originFlags: c.originFlags, hostFlags: c.hostFlags, applyFlags: c.applyFlags}
		return a.run(ctx, only)
	})
}

// apply is one run of plan, apply or rollback under the lock of its state directory.
type apply struct {
	env *cli.Env
	dir *statedir.Dir
	originFlags
	hostFlags
	applyFlags

	host   host
	ledger *ledger
	began  time.Time
	target string // the commit to apply, if it is not the pulled one
}

// prepare reads what the state directory says.
func (a *apply) prepare() error {
	a.began = time.Now()
	root, err := filepath.Abs(a.Root)
	if err != nil {
		return err
	}
	if root, err = filepath.EvalSymlinks(root); err != nil {
		return sysexits.New(sysexits.Usage, "usage", fmt.Errorf("--root: %w", err))
	}
	a.host = host{root: root}
	if a.Source == "" {
		a.Source = defaultSource(a.dir.Path)
	}
	a.ledger, err = readLedger(a.dir.Path)
	if err == nil && a.ledger.Root != "" && a.ledger.Root != root {
		return sysexits.New(sysexits.Config, "other_root", fmt.Errorf("%s is the state of the root %s, not of %s", a.dir.Path, a.ledger.Root, root)).
			WithHint("give each root a --state-dir of its own")
	}
	return err
}

// run does the plan, or the lines of it that are selected.
func (a *apply) run(ctx context.Context, only *selection) error {
	// Folders for units and drop-ins are for all to read, as systemctl has them.
	syscall.Umask(0o022)
	if err := a.prepare(); err != nil {
		return err
	}
	if err := a.recover(ctx); err != nil {
		return err
	}
	if h, held, err := readHold(a.dir.Path, time.Now()); err != nil {
		return err
	} else if held && a.target == "" {
		return a.env.Stdout.Record(record.Info, h.record(time.Now(), a.env.Service))
	}
	w, err := a.wish(ctx)
	if err != nil || w == nil {
		return err
	}
	if err := guard(a.ledger, w.d, a.AllowPrune); err != nil {
		return err
	}
	actions := w.plan.actions
	if only != nil {
		if actions, err = only.of(w.plan.actions, w.d.commit); err != nil {
			return err
		}
	}
	return a.execute(ctx, w, actions)
}

// recover finishes or undoes what an interrupted apply left.
func (a *apply) recover(ctx context.Context) error {
	j, err := readJournal(a.dir.Path)
	if err != nil || j == nil {
		return err
	}
	if j.Root != a.host.root {
		return sysexits.New(sysexits.Config, "other_root", fmt.Errorf("%s holds an interrupted apply on the root %s", a.dir.Path, j.Root)).
			WithHint("run gitsync apply --root " + j.Root + " first")
	}
	if j.Run == a.ledger.Run { // it was committed
		// Perhaps by a write that failed at the very end: without the journal
		// there must be no way back to the ledger before.
		if err := a.dir.Sync(); err != nil {
			return err
		}
		return a.forget(j)
	}
	a.env.Diag.Warn("apply_interrupted", "an apply was interrupted: undoing it first", diag.Field{Key: "commit", Value: j.Commit})
	return a.undo(ctx, j)
}

// undo puts back what the journal holds, and forgets it. What cannot be put
// back keeps the journal: the next run tries again.
func (a *apply) undo(ctx context.Context, j *journal) error {
	var unnoted error // no room for a note is no reason to leave the host broken
	if j.Bad != "" {
		unnoted = writeQuarantine(a.dir, j.Commit, j.Bad)
	}
	if j.Running {
		// What it cannot stop, revive tries again: the files matter more.
		_ = j.quieten(ctx)
	}
	err := j.restore(a.host)
	if j.Running {
		err = errors.Join(err, j.revive(ctx))
	}
	if err != nil {
		return sysexits.New(sysexits.Failed, "undo_failed", fmt.Errorf("undo commit %s: %w", j.Commit, err)).
			WithHint("the next run tries again; " + a.dir.Join(journalFile) + " holds what was there")
	}
	if unnoted != nil {
		return unnoted
	}
	step("undone")
	return a.forget(j)
}

// forget ends an apply that is done or undone.
func (a *apply) forget(j *journal) error {
	if err := j.tidy(a.host); err != nil {
		return err
	}
	for _, f := range j.Files {
		dir := path.Dir(f.Path)
		if real, err := a.host.resolve(dir); err == nil && path.Ext(dir) == ".d" {
			_ = os.Remove(real) // a drop-in folder, if it is empty now
		}
	}
	step("forget")
	return removeState(a.dir, journalFile)
}

// touch notes that a run had nothing to do: the time of the ledger is that of
// the last success.
func (a *apply) touch() error {
	if err := os.Chtimes(a.dir.Join(ledgerFile), a.began, a.began); err != nil {
		return statedir.Unwritable(err)
	}
	return nil
}

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

// syncCmd is the bare gitsync: pull, then apply, in one state directory.
type syncCmd struct {
	stateFlags
	originFlags
	pullFlags
	hostFlags
	applyFlags
}

// Validate is kong's check after parsing.
func (c *syncCmd) Validate() error {
	return validate(c.originFlags, c.pullFlags, c.hostFlags, c.applyFlags)
}

func (c *syncCmd) Run(ctx context.Context, env *cli.Env) error {
	return cli.Interruptible(ctx, func(ctx context.Context) error {
		dir, err := c.open(ctx, timerWait)
		if err != nil {
			return err
		}
		defer dir.Close()
		if err := (&pull{env, dir, c.originFlags, c.pullFlags}).run(ctx); err != nil {
			return err
		}
		a := &apply{env: env, dir: dir, originFlags: c.originFlags, hostFlags: c.hostFlags, applyFlags: c.applyFlags}
		a.Source = ""
		return a.run(ctx, nil)
	})
}

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
		dir, err := c.open(ctx, timerWait)
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

// wish is what a commit wants of this host.
type wish struct {
	pulled pulled
	view   view
	d      *desired
	plan   *planner
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
		a.Source = a.dir.Path
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

// readTimeout bounds the reading of a commit: the source is another user's, who
// can put a pipe where git looks for a file.
const readTimeout = 2 * time.Minute

// wish reads the commit and compares it with the host. It is nil if there is
// nothing to apply.
func (a *apply) wish(ctx context.Context) (*wish, error) {
	w := &wish{}
	var err error
	if w.pulled, err = readPulled(a.Source); err != nil {
		return nil, err
	}
	target := w.pulled.Commit
	if target == "" {
		return nil, sysexits.New(sysexits.Config, "nothing_pulled", fmt.Errorf("%s holds no pulled commit", a.Source)).
			WithHint("run gitsync pull first, or give --source its state directory")
	}
	w.pulled.anchor = a.anchor(w.pulled.anchor)
	known := a.target != ""
	if known {
		target = a.target
	} else if target, known, err = a.unlessQuarantined(target); err != nil || target == "" {
		return nil, err
	}
	bounded, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	reader, err := makeReader(a.dir.Path)
	if err != nil {
		return nil, err
	}
	o, err := openObjects(bounded, reader, filepath.Join(a.Source, repoDir, "objects"))
	if err != nil {
		return nil, err
	}
	defer o.close()
	err = a.read(bounded, o, reader, target, known, w)
	switch {
	case err == nil:
		return w, nil
	case ctx.Err() != nil:
		return nil, context.Cause(ctx) // a git that was ended in mid-answer looks like damage
	case bounded.Err() != nil:
		err = fmt.Errorf("no answer within %v", readTimeout)
	case !errors.Is(err, errMissing) && !errors.Is(err, errCorrupt):
		return nil, err
	}
	return nil, sysexits.New(sysexits.Unavailable, "repository_corrupt", fmt.Errorf("%s: %w", filepath.Join(a.Source, repoDir), err)).
		WithHint("gitsync pull checks it every few hours and clones it again; remove " + filepath.Join(a.Source, pulledFile) + " to have that at once")
}

// anchor is the branch as this run knows it: by its own flags if they are
// given, for the source's word can be a lie.
func (a *apply) anchor(source anchor) anchor {
	if a.Repo == "" {
		return source
	}
	url, err := remoteURL(a.Repo)
	if err != nil {
		url = a.Repo
	}
	return anchor{url, a.Ref, source.Commit}
}

// unlessQuarantined returns the commit to apply: the pulled one, or, if that is
// quarantined, the last good one, so that drift is healed meanwhile. known
// says that the commit was applied before.
func (a *apply) unlessQuarantined(target string) (commit string, known bool, err error) {
	q, err := readQuarantine(a.dir.Path)
	if err != nil || q.Commit != target {
		return target, false, err
	}
	a.env.Diag.Warn("quarantined", fmt.Sprintf("commit %s is not applied: %s", q.Commit, q.Reason),
		diag.Field{Key: "commit", Value: q.Commit}, diag.Field{Key: "since", Value: q.Since.Format(record.TimeFormat)})
	return a.ledger.Commit, true, nil
}

// read checks the commit again, as if pull had not, and makes the plan.
func (a *apply) read(ctx context.Context, o *objects, reader, target string, known bool, w *wish) error {
	c, err := o.commit(target)
	if err != nil {
		return err
	}
	if err := a.signers.verify(ctx, reader, c); err != nil {
		return err
	}
	if !known {
		if err := checkAnchor(o, a.ledger.Anchor, w.pulled.anchor, a.AllowRewind); err != nil {
			return err
		}
	}
	all, err := readDesired(o, c, a.ScriptsDir)
	if err != nil {
		return err
	}
	if w.d, err = all.forHost(a.host, a.ledger.gone(all)); err != nil {
		return err
	}
	w.view = view{host: a.host, ledger: a.ledger}
	if w.view.links, err = readEnablement(a.host); err != nil {
		return err
	}
	if !a.host.offline() {
		if w.view.running, err = listUnits(ctx); err != nil {
			return err
		}
		w.view.own = ownUnit()
	}
	w.plan, err = makePlan(w.view, w.d)
	return err
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
	if j.Run == a.ledger.Run {
		return a.forget(j) // it was committed
	}
	a.env.Diag.Warn("apply_interrupted", "an apply was interrupted: undoing it first", diag.Field{Key: "commit", Value: j.Commit})
	return a.undo(ctx, j)
}

// undo puts back what the journal holds, and forgets it. What cannot be put
// back keeps the journal: the next run tries again.
func (a *apply) undo(ctx context.Context, j *journal) error {
	if j.Bad != "" {
		if err := writeQuarantine(a.dir, j.Commit, j.Bad); err != nil {
			return err
		}
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

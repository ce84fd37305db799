package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
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

func (c *applyCmd) Validate() error {
	if c.Plan != "" && c.Plan != "-" {
		return fmt.Errorf("unexpected argument %s: the only argument of apply is -", c.Plan)
	}
	return validate(c.originFlags, c.hostFlags, c.applyFlags)
}

func (c *applyCmd) Run(ctx context.Context, env *cli.Env) error {
	var only *selection
	if c.Plan == "-" {
		var err error
		// Read stdin before taking the lock: the gitsync plan that writes to the pipe
		// holds it.
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
}

// apply is one run of plan, apply or rollback, which holds the lock of its state
// directory.
type apply struct {
	env *cli.Env
	dir *statedir.Dir
	originFlags
	hostFlags
	applyFlags

	host   host
	ledger *ledger
	began  time.Time
	target string // the commit to apply in a rollback; "" for the pulled one
}

// prepare resolves the directories and reads the ledger.
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
		return sysexits.New(sysexits.Config, "other_root", fmt.Errorf("the state directory %s belongs to the root %s, not to %s", a.dir.Path, a.ledger.Root, root)).
			WithHint("use a different --state-dir for each root")
	}
	return err
}

// run makes the host match the commit. If only is not nil, it does only the
// selected lines of the plan. These are the steps:
//
//  1. Finish or undo an interrupted apply.
//  2. Read the commit. Check its signature and ancestry again.
//  3. Compare what it wants with the host, which gives the plan.
//  4. Check the units in a stage.
//  5. Write the journal, then change files, links and running units.
//  6. Watch what the commit changed. If it is unhealthy, undo everything (back.go).
//  7. Write the ledger. From here on the commit is applied.
//  8. Run the on-change commands.
func (a *apply) run(ctx context.Context, only *selection) error {
	// Every user must be able to read the directories of units and drop-ins.
	// systemctl makes them like this too.
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
	p, err := a.plan(ctx)
	if err != nil || p == nil {
		return err
	}
	defer p.stage.remove()
	if err := guard(a.ledger, p.want, a.AllowPrune); err != nil {
		return err
	}
	actions := p.actions
	if only != nil {
		if actions, err = only.of(p.actions, p.want.commit); err != nil {
			return err
		}
	}
	return a.execute(ctx, p, actions)
}

// plan reads the commit and compares it with the host. It returns nil if there is
// nothing to apply. The caller must remove the stage of the plan.
func (a *apply) plan(ctx context.Context) (*plan, error) {
	pulled, all, err := a.readCommit(ctx)
	if err != nil || all == nil {
		return nil, err
	}
	p := &plan{view: view{host: a.host, ledger: a.ledger}, pulled: pulled, back: a.target != "", changed: map[string]string{}, foreign: map[string]bool{}}
	if p.links, err = readEnablement(a.host); err != nil {
		return nil, err
	}
	if p.owners, err = readOwners(a.host, a.dir.Path, a.ledger.Files, a.env.Diag); err != nil {
		return nil, err
	}
	if !a.host.offline() {
		if p.running, err = listUnits(ctx); err != nil {
			return nil, err
		}
		p.own = ownUnit()
	}
	if err := p.readHost(all); err != nil {
		return nil, err
	}
	p.compareFiles()
	if p.stage, err = newStage(a.dir, p.after); err != nil {
		return nil, err
	}
	if err := p.compareUnits(ctx); err != nil {
		p.stage.remove()
		return nil, err
	}
	return p, nil
}

// execution does the actions of one plan.
type execution struct {
	*apply
	plan    *plan
	actions []action // all actions to do
	todo    []action // the actions that change more than the ledger
	journal *journal // nil if no action changes the host

	reloaded bool
	touched  map[string]bool // units to watch
	failed   []string        // errors of on-change commands
}

// execute does the actions. If one fails, it undoes those that it has done.
func (a *apply) execute(ctx context.Context, p *plan, actions []action) error {
	x := &execution{apply: a, plan: p, actions: actions, touched: map[string]bool{}}
	if err := x.adoptIdentical(); err != nil {
		return err
	}
	if len(x.each(doInstall, doUpdate, doRemove, doEnable, doDisable, doRestart)) > 0 {
		if err := x.change(ctx); err != nil {
			return err
		}
	}
	if err := x.commit(); err != nil {
		return err
	}
	if err := x.runRules(ctx); err != nil {
		return err
	}
	foreign := 0
	for _, act := range x.each(doSkip) {
		level := record.Info
		if act.Reason == "foreign" {
			level = record.Warn
			foreign++
		}
		if err := x.report(level, act); err != nil {
			return err
		}
	}
	if err := x.finish(foreign); err != nil {
		return err
	}
	var err error
	if len(x.failed) > 0 {
		err = errors.Join(err, sysexits.New(sysexits.Partial, "commands_failed", fmt.Errorf("%s; the units are applied", strings.Join(x.failed, "; "))).
			WithHint("the next run tries these commands again; for the output of a command, run journalctl -u UNIT with the unit of its on_change_failed"))
	}
	if foreign > 0 {
		err = errors.Join(err, sysexits.New(sysexits.Partial, "foreign_files", fmt.Errorf("%d files on this host differ from the commit and were left alone: gitsync did not deploy them, or another state directory of gitsync owns them", foreign)).
			WithHint("gitsync plan lists them (reason foreign); move them away and run gitsync apply, or make them identical to the files in the repository"))
	}
	return err
}

// each returns the actions of the given kinds from todo, in order.
func (x *execution) each(kinds ...string) []action {
	var all []action
	for _, a := range x.todo {
		if slices.Contains(kinds, a.Action) {
			all = append(all, a)
		}
	}
	return all
}

// adoptIdentical fills todo with the actions that change more than the ledger. It
// leaves out files that are on the host already, exactly as the commit wants them:
// for these only the ledger changes.
func (x *execution) adoptIdentical() error {
	for _, a := range x.actions {
		if f := x.plan.want.file(a.Path); a.Reason == "adopted" && f != nil {
			if is, err := x.host.state(a.Path); err == nil && is.kind == "file" && is.sum == f.sum && is.mode == f.mode && rightOwner(is) {
				if err := x.report(record.Info, a); err != nil {
					return err
				}
				continue
			}
		}
		x.todo = append(x.todo, a)
	}
	return nil
}

// report prints the record of an action that was done.
func (x *execution) report(level string, a action) error {
	return x.env.Stdout.Record(level, a.done(time.Now(), level, x.env.Service))
}

// commit writes the ledger. From here on the commit is applied. The ledger contains
// the name of the run. If a later run finds the journal of the same run, it knows
// that there is nothing to undo.
func (x *execution) commit() error {
	run := ""
	if x.journal != nil {
		run = x.journal.Run
	} else if err := register(x.host, x.dir.Path); err != nil {
		return x.explain(err)
	}
	next := x.ledger.next(x.plan, x.actions, x.began, run)
	if x.journal == nil && next.equal(x.ledger) {
		x.ledger = next
		return x.noteSuccess()
	}
	step("commit")
	if err := writeState(x.dir, ledgerFile, next); err != nil {
		return x.uncommitted(err)
	}
	step("commit")
	x.ledger = next
	if x.journal != nil {
		if err := x.forget(x.journal); err != nil {
			return err
		}
	}
	q, err := readQuarantine(x.dir.Path)
	if err == nil && q.Commit != "" && q.Commit != x.plan.pulled.Commit {
		err = x.dir.Remove(quarantineFile)
	}
	return err
}

// noteSuccess sets the time of the ledger's file, which is that of the last
// successful apply.
func (a *apply) noteSuccess() error {
	if err := os.Chtimes(a.dir.Join(ledgerFile), a.began, a.began); err != nil {
		return statedir.Unwritable(err)
	}
	return nil
}

// finish prints the applied record.
func (x *execution) finish(foreign int) error {
	l := record.New(time.Now(), record.Info, "applied", x.env.Service)
	l.String("commit", x.plan.want.commit)
	if len(x.ledger.Previous) > 0 {
		l.String("previous", x.ledger.Previous[0])
	} else {
		l.Null("previous")
	}
	l.Int("actions", int64(len(x.actions)-len(x.each(doSkip))-len(x.failed)))
	l.Int("foreign", int64(foreign))
	l.Bool("reloaded", x.reloaded)
	l.Float("duration_s", time.Since(x.began).Seconds())
	return x.env.Stdout.Record(record.Info, l.End())
}

// recover finishes or undoes an interrupted apply.
func (a *apply) recover(ctx context.Context) error {
	j, err := readJournal(a.dir.Path)
	if err != nil || j == nil {
		return err
	}
	if j.Root != a.host.root {
		return sysexits.New(sysexits.Config, "other_root", fmt.Errorf("%s holds an interrupted apply on the root %s", a.dir.Path, j.Root)).
			WithHint("run gitsync apply --root " + j.Root + " first")
	}
	if j.Run == a.ledger.Run { // the apply was committed
		// The write of the ledger may have failed after the rename. Make the ledger
		// durable before the journal is removed: the older ledger must not come back
		// without it.
		if err := a.dir.Sync(); err != nil {
			return err
		}
		return a.forget(j)
	}
	a.env.Diag.Warn("apply_interrupted", "an apply was interrupted: undoing it first", diag.Field{Key: "commit", Value: j.Commit})
	return a.undo(ctx, j)
}

// forget removes the journal, and the files kept for it, of an apply that is done
// or undone.
func (a *apply) forget(j *journal) error {
	if err := j.tidy(a.host); err != nil {
		return err
	}
	for _, f := range j.Files {
		dir := path.Dir(f.Path)
		if real, err := a.host.resolve(dir); err == nil && path.Ext(dir) == ".d" {
			_ = os.Remove(real) // a directory of drop-ins, if it is empty now
		}
	}
	step("forget")
	return a.dir.Remove(journalFile)
}

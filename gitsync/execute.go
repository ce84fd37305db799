package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"observability-hub/lib/diag"
	"observability-hub/lib/record"
	"observability-hub/lib/sysexits"
)

// jobTimeout bounds a job that systemctl waits for: longer than systemd's own
// default for starting and stopping a unit.
const jobTimeout = 200 * time.Second

// execution is the actions of one plan being done.
type execution struct {
	*apply
	wish    *wish
	actions []action // all that are to be done
	todo    []action // of these, those that change more than the ledger
	journal *journal

	reloaded bool
	touched  map[string]bool // units to be watched
	failed   []string        // on-change commands
}

// execute does the actions: all of them, or none that is left.
func (a *apply) execute(ctx context.Context, w *wish, actions []action) error {
	x := &execution{apply: a, wish: w, actions: actions, touched: map[string]bool{}}
	if err := x.adopt(); err != nil {
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
		if err := x.say(level, act); err != nil {
			return err
		}
	}
	if err := x.finish(foreign); err != nil {
		return err
	}
	var err error
	if len(x.failed) > 0 {
		err = errors.Join(err, sysexits.New(sysexits.Partial, "commands_failed", fmt.Errorf("%s; the units are applied", strings.Join(x.failed, "; "))).
			WithHint("the next run tries these commands again"))
	}
	if foreign > 0 {
		err = errors.Join(err, sysexits.New(sysexits.Partial, "foreign_files", fmt.Errorf("%d files are there that gitsync did not put there and that differ; they are left alone", foreign)).
			WithHint("gitsync plan names them; move them away, or make them what the repository has"))
	}
	return err
}

// each returns the actions of some kinds that are to be done, in their order.
func (x *execution) each(kinds ...string) []action {
	var all []action
	for _, a := range x.todo {
		if slices.Contains(kinds, a.Action) {
			all = append(all, a)
		}
	}
	return all
}

// adopt takes the files that are there just as they are wanted off the list of
// what is to be done: they only become ours, in the ledger.
func (x *execution) adopt() error {
	var rest []action
	for _, a := range x.actions {
		if a.Reason != "adopted" || !x.exact(a) {
			rest = append(rest, a)
		} else if err := x.say(record.Info, a); err != nil {
			return err
		}
	}
	x.todo = rest
	return nil
}

// exact reports whether a file has the right content, mode and owner already.
func (x *execution) exact(a action) bool {
	f := x.wish.d.file(a.Path)
	is, err := x.host.state(a.Path)
	return err == nil && f != nil && is.kind == "file" && is.sum == f.sum && is.mode == f.mode && rightOwner(is)
}

// say prints that an action is done.
func (x *execution) say(level string, a action) error {
	return x.env.Stdout.Record(level, a.done(time.Now(), level, x.env.Service))
}

// change does everything that a rollback can undo.
func (x *execution) change(ctx context.Context) error {
	if err := x.wish.d.verify(ctx, x.host, x.dir); err != nil {
		return err
	}
	var err error
	if x.journal, err = newJournal(x.wish.view, x.wish.d.commit, x.todo); err != nil {
		return err
	}
	step("journal")
	if err := keepJournal(x.dir, x.journal); err != nil {
		return err
	}
	step("journal")
	err = x.changes(ctx)
	if err == nil {
		return nil
	}
	return x.goBack(err)
}

func (x *execution) changes(ctx context.Context) error {
	for _, do := range []func(context.Context) error{x.stage, x.install, x.retire, x.reload, x.preset, x.restart, x.health} {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		if err := do(ctx); err != nil {
			return err
		}
	}
	return nil
}

// runRules runs the on-change commands. The units are committed by then: they
// stay, whatever becomes of these. What failed is tried again by the next run.
func (x *execution) runRules(ctx context.Context) error {
	for _, act := range x.each(doRun) {
		i := slices.IndexFunc(x.wish.d.rules, func(r rule) bool { return r.unit() == act.Unit })
		err := errors.New("no tree is published: give --publish, to gitsync pull too")
		if x.Publish != "" {
			err = runRule(ctx, x.wish.d.rules[i], publishedTree(x.Publish, x.wish.d.commit), x.RunAs, x.OnChangeTimeout)
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			x.env.Diag.Warn("on_change_failed", err.Error(), diag.Field{Key: "unit", Value: act.Unit})
			x.failed = append(x.failed, err.Error())
			continue
		}
		x.ledger.OnChange[x.wish.d.rules[i].key()] = x.wish.d.rules[i].state
		step("on-change")
		if err := writeState(x.dir, ledgerFile, x.ledger); err != nil {
			return err
		}
		if err := x.say(record.Info, act); err != nil {
			return err
		}
	}
	return nil
}

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"observability-hub/lib/record"
)

// finish prints the applied record.
func (x *execution) finish(foreign int) error {
	l := record.New(time.Now(), record.Info, "applied", x.env.Service)
	l.String("commit", x.wish.d.commit)
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

// commit writes the ledger: from here on the commit is applied. It carries the
// name of the run, by which a run that finds the journal still there knows that
// nothing is to be undone.
func (x *execution) commit() error {
	next := x.next()
	if x.journal == nil && next.equal(x.ledger) {
		x.ledger = next
		return x.touch()
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
	if err == nil && q.Commit != "" && q.Commit != x.wish.pulled.Commit {
		err = removeState(x.dir, quarantineFile)
	}
	return err
}

// uncommitted undoes the change after the ledger could not be written. A write
// can also fail after the new ledger has its name: then the commit is applied,
// and the journal stays, by which the next run finishes it. To undo it would be
// to forget files that are back again.
func (x *execution) uncommitted(why error) error {
	if x.journal == nil {
		return why
	}
	is, err := readLedger(x.dir.Path)
	if err != nil || is.Run == x.journal.Run {
		return errors.Join(why, err)
	}
	return errors.Join(why, x.undo(context.Background(), x.journal))
}

// next returns the ledger as it is after the actions.
func (x *execution) next() *ledger {
	was, d := x.ledger, x.wish.d
	n := *was
	n.Root = x.host.root
	n.Files, n.Enabled, n.Skipped, n.OnChange = map[string]owned{}, map[string]bool{}, map[string]string{}, map[string]string{}
	done := func(a action) bool { return slices.ContainsFunc(x.actions, a.same) }
	left := map[string]bool{} // paths with an action that was not selected
	pending := map[string]bool{}
	whole := true
	for _, a := range x.wish.plan.actions {
		if a.Action == doRun || done(a) {
			continue
		}
		whole = false
		left[a.Path] = true
		if a.Action == doEnable || a.Action == doDisable {
			pending[a.Unit] = true
		}
	}
	for p, f := range was.Files {
		if left[p] {
			n.Files[p] = f
		}
	}
	for _, f := range d.files {
		foreign := slices.ContainsFunc(x.wish.plan.actions, func(a action) bool { return a.Action == doSkip && a.Path == f.path })
		if !left[f.path] && !foreign {
			n.Files[f.path] = owned{f.unit, f.source, f.sum, fmt.Sprintf("%04o", f.mode)}
		}
	}
	for unit, enabled := range x.wish.plan.enabled {
		if !pending[unit] {
			n.Enabled[unit] = enabled
		} else if was, known := was.Enabled[unit]; known {
			n.Enabled[unit] = was
		}
	}
	for _, s := range d.skipped {
		if reason, known := was.Skipped[s.unit]; !left[s.path] || known && reason == s.reason {
			n.Skipped[s.unit] = s.reason
		}
	}
	for _, r := range d.rules {
		if state, known := was.OnChange[r.key()]; known {
			n.OnChange[r.key()] = state
		}
	}
	if x.target == "" && x.wish.pulled.Commit == d.commit {
		n.Anchor = x.wish.pulled.anchor
	}
	if x.journal != nil {
		n.Run = x.journal.Run
	}
	if whole {
		n.Applied = x.began.UTC()
		switch {
		case d.commit == was.Commit:
			n.Applied = was.Applied
		case x.target != "":
			n.Commit, n.Previous = d.commit, slices.DeleteFunc(slices.Clone(was.Previous), func(c string) bool { return c == d.commit })
		case was.Commit != "":
			n.Previous = append([]string{was.Commit}, slices.DeleteFunc(slices.Clone(was.Previous), func(c string) bool { return c == was.Commit || c == d.commit })...)
			n.Previous = n.Previous[:min(len(n.Previous), maxPrevious)]
		}
		n.Commit = d.commit
	}
	return &n
}

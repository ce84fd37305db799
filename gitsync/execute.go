package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"observability-hub/lib/command"
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

// goBack undoes the change, also when this run is being ended: it has a few
// seconds for that, and what it does not manage the next run does.
func (x *execution) goBack(why error) error {
	ctx := context.Background()
	bad, isBad := errors.AsType[*unhealthy](why)
	if isBad {
		x.journal.Bad = bad.Error()
		if err := keepJournal(x.dir, x.journal); err != nil {
			return errors.Join(why, err)
		}
	}
	step("go-back")
	if err := x.undo(ctx, x.journal); err != nil {
		return errors.Join(why, err)
	}
	if !isBad {
		return x.explain(why)
	}
	l := record.New(time.Now(), record.Error, "rolled_back", x.env.Service)
	l.String("commit", x.wish.d.commit)
	l.String("unit", bad.unit)
	l.String("reason", bad.reason)
	if x.ledger.Commit != "" {
		l.String("back_to", x.ledger.Commit)
	} else {
		l.Null("back_to")
	}
	if err := x.env.Stdout.Record(record.Error, l.End()); err != nil {
		return err
	}
	return sysexits.New(sysexits.RolledBack, "unhealthy", fmt.Errorf("commit %s is unhealthy and undone: %w", x.wish.d.commit, why)).
		WithHint("mend it and push: this commit is not tried again")
}

// explain gives a failure to write its exit status.
func (x *execution) explain(err error) error {
	if _, ok := errors.AsType[*sysexits.Error](err); ok || !isPathError(err) {
		return err
	}
	return sysexits.New(sysexits.CantCreate, "host_unwritable", fmt.Errorf("apply: %w; undone", err)).
		WithHint("run it as root, and see that there is room on that file system")
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

// stage writes every new file beside the place where it goes: if there is no
// room, nothing that systemd reads has changed.
func (x *execution) stage(context.Context) error {
	for _, act := range x.each(doInstall, doUpdate) {
		f := x.wish.d.file(act.Path)
		dir, err := x.host.resolve(path.Dir(f.path))
		if err != nil {
			return err
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		step("stage")
		if err := writeNew(filepath.Join(dir, path.Base(beside(f.path, newPrefix))), f.content, f.mode, 0, 0); err != nil {
			return err
		}
	}
	return nil
}

// install gives the new files their names.
func (x *execution) install(context.Context) error {
	dirs := map[string]bool{}
	for _, act := range x.each(doInstall, doUpdate) {
		real, err := x.host.real(act.Path)
		if err != nil {
			return err
		}
		dir := filepath.Dir(real)
		old, fresh := filepath.Join(dir, path.Base(beside(act.Path, oldPrefix))), filepath.Join(dir, path.Base(beside(act.Path, newPrefix)))
		step("install")
		if err := remove(old); err != nil {
			return err
		}
		if is, err := x.host.state(act.Path); err != nil {
			return err
		} else if is.kind == "file" {
			if err := os.Link(real, old); err != nil {
				return err
			}
		}
		step("install")
		if err := os.Rename(fresh, real); err != nil {
			return err
		}
		dirs[path.Dir(act.Path)] = true
		x.note(act)
		if err := x.say(record.Info, act); err != nil {
			return err
		}
	}
	return syncDirs(x.host, dirs)
}

// note marks the units that a changed file is of, to be watched.
func (x *execution) note(act action) {
	if act.Unit != "" && !isTemplate(act.Unit) && unitType(act.Unit) != "" {
		x.touched[act.Unit] = true
	}
}

// retire stops and disables the units that go, then takes away their files: in
// that order, or dead links would stay and the unit would run on nameless.
func (x *execution) retire(ctx context.Context) error {
	var units []string
	for _, act := range x.each(doRemove) {
		if isMain(act.Unit, act.Path) {
			units = append(units, act.Unit)
		}
	}
	// What starts others goes first.
	slices.SortFunc(units, func(a, b string) int {
		if activates(a) != activates(b) {
			if activates(a) {
				return -1
			}
			return 1
		}
		return strings.Compare(a, b)
	})
	for _, unit := range units {
		delete(x.touched, unit)
		if x.wish.view.running == nil || unit == x.wish.view.own {
			continue // a run that stopped itself would not get to the end
		}
		step("stop")
		pattern := unit
		if isTemplate(unit) {
			pattern = strings.Replace(unit, "@.", "@*.", 1)
		}
		if _, err := systemctl(ctx, jobTimeout, "stop", "--", pattern); err != nil {
			return err
		}
	}
	step("disable")
	if err := (enablement{}).putBack(x.host, units); err != nil {
		return err
	}
	dirs := map[string]bool{}
	for _, act := range x.each(doRemove) {
		real, err := x.host.real(act.Path)
		if err != nil {
			return err
		}
		step("remove")
		if err := os.Rename(real, filepath.Join(filepath.Dir(real), path.Base(beside(act.Path, oldPrefix)))); err != nil && !os.IsNotExist(err) {
			return err
		}
		dirs[path.Dir(act.Path)] = true
		if err := x.say(record.Info, act); err != nil {
			return err
		}
	}
	return syncDirs(x.host, dirs)
}

// reload makes systemd read its units again, once, and only if one changed.
func (x *execution) reload(ctx context.Context) error {
	changed := slices.ContainsFunc(x.each(doInstall, doUpdate, doRemove), func(a action) bool { return a.Unit != "" })
	if x.wish.view.running == nil || !changed {
		return nil
	}
	step("reload")
	if _, err := systemctl(ctx, jobTimeout, "daemon-reload"); err != nil {
		return err
	}
	x.reloaded = true
	return nil
}

// preset lets systemctl apply the presets to the units that need it, on the
// files alone: the manager has just read them.
func (x *execution) preset(ctx context.Context) error {
	for _, act := range x.each(doEnable, doDisable) {
		step("preset")
		verb := "preset"
		if _, instance := template(act.Unit); instance {
			verb = "enable"
		}
		// Links of an [Install] section that is history go first.
		if err := (enablement{}).putBack(x.host, []string{act.Unit}); err != nil {
			return err
		}
		if _, err := systemctl(ctx, jobTimeout, "--quiet", "--root="+x.host.root, verb, "--", act.Unit); err != nil {
			return err
		}
		if act.Action == doDisable && x.wish.view.running != nil && act.Unit != x.wish.view.own {
			if _, err := systemctl(ctx, jobTimeout, "stop", "--", act.Unit); err != nil {
				return err
			}
		}
		if err := x.say(record.Info, act); err != nil {
			return err
		}
	}
	return nil
}

// restart restarts what has changed and starts what was enabled.
func (x *execution) restart(ctx context.Context) error {
	if x.wish.view.running == nil {
		return nil
	}
	todo := map[string]action{}
	for _, act := range x.each(doEnable) {
		u := x.wish.d.unit(act.Unit)
		if activates(act.Unit) || unitType(act.Unit) == "target" || unitType(act.Unit) == "service" && u.last("Service", "Type") != "oneshot" {
			todo[act.Unit] = act
		}
	}
	for _, act := range x.each(doRestart) {
		todo[act.Unit] = act
	}
	for _, unit := range slices.SortedFunc(maps.Keys(todo), lastOurs) {
		step("restart")
		x.touched[unit] = true
		if err := restartUnit(ctx, unit, x.wish.d.unit(unit), x.wish.view); err != nil {
			return err
		}
		if act := todo[unit]; act.Action == doRestart {
			if err := x.say(record.Info, act); err != nil {
				return err
			}
		}
	}
	return nil
}

// restartUnit restarts one unit. A socket whose service runs cannot be bound
// again: the service goes first, and comes back after it.
func restartUnit(ctx context.Context, unit string, u unitFile, v view) error {
	service := ""
	if unitType(unit) == "socket" && u != nil {
		if s := u.triggered(unit); v.running[s].active == "active" && s != v.own {
			service = s
			if _, err := systemctl(ctx, jobTimeout, "stop", "--", s); err != nil {
				return err
			}
		}
	}
	if _, err := systemctl(ctx, jobTimeout, "restart", "--", unit); err != nil {
		if sysexits.Code(err) == sysexits.Unavailable || ctx.Err() != nil || command.Status(err) < 0 {
			return err
		}
		return &unhealthy{unit, err.Error()}
	}
	if service != "" {
		if _, err := systemctl(ctx, jobTimeout, "start", "--", service); err != nil {
			return &unhealthy{service, err.Error()}
		}
	}
	return nil
}

// health watches what was touched, and runs the probes.
func (x *execution) health(ctx context.Context) error {
	if x.wish.view.running == nil {
		return nil
	}
	step("health")
	for _, f := range x.wish.d.files {
		if !f.isUnit() || unitType(f.unit) != "service" || isTemplate(f.unit) || f.unit == x.wish.view.own || !x.wish.d.withDropIns(f).probe() {
			continue
		}
		if err := runProbe(ctx, f.unit); err != nil {
			return err
		}
	}
	delete(x.touched, x.wish.view.own)
	return watch(ctx, slices.Sorted(maps.Keys(x.touched)), x.HealthWindow)
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

// revive makes the running system match what was put back: read it again, stop
// what did not run before, restart what did.
func (j *journal) revive(ctx context.Context) error {
	_, err := systemctl(ctx, jobTimeout, "daemon-reload")
	own := ownUnit()
	now, listErr := listUnits(ctx)
	err = errors.Join(err, listErr)
	for _, unit := range slices.Sorted(maps.Keys(now)) {
		t, instance := template(unit)
		ours := slices.Contains(j.Units, unit) || instance && slices.Contains(j.Units, t)
		state := now[unit].active
		if !ours || unit == own || slices.Contains(j.Active, unit) || state == "inactive" {
			continue
		}
		step("revive")
		if state == "failed" {
			_, failed := systemctl(ctx, systemctlTimeout, "reset-failed", "--", unit)
			err = errors.Join(err, failed)
			continue
		}
		_, failed := systemctl(ctx, jobTimeout, "stop", "--", unit)
		err = errors.Join(err, failed)
	}
	for _, unit := range slices.SortedFunc(slices.Values(j.Active), lastOurs) {
		if unit == own {
			continue
		}
		step("revive")
		if _, failed := systemctl(ctx, jobTimeout, "restart", "--", unit); failed != nil && unitType(unit) == "timer" {
			err = errors.Join(err, failed) // a service may have been broken before
		}
	}
	return err
}

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
		if x.journal != nil {
			return errors.Join(err, x.undo(context.Background(), x.journal))
		}
		return err
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

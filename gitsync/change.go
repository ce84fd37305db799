package main

import (
	"context"
	"errors"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"time"

	"observability-hub/gitsync/internal/unit"
	"observability-hub/lib/diag"
	"observability-hub/lib/record"
)

// change makes all changes that back.go can undo. It undoes them if one fails.
func (x *execution) change(ctx context.Context) error {
	if err := x.plan.verify(ctx, x.env.Diag); err != nil {
		return err
	}
	if err := register(x.host, x.dir.Path); err != nil {
		return x.explain(err)
	}
	var err error
	if x.journal, err = newJournal(x.plan.view, x.plan.want.commit, x.todo); err != nil {
		return err
	}
	if x.journal.Running {
		if err := x.journal.bind(ctx, x.plan.running); err != nil {
			return err
		}
	}
	step("journal")
	if err := writeState(x.dir, journalFile, x.journal); err != nil {
		return err
	}
	step("journal")
	for _, do := range []func(context.Context) error{x.writeFiles, x.install, x.retire, x.link, x.reload, x.restart, x.health} {
		if err = context.Cause(ctx); err == nil {
			err = do(ctx)
		}
		if err != nil {
			return x.rollBack(err)
		}
	}
	return nil
}

// writeFiles writes every new file beside its final path. If the file system is
// full, no file that systemd reads has changed.
func (x *execution) writeFiles(context.Context) error {
	for _, act := range x.each(doInstall, doUpdate) {
		f := x.plan.want.file(act.Path)
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

// install renames the new files to their final paths, and keeps the old files.
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
		x.watchFile(act)
		if err := x.report(record.Info, act); err != nil {
			return err
		}
	}
	return syncDirs(x.host, dirs)
}

// watchFile marks the unit of a changed file to be watched.
func (x *execution) watchFile(act action) {
	name := act.Unit
	if unit.Quadlet(name) {
		name = x.plan.after.service(name)
	}
	if name == "" {
		return
	}
	// For drop-ins in foo-.service.d and service.d there is no unit of that name.
	name = x.plan.after.id(name)
	if where, _ := x.plan.after.find(name); where != "" && !unit.IsTemplate(name) || unit.Quadlet(act.Unit) && act.isMain() {
		x.touched[name] = true
	}
}

// retire stops the units whose files or links are removed, and then removes the
// files. In the other order, a unit would run on without its file.
func (x *execution) retire(ctx context.Context) error {
	var starters, others []string
	for _, act := range x.each(doRemove, doDisable) {
		name := act.Unit
		if act.service != "" {
			name = act.service
		}
		switch {
		case !act.stop:
			continue
		case act.Action == doRemove:
			delete(x.touched, name)
		}
		// A run must not stop itself. A slice is not stopped, because the units in it
		// need not be the commit's.
		if x.plan.running == nil || name == x.plan.own || unit.Type(name) == "slice" {
			continue
		}
		if unit.IsTemplate(name) {
			name = unit.Instantiate(name, "*")
		}
		if activates(name) {
			starters = append(starters, name)
		} else {
			others = append(others, name)
		}
	}
	for _, units := range [][]string{starters, others} {
		step("stop")
		// If a unit does not stop, such as a mount in use, go on with the others.
		if err := stopUnits(ctx, units...); err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			x.env.Diag.Warn("stop_failed", err.Error()+"; its files are removed anyway")
		}
	}
	dirs := map[string]bool{}
	for _, act := range x.each(doRemove) {
		if err := errors.Join(act.drop.remove(x.host), act.add.make(x.host)); err != nil {
			return err
		}
		real, err := x.host.real(act.Path)
		if err != nil {
			return err
		}
		step("remove")
		if err := os.Rename(real, filepath.Join(filepath.Dir(real), path.Base(beside(act.Path, oldPrefix)))); err != nil && !os.IsNotExist(err) {
			return err
		}
		dirs[path.Dir(act.Path)] = true
		if err := x.report(record.Info, act); err != nil {
			return err
		}
	}
	return syncDirs(x.host, dirs)
}

// link makes and removes the links that enable units.
func (x *execution) link(context.Context) error {
	dirs := map[string]bool{}
	for _, act := range x.each(doEnable, doDisable) {
		step("link")
		if err := errors.Join(act.drop.remove(x.host), act.add.make(x.host)); err != nil {
			return err
		}
		for _, l := range append(slices.Clone(act.drop), act.add...) {
			dirs[path.Dir(l.Path)], dirs[unitDir] = true, true
		}
		if err := x.report(record.Info, act); err != nil {
			return err
		}
	}
	return syncDirs(x.host, dirs)
}

// reload makes systemd read its units again, but only if a unit changed. Then it
// resets removed units that had failed.
func (x *execution) reload(ctx context.Context) error {
	changed := slices.ContainsFunc(x.todo, func(a action) bool {
		return a.isFile() && a.Unit != "" || a.Action == doEnable || a.Action == doDisable
	})
	if x.plan.running == nil || !changed {
		return nil
	}
	step("reload")
	if _, err := systemctl(ctx, 2*time.Minute, "daemon-reload"); err != nil {
		return err
	}
	x.reloaded = true
	return x.forgetRemoved(ctx)
}

// forgetRemoved stops removed units that did not stop while their files existed. It
// resets removed units that have failed: systemd would otherwise list them as
// failed until the next boot.
func (x *execution) forgetRemoved(ctx context.Context) error {
	var names []string
	for _, act := range x.each(doRemove) {
		if act.stop && act.service == "" && unit.Type(act.Unit) != "slice" && act.Unit != x.plan.own {
			names = append(names, act.Unit)
		}
	}
	if len(names) == 0 {
		return nil
	}
	now, err := listUnits(ctx)
	if err != nil {
		return err
	}
	var failed, left []string
	for _, name := range slices.Sorted(maps.Keys(now)) {
		s := now[name]
		t, _ := unit.Template(name)
		switch {
		case !slices.Contains(names, name) && !slices.Contains(names, t):
		case s.active == "failed":
			failed = append(failed, name)
		case s.runs() && unit.Type(name) != "mount":
			left = append(left, name)
		}
	}
	if err := stopUnits(ctx, left...); err != nil && ctx.Err() == nil {
		x.env.Diag.Warn("stop_failed", err.Error())
	}
	if len(failed) == 0 {
		return nil
	}
	if _, err := systemctl(ctx, systemctlTimeout, append([]string{"reset-failed", "--"}, failed...)...); err != nil {
		x.env.Diag.Warn("stop_failed", err.Error())
	}
	return nil
}

// restart restarts the units that changed and starts the units that are enabled.
func (x *execution) restart(ctx context.Context) error {
	if x.plan.running == nil {
		return nil
	}
	var units, patient, healed []string
	healing := map[string]bool{}
	reported := x.each(doRestart)
	for _, act := range reported {
		units = append(units, act.Unit)
		healing[act.Unit] = act.healing
	}
	for _, act := range x.each(doEnable, doInstall) {
		units = append(units, act.start...)
	}
	more, err := x.plan.restartUnits(ctx, units, healing, x.env.Diag)
	if err != nil {
		return err
	}
	for _, name := range append(units, more...) {
		x.touched[name] = true
		// A oneshot may run for hours, so it is not waited for.
		u := x.plan.after.unit(name)
		switch {
		case healing[name]:
			healed = append(healed, name)
		case u == nil || !u.Oneshot() || u.RemainAfterExit():
			patient = append(patient, name)
		}
	}
	busy, err := settle(ctx, patient, maxWait)
	if err == nil {
		_, err = settle(ctx, healed, healWait)
	}
	if err != nil {
		return err
	}
	for _, name := range busy {
		x.env.Diag.Warn("still_starting", name+" is still starting; gitsync stops waiting for it and does not watch it", diag.Field{Key: "unit", Value: name})
		delete(x.touched, name)
	}
	for _, act := range reported {
		if err := x.report(record.Info, act); err != nil {
			return err
		}
	}
	return nil
}

// healWait limits the wait for units that are started because they were not
// running. It is short, because they do not count against the commit.
const healWait = 5 * time.Second

// health runs the probes and watches what the commit changed.
func (x *execution) health(ctx context.Context) error {
	if x.plan.running == nil {
		return nil
	}
	step("health")
	changes := len(x.each(doInstall, doUpdate, doRemove, doEnable, doDisable)) > 0
	for _, f := range x.plan.want.files {
		if !changes {
			break // the commit changes nothing on this host
		}
		if !f.isUnit() || unit.Type(f.unit) != "service" || unit.IsTemplate(f.unit) || f.unit == x.plan.own || x.plan.foreign[f.unit] {
			continue
		}
		if u := x.plan.after.unit(f.unit); u == nil || !u.Probe() {
			continue
		}
		if err := runProbe(ctx, f.unit, x.plan.running[f.unit].active == "activating"); err != nil {
			return err
		}
	}
	return watch(ctx, x.evidence(), x.HealthWindow)
}

// evidence returns the units by which the commit is judged: the units that it
// changed, without those that were broken before and those that merely were not
// running. The value of a unit says whether this run started it.
func (x *execution) evidence() map[string]bool {
	all := map[string]bool{}
	for name := range x.touched {
		if s := x.plan.running[name]; s.active != "failed" && !s.retries() && name != x.plan.own {
			all[name] = false
		}
	}
	started := func(name string) {
		if _, ok := all[name]; ok {
			all[name] = true
		}
	}
	for _, act := range x.todo {
		if act.healing {
			delete(all, act.Unit)
		} else if act.Action == doRestart {
			started(act.Unit)
		}
		for _, name := range act.start {
			started(name)
		}
	}
	return all
}

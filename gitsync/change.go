package main

import (
	"context"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"observability-hub/lib/record"
)

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
			if refusal(err) {
				return blame(ctx, act.Unit, err)
			}
			return err // a full disk, for example
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

// refusal reports whether systemctl will not enable a unit for what its
// [Install] section says or what this host has in its place: it would refuse
// again at every run. There is no exit status for that.
func refusal(err error) bool {
	return slices.ContainsFunc([]string{"already exists", "cannot alias", "not a valid unit name", "non-template unit", "invalid specifier",
		"cannot resolve specifiers", "invalid unit reference"}, func(words string) bool { return strings.Contains(err.Error(), words) })
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
		return blame(ctx, unit, err)
	}
	if service != "" {
		if _, err := systemctl(ctx, jobTimeout, "start", "--", service); err != nil {
			return blame(ctx, service, err)
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
		if err := runProbe(ctx, f.unit, x.wish.view.running[f.unit].active == "activating"); err != nil {
			return err
		}
	}
	delete(x.touched, x.wish.view.own)
	return watch(ctx, slices.Sorted(maps.Keys(x.touched)), x.HealthWindow)
}

package main

import (
	"cmp"
	"context"
	"maps"
	"path"
	"slices"
	"strings"

	"observability-hub/gitsync/internal/unit"
)

// detail has the properties of a unit, beyond its state, that decide whether
// gitsync starts it.
type detail struct {
	result       string // of the last run
	conditionMet bool   // at the last start; true if there was none
	endedItself  bool   // the main process ended before systemd stopped the unit
	canStart     bool
	canStop      bool
	oneshot      bool // according to the files that systemd has loaded
}

// detailProperties are the systemd properties that readDetail needs.
var detailProperties = []string{"Result", "ConditionResult", "ConditionTimestampMonotonic", "AssertResult", "AssertTimestampMonotonic", "CanStart", "CanStop", "RefuseManualStart", "RefuseManualStop",
	"ExecMainStartTimestampMonotonic", "ExecMainExitTimestampMonotonic", "ActiveEnterTimestampMonotonic", "ActiveExitTimestampMonotonic", "LoadState", "ActiveState", "SubState", "Type"}

// readDetail returns the detail of one unit from its properties.
func readDetail(p map[string]string) detail {
	started, exit := number(p["ExecMainStartTimestampMonotonic"]), number(p["ExecMainExitTimestampMonotonic"])
	entered, left := number(p["ActiveEnterTimestampMonotonic"]), number(p["ActiveExitTimestampMonotonic"])
	tried := number(p["ConditionTimestampMonotonic"]) > 0
	return detail{
		result:       p["Result"],
		conditionMet: !tried || p["ConditionResult"] == "yes" && !assertFailed(p),
		endedItself:  exit > 0 && (exit <= left || entered < started),
		canStart:     p["CanStart"] != "no" && p["RefuseManualStart"] != "yes",
		canStop:      p["CanStop"] != "no" && p["RefuseManualStop"] != "yes",
		oneshot:      p["Type"] == "oneshot",
	}
}

// assertFailed reports whether the assertions of a unit failed at its last start.
// systemd does not check them if the conditions are not met.
func assertFailed(p map[string]string) bool {
	return number(p["AssertTimestampMonotonic"]) > 0 && p["AssertResult"] == "no"
}

// restarts plans the restarts of units that must take up a change, and the starts
// of enabled units that should run and do not.
func (p *plan) restarts(ctx context.Context) error {
	if p.running == nil {
		return nil
	}
	reasons := p.changedUnits()
	should := p.shouldRun()
	ask := slices.Collect(maps.Keys(reasons))
	for name := range should {
		if s := p.running[name]; reasons[name] == "" && !s.runs() && s.active != "activating" && s.load != masked {
			ask = append(ask, name)
		}
	}
	slices.Sort(ask)
	all, err := properties(ctx, slices.Compact(ask), detailProperties...)
	if err != nil {
		return err
	}
	for _, name := range slices.SortedFunc(slices.Values(ask), startOrder) {
		if all[name]["LoadState"] == masked || name == p.own {
			continue
		}
		d := readDetail(all[name])
		if all[name]["LoadState"] != "loaded" { // systemd does not know a new unit of the commit yet
			u := p.after.unit(name)
			d = detail{conditionMet: true, canStart: u == nil || !u.Bool("Unit", "RefuseManualStart")}
		}
		state := p.running[name]
		if reason := reasons[name]; reason != "" {
			// A running oneshot is not interrupted: its next run has the new files.
			if state.starting(name) && d.oneshot {
				continue
			}
			if d.canStart && (d.canStop || !state.runs()) {
				p.add(doRestart, name, "", reason)
			}
			continue
		}
		reason := should[name].heal(state, d)
		if should[name].once && p.startedBy(name) < 0 {
			reason = "" // it may have elapsed: systemd unloads such a timer and forgets that
		}
		if reason == "" || !d.conditionMet && !conditionsMet(ctx, name) {
			continue
		}
		if i := p.startedBy(name); i >= 0 {
			p.actions[i].start = append(p.actions[i].start, name)
		} else {
			p.add(doRestart, name, "", reason).healing = !p.changes(name)
		}
	}
	return nil
}

// startedBy returns the index of the action that starts a unit in addition to its
// own purpose: the action that enables the unit or installs its quadlet. It returns
// -1 if there is none.
func (p *plan) startedBy(name string) int {
	return slices.IndexFunc(p.actions, func(a action) bool {
		return a.Action == doEnable && a.Unit == name ||
			a.Action == doInstall && a.Reason == "new" && unit.Quadlet(a.Unit) && a.isMain() && p.after.service(a.Unit) == name
	})
}

// changes reports whether the plan changes a file of a unit.
func (p *plan) changes(name string) bool {
	for changed := range p.changed {
		if p.touches(changed, name) {
			return true
		}
	}
	return false
}

// changedUnits returns the loaded units that must take up a change of the plan,
// with the reason. They include units that have failed, that systemd is about to
// restart, or that are still starting: these are started again with the new files.
// Inactive units are not included.
func (p *plan) changedUnits() map[string]string {
	reasons := map[string]string{}
	stopped := map[string]bool{}
	for _, a := range p.actions {
		stopped[a.Unit] = stopped[a.Unit] || a.stop
	}
	scripts := p.changedScripts()
	for name, s := range p.running {
		if !s.runs() && !s.retries() && !s.starting(name) && s.active != "failed" || s.load == masked || name == p.own || stopped[name] {
			continue
		}
		if t, ok := unit.Template(name); ok && stopped[t] {
			continue
		}
		if kind := unit.Type(name); kind == "slice" || kind == "swap" || !unit.Deployed(name) {
			continue // systemd applies the settings of a slice itself; a swap is not emptied for new settings
		}
		reason := ""
		for changed, why := range p.changed {
			if p.touches(changed, name) {
				reason = why
			}
		}
		if reason == "" && len(scripts) > 0 && s.active != "failed" {
			if u := p.after.unit(name); u != nil && usesScript(u, scripts) {
				reason = "script"
			}
		}
		if reason == "" {
			continue
		}
		if u := p.after.unit(name); u == nil || !u.RestartNo() || !s.runs() {
			reasons[name] = reason
		}
	}
	return reasons
}

// touches reports whether a change of the files of changed affects a unit. changed
// is a unit, a template, a quadlet, or a drop-in directory without its suffix .d.
func (p *plan) touches(changed, name string) bool {
	t, instance := unit.Template(name)
	return name == changed || instance && t == changed || unit.DropInApplies(changed+".d", p.after.namesOf(name)...) || unit.Quadlet(changed) && p.after.service(changed) == name
}

// changedScripts returns the scripts that the plan changes, both by their paths on
// the host and by their paths in the repository.
func (p *plan) changedScripts() map[string]bool {
	all := map[string]bool{}
	for _, a := range p.actions {
		if f := p.want.file(a.Path); f != nil && f.unit == "" && a.isFile() && a.Reason != "adopted" {
			all[f.path], all[f.source] = true, true
		}
	}
	return all
}

// usesScript reports whether a unit runs one of the scripts, or names one in
// RestartOnChange=.
func usesScript(u *unit.Unit, scripts map[string]bool) bool {
	for _, file := range append(u.AllPrograms(), u.RestartOnChange()...) {
		candidates := []string{path.Clean(file)}
		if !strings.Contains(file, "/") {
			candidates = lookUp(u, file)
		}
		if slices.ContainsFunc(candidates, func(p string) bool { return scripts[p] }) {
			return true
		}
	}
	return false
}

// role says how a unit behaves that should run.
type role struct {
	ends bool // a service that may end by itself when its work is done
	once bool // a timer that systemd unloads when it has elapsed
}

// shouldRun returns the enabled units of the commit that should be active because
// a unit that wants them is active. It leaves out units for which roleOf returns
// false, and units that the administrator enabled by hand, except those that
// activate another unit.
func (p *plan) shouldRun() map[string]role {
	all := map[string]role{}
	links := p.linksAfter()
	for _, f := range p.want.files {
		switch {
		case p.foreign[f.unit] || !f.isMain():
		case f.isQuadlet():
			q := p.after.unit(f.unit)
			service := p.after.service(f.unit)
			if r, ok := roleOf(p.after.unit(service)); ok && p.anyRuns(append(q.Words("Install", "WantedBy"), q.Words("Install", "RequiredBy")...)) {
				all[service] = r
			}
		default:
			for subject, mine := range links.of(f.unit).bySubject() {
				var wanters []string
				for _, l := range mine {
					wanters = append(wanters, l.wanter())
				}
				// A service that the administrator enabled by hand, for the next boot, is
				// theirs to start.
				byHand := len(p.declared.Preset[subject]) == 0 && !activates(subject)
				if r, ok := roleOf(p.after.unit(subject)); ok && !byHand && p.anyRuns(wanters) {
					all[subject] = r
				}
			}
		}
	}
	return all
}

// activates reports whether a unit of this name waits for an event and then starts
// another unit.
func activates(name string) bool {
	return slices.Contains([]string{"timer", "socket", "path", "automount"}, unit.Type(name))
}

// roleOf returns the role of a unit. ok is false if the unit need not run even
// though an active unit wants it: a oneshot without RemainAfterExit=, a slice,
// which systemd starts when it needs it, or a swap.
func roleOf(u *unit.Unit) (r role, ok bool) {
	if u == nil {
		return r, false
	}
	switch unit.Type(u.Name) {
	case "slice", "swap":
		return r, false
	case "service":
		r.ends = !u.RemainAfterExit()
		return r, !u.Oneshot() || !r.ends
	case "timer":
		r.once = u.Last("Timer", "RemainAfterElapse") != "" && !u.Bool("Timer", "RemainAfterElapse")
	}
	return r, true
}

// anyRuns reports whether at least one of the units is active. A name may be an
// alias.
func (p *plan) anyRuns(names []string) bool {
	for _, name := range names {
		if p.running[p.after.id(name)].runs() {
			return true
		}
	}
	return false
}

// linksAfter returns the links that the host will have after the actions that are
// planned so far.
func (p *plan) linksAfter() enablement {
	links := slices.Clone(p.links)
	for _, a := range p.actions {
		links = append(links.without(a.drop).without(a.add), a.add...)
	}
	return links
}

// heal returns why a unit that should run is started. It returns "" if the unit is
// not started.
func (r role) heal(s unitState, d detail) string {
	switch {
	case !d.canStart || d.result == "exec-condition":
		return ""
	case s.active == "failed":
		return "failed"
	case r.ends && d.result == "success" && d.endedItself:
		return "" // its work is done
	}
	return "inactive"
}

// startOrder compares two units by the order in which they are started: sockets
// first, because a socket cannot be bound while its service runs, and gitsync's own
// units last.
func startOrder(a, b string) int {
	rank := func(s string) int {
		switch {
		case strings.HasPrefix(s, family+".") || strings.HasPrefix(s, family+"@") || strings.HasPrefix(s, "gitops-apply"):
			return 2
		case unit.Type(s) == "socket":
			return 0
		}
		return 1
	}
	return cmp.Or(rank(a)-rank(b), strings.Compare(a, b))
}

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

// detail is what systemd says of a unit beyond its state, as far as it decides
// whether the unit is started.
type detail struct {
	result       string // of the last run
	conditionMet bool   // at the last start
	endedItself  bool   // its main process ended before systemd stopped it
	canStart     bool
	canStop      bool
	oneshot      bool // by the files that systemd has loaded
}

// detailProperties are the properties of systemd of which a detail is made.
var detailProperties = []string{"Result", "ConditionResult", "ConditionTimestampMonotonic", "AssertResult", "AssertTimestampMonotonic", "CanStart", "CanStop", "RefuseManualStart", "RefuseManualStop",
	"ExecMainStartTimestampMonotonic", "ExecMainExitTimestampMonotonic", "ActiveEnterTimestampMonotonic", "ActiveExitTimestampMonotonic", "LoadState", "ActiveState", "SubState", "Type"}

// readDetail reads the properties of one unit.
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

// assertFailed reports whether the assertions of a unit were not met at its
// last start. systemd does not look at them if the conditions are not met.
func assertFailed(p map[string]string) bool {
	return number(p["AssertTimestampMonotonic"]) > 0 && p["AssertResult"] == "no"
}

// restarts plans which units take up what changed, and which enabled units are
// started because they do not run although they should.
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
		if all[name]["LoadState"] != "loaded" { // not yet: nothing but the commit knows it
			u := p.after.unit(name)
			d = detail{conditionMet: true, canStart: u == nil || !u.Bool("Unit", "RefuseManualStart")}
		}
		state := p.running[name]
		if reason := reasons[name]; reason != "" {
			// A oneshot that is running is left alone, and this process is such a one:
			// the next run of both has the new files.
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
			reason = "" // it may have elapsed, which nobody can see any more
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

// startedBy returns the action that starts a unit without a line of its own:
// that enables it, or installs it as a quadlet. It is -1 if there is none.
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

// changedUnits returns the loaded units whose files the plan changes, and why.
// A unit that was failed, about to be restarted or still starting is among them:
// it is started again with the new files. A unit that is inactive is not.
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
			continue // systemd itself applies a slice's settings; a swap is not emptied for new ones
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

// touches reports whether the files of changed, a unit, a template, a quadlet
// or the name of a drop-in directory without its .d, are those of a unit.
func (p *plan) touches(changed, name string) bool {
	t, instance := unit.Template(name)
	return name == changed || instance && t == changed || unit.DropInApplies(changed+".d", p.after.namesOf(name)...) || unit.Quadlet(changed) && p.after.service(changed) == name
}

// changedScripts returns the scripts that the plan changes, by their paths on
// the host and in the repository.
func (p *plan) changedScripts() map[string]bool {
	all := map[string]bool{}
	for _, a := range p.actions {
		if f := p.want.file(a.Path); f != nil && f.unit == "" && a.isFile() && a.Reason != "adopted" {
			all[f.path], all[f.source] = true, true
		}
	}
	return all
}

// usesScript reports whether a unit runs one of the scripts, or declares that
// it wants to be restarted when one changes.
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

// role says how a unit that should run behaves.
type role struct {
	ends bool // it is a service that may end by itself when its work is done
	once bool // it is a timer that is unloaded when it has elapsed
}

// shouldRun returns the enabled units of the commit that should be active: one
// of the units that want them is. Instances that an administrator enabled are
// not among them, and neither are services that end when their work is done.
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
				// A service that somebody enabled by hand, for the next boot, is theirs to start.
				byHand := len(p.declared.Preset[subject]) == 0 && !activates(subject)
				if r, ok := roleOf(p.after.unit(subject)); ok && !byHand && p.anyRuns(wanters) {
					all[subject] = r
				}
			}
		}
	}
	return all
}

// activates reports whether a unit of this name waits and starts another.
func activates(name string) bool {
	return slices.Contains([]string{"timer", "socket", "path", "automount"}, unit.Type(name))
}

// roleOf returns how a unit behaves that is wanted by one that runs. ok is false
// for a service that ends when its work is done, for slices, which systemd
// starts when it needs them, and for swaps.
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

// anyRuns reports whether one of the units is active. A name may be an alias.
func (p *plan) anyRuns(names []string) bool {
	for _, name := range names {
		if p.running[p.after.id(name)].runs() {
			return true
		}
	}
	return false
}

// linksAfter returns the links that the host will have.
func (p *plan) linksAfter() enablement {
	links := slices.Clone(p.links)
	for _, a := range p.actions {
		links = append(links.without(a.drop).without(a.add), a.add...)
	}
	return links
}

// heal returns why a unit that should run is started; empty if it is not.
func (r role) heal(s unitState, d detail) string {
	switch {
	case !d.canStart || d.result == "exec-condition":
		return ""
	case s.active == "failed":
		return "failed"
	case r.ends && d.result == "success" && d.endedItself:
		return "" // it did what it was for
	}
	return "inactive"
}

// startOrder orders units as they are started: gitsync's own family last, and
// sockets before other units, because a socket cannot be bound while its service
// runs.
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

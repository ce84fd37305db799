package main

import (
	"fmt"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"observability-hub/lib/record"
	"observability-hub/lib/sysexits"
)

// Actions of a plan.
const (
	doInstall = "install"
	doUpdate  = "update"
	doRemove  = "remove"
	doEnable  = "enable"
	doDisable = "disable"
	doRestart = "restart"
	doRun     = "run"
	doSkip    = "skip"
)

// action is one difference between what the commit wants and what the host
// has: one line of a plan.
type action struct {
	Action string `json:"action"`
	Unit   string `json:"unit,omitempty"`
	Path   string `json:"path,omitempty"`
	Reason string `json:"reason"`
	Commit string `json:"commit"`
}

// same reports whether two lines mean the same step. The reason is for people.
func (a action) same(b action) bool {
	return a.Action == b.Action && a.Unit == b.Unit && a.Path == b.Path && a.Commit == b.Commit
}

// planned is the line of a plan.
func (a action) planned(now time.Time, service string) []byte {
	return a.fill(record.New(now, record.Info, "planned", service))
}

// done is the line that says that it was done.
func (a action) done(now time.Time, level, service string) []byte {
	return a.fill(record.New(now, level, "action", service))
}

func (a action) fill(l *record.Line) []byte {
	l.String("action", a.Action)
	if a.Unit != "" {
		l.String("unit", a.Unit)
	}
	if a.Path != "" {
		l.String("path", a.Path)
	}
	l.String("reason", a.Reason)
	l.String("commit", a.Commit)
	return l.End()
}

// view is the host as a plan compares with it.
type view struct {
	host    host
	ledger  *ledger
	links   enablement
	running map[string]unitState // nil offline: nothing runs there
	own     string               // the unit that this process is part of
}

// plan lists what to do, in the order in which it is done.
type planner struct {
	view
	d       *desired
	presets presets
	actions []action
	changed map[string]string // units whose files change, and why
	foreign map[string]bool   // units whose main file is not ours
	enabled map[string]bool   // what the presets say of each unit, for the ledger
}

// gone returns the paths that the ledger has and the commit does not want.
func (l *ledger) gone(d *desired) map[string]bool {
	gone := map[string]bool{}
	for p := range l.Files {
		if d.file(p) == nil {
			gone[p] = true
		}
	}
	return gone
}

// makePlan compares. d is what the host gets, after forHost.
func makePlan(v view, d *desired) (*planner, error) {
	p := &planner{view: v, d: d, changed: map[string]string{}, foreign: map[string]bool{}, enabled: map[string]bool{}}
	gone := v.ledger.gone(d)
	var err error
	if p.presets, err = readPresets(v.host, d, gone); err != nil {
		return nil, err
	}
	// Scripts before the units that call them; presets matter after both.
	order := slices.Clone(d.files)
	slices.SortStableFunc(order, func(a, b *wantedFile) int { return rank(a) - rank(b) })
	for _, f := range order {
		if err := p.compareFile(f); err != nil {
			return nil, err
		}
	}
	for _, s := range d.skipped {
		if v.ledger.Skipped[s.unit] != s.reason {
			p.add(doSkip, s.unit, s.path, s.reason)
		}
	}
	if err := p.removals(gone); err != nil {
		return nil, err
	}
	p.enablement()
	p.restarts()
	if !v.host.offline() {
		for _, r := range d.rules {
			if was, known := v.ledger.OnChange[r.key()]; !known {
				p.add(doRun, r.unit(), rulesFile, "new")
			} else if was != r.state {
				p.add(doRun, r.unit(), rulesFile, "changed")
			}
		}
	}
	return p, nil
}

func rank(f *wantedFile) int {
	switch {
	case f.unit != "":
		return 1
	case path.Ext(f.path) == ".preset":
		return 2
	}
	return 0
}

func (p *planner) add(do, unit, path, reason string) {
	p.actions = append(p.actions, action{do, unit, path, reason, p.d.commit})
}

// compareFile plans what one wanted file needs.
func (p *planner) compareFile(f *wantedFile) error {
	is, err := p.host.state(f.path)
	if err != nil {
		return fmt.Errorf("look at %s: %w", f.path, err)
	}
	was, ours := p.ledger.Files[f.path]
	change := func(do, reason string) {
		p.add(do, f.unit, f.path, reason)
		if f.unit != "" && reason != "adopted" {
			p.changed[f.unit] = reason
		}
	}
	exact := is.kind == "file" && is.sum == f.sum && is.mode == f.mode && rightOwner(is)
	switch {
	case is.kind == "" && ours:
		change(doInstall, "drift")
	case is.kind == "":
		change(doInstall, "new")
	case is.kind != "file" || is.sum != f.sum && !ours:
		reason := "foreign"
		if is.kind == "link" && is.link == "/dev/null" {
			reason = "masked"
		}
		p.add(doSkip, f.unit, f.path, reason)
		if f.isUnit() {
			p.foreign[f.unit] = true
		}
	case !ours:
		change(doInstall, "adopted")
	case exact:
	case is.sum == was.Sum && f.sum != was.Sum:
		change(doUpdate, "changed")
	default:
		change(doUpdate, "drift")
	}
	return nil
}

// rightOwner reports whether a file belongs to root, as what systemd reads and
// root runs must. A run as another user, offline, can only write its own.
func rightOwner(s fileState) bool {
	return os.Geteuid() != 0 || s.uid == 0 && s.gid == 0
}

// removals plans what the ledger has and the commit does not.
func (p *planner) removals(gone map[string]bool) error {
	skipped := map[string]bool{}
	for _, s := range p.d.skipped {
		skipped[s.unit] = true
	}
	for _, path := range slices.Sorted(maps.Keys(gone)) {
		f := p.ledger.Files[path]
		is, err := p.host.state(path)
		if err != nil {
			return fmt.Errorf("look at %s: %w", path, err)
		}
		// A link or folder in its place is somebody else's by now.
		if is.kind != "file" {
			continue
		}
		reason := "pruned"
		if skipped[f.Unit] {
			reason = "not-installed-here"
		}
		p.add(doRemove, f.Unit, path, reason)
		if f.Unit != "" && !isMain(f.Unit, path) {
			p.changed[f.Unit] = reason
		}
	}
	return nil
}

// isMain reports whether p is the main file of the unit.
func isMain(unit, p string) bool { return p == path.Join(unitDir, unit) }

// enablement plans what systemctl preset would change. It heals a unit that
// was disabled by hand, but leaves one alone that was enabled by hand, unless
// the presets used to enable it: services carry an [Install] section for
// whoever wants a run at boot.
func (p *planner) enablement() {
	for _, f := range p.d.files {
		if !f.isUnit() || p.foreign[f.unit] {
			continue
		}
		u := parseUnit(f.content)
		links := u.links(f.unit)
		if len(links) == 0 {
			continue
		}
		want := p.presets.enabled(f.unit)
		is := p.links.of(f.unit)
		if isTemplate(f.unit) {
			// Its instances are the administrator's, but for those in the presets.
			for _, i := range p.presets.instances(f.unit) {
				if want && !p.links.has(u.links(i)) {
					p.add(doEnable, i, path.Join(unitDir, f.unit), p.enableReason(i))
				}
				p.enabled[i] = want
			}
			continue
		}
		was, known := p.ledger.Enabled[f.unit]
		switch {
		case want && !is.has(links):
			p.add(doEnable, f.unit, f.path, p.enableReason(f.unit))
		case !want && len(is) > 0 && known && was:
			p.add(doDisable, f.unit, f.path, "preset")
		}
		p.enabled[f.unit] = want
	}
}

func (p *planner) enableReason(unit string) string {
	was, known := p.ledger.Enabled[unit]
	switch {
	case !known:
		return "new"
	case was:
		return "drift"
	}
	return "preset"
}

// restarts plans which running units have to take up what changed, and which
// enabled timers, sockets and path units do not run although they should.
func (p *planner) restarts() {
	if p.running == nil {
		return
	}
	reasons := map[string]string{}
	stopped := map[string]bool{} // disabled or removed in this plan
	for _, a := range p.actions {
		stopped[a.Unit] = stopped[a.Unit] || a.Action == doDisable || a.Action == doRemove && isMain(a.Unit, a.Path)
	}
	for name, s := range p.running {
		for changed, reason := range p.changed {
			t, instance := template(name)
			drops := strings.TrimPrefix(path.Ext(name), ".") == changed // service.d, for all services
			if (name == changed || instance && t == changed || drops && activates(name)) && s.active == "active" {
				reasons[name] = reason
			}
		}
	}
	for _, f := range p.d.files {
		if !f.isUnit() || !activates(f.unit) || p.foreign[f.unit] {
			continue
		}
		units := []string{f.unit}
		if isTemplate(f.unit) {
			units = p.links.instancesOf(f.unit)
		}
		for _, unit := range units {
			enabled := len(p.links.of(unit)) > 0
			if s := p.running[unit]; enabled && s.active != "active" && s.active != "activating" && reasons[unit] == "" {
				reasons[unit] = "inactive"
			}
		}
	}
	for _, unit := range slices.SortedFunc(maps.Keys(reasons), lastOurs) {
		// A oneshot at work is left to end, and this process is such a one: both
		// begin anew with what is there then.
		if !stopped[unit] && unit != p.own {
			p.add(doRestart, unit, "", reasons[unit])
		}
	}
}

// lastOurs orders units by name, gitsync's own family last.
func lastOurs(a, b string) int {
	ours := func(s string) int {
		if strings.HasPrefix(s, family+".") || strings.HasPrefix(s, family+"@") || strings.HasPrefix(s, "gitops-apply") {
			return 1
		}
		return 0
	}
	if d := ours(a) - ours(b); d != 0 {
		return d
	}
	return strings.Compare(a, b)
}

// guard refuses a plan that would remove all or most of what is ours: a commit
// with an empty folder is a mistake more often than a wish.
func guard(l *ledger, d *desired, allow bool) error {
	if allow {
		return nil
	}
	removed := len(l.gone(d))
	kept := len(l.Files) - removed
	switch {
	case len(d.files) == 0 && len(d.rules) == 0 && (len(l.Files) > 0 || len(d.skipped) == 0):
		return sysexits.New(sysexits.DataErr, "prune_refused", fmt.Errorf("commit %s wants nothing: no units in systemd/, no scripts in scripts/", d.commit)).
			WithHint("give --allow-prune if that is meant; nothing was changed")
	case removed > 2 && removed > kept:
		return sysexits.New(sysexits.DataErr, "prune_refused", fmt.Errorf("commit %s would remove %d of the %d files that are ours", d.commit, removed, len(l.Files))).
			WithHint("give --allow-prune if that is meant; nothing was changed")
	}
	return nil
}

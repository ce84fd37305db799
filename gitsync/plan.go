package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"observability-hub/gitsync/internal/unit"
	"observability-hub/lib/cli"
	"observability-hub/lib/record"
	"observability-hub/lib/sysexits"
)

type planCmd struct {
	stateFlags
	originFlags
	hostFlags
}

// Validate checks the flags.
func (c *planCmd) Validate() error { return validate(c.originFlags, c.hostFlags) }

// Run prints what apply would do.
func (c *planCmd) Run(ctx context.Context, env *cli.Env) error {
	return cli.Interruptible(ctx, func(ctx context.Context) error {
		dir, err := c.openWith(ctx, c.Source, lockWait)
		if err != nil {
			return err
		}
		defer dir.Close()
		a := &apply{env: env, dir: dir, originFlags: c.originFlags, hostFlags: c.hostFlags}
		if err := a.prepare(); err != nil {
			return err
		}
		if j, err := readJournal(dir.Path); err != nil || j != nil {
			env.Diag.Warn("apply_interrupted", "an apply was interrupted: the next one undoes it first; this plan is of the host as it is")
		}
		p, err := a.plan(ctx)
		if err != nil || p == nil {
			return err
		}
		defer p.stage.remove()
		if err := guard(a.ledger, p.want, false); err != nil {
			env.Diag.Warn("prune_ahead", err.Error()+": apply refuses that")
		}
		for _, act := range p.actions {
			if err := env.Stdout.Record(record.Info, act.planned(time.Now(), env.Service)); err != nil {
				return err
			}
		}
		return nil
	})
}

// view is the host as a plan compares with it.
type view struct {
	host    host
	ledger  *ledger
	owners  map[string]string    // paths that other gitsyncs own
	links   enablement           // all below /etc/systemd/system
	running map[string]unitState // nil offline: nothing runs there
	own     string               // the unit that this process is part of
}

// plan is what to do, in the order in which it is done.
type plan struct {
	view
	pulled   pulled
	want     *want
	after    *after
	stage    *stage
	declared *declared
	actions  []action
	back     bool // to a commit before the applied one

	changed map[string]string // units whose files change, and why
	foreign map[string]bool   // units whose main file is not ours
}

// gone returns the paths that the ledger has and the commit does not want.
func (l *ledger) gone(w *want) map[string]bool {
	gone := map[string]bool{}
	for p := range l.Files {
		if w.file(p) == nil {
			gone[p] = true
		}
	}
	return gone
}

func (p *plan) add(do, unit, path, reason string) *action {
	p.actions = append(p.actions, action{Action: do, Unit: unit, Path: path, Reason: reason, Commit: p.want.commit})
	return &p.actions[len(p.actions)-1]
}

// compareFiles plans the files that the commit wants: scripts before the units
// that call them, then presets.
func (p *plan) compareFiles() error {
	order := slices.Clone(p.want.files)
	slices.SortStableFunc(order, func(a, b *wantedFile) int { return rank(a) - rank(b) })
	for _, f := range order {
		is, err := p.host.state(f.path)
		if err != nil {
			return fmt.Errorf("look at %s: %w", f.path, err)
		}
		was, ours := p.ledger.Files[f.path]
		do, reason := compareFile(f, is, was, ours, p.owners[f.path] != "")
		if do == "" {
			continue
		}
		p.add(do, f.unit, f.path, reason)
		switch {
		case do == doSkip && f.isMain():
			p.foreign[f.unit] = true
		case do != doSkip && reason != "adopted" && f.unit != "":
			p.changed[f.unit] = reason
		}
	}
	for _, s := range p.want.skipped {
		if p.ledger.Skipped[s.key()] != s.reason {
			p.add(doSkip, s.unit, s.path, s.reason)
		}
	}
	return nil
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

// compareFile decides what one wanted file needs: nothing, if the action is
// empty. was is the file in the ledger, if it is ours; others says that another
// gitsync owns it.
func compareFile(f *wantedFile, is fileState, was owned, ours, others bool) (do, reason string) {
	exact := is.kind == "file" && is.sum == f.sum && is.mode == f.mode && rightOwner(is)
	switch {
	case is.kind == "" && ours:
		return doInstall, "drift"
	case is.kind == "":
		return doInstall, "new"
	case is.kind == "link" && is.link == "/dev/null":
		return doSkip, masked
	case others, is.kind != "file", is.sum != f.sum && !ours:
		return doSkip, "foreign"
	case !ours:
		return doInstall, "adopted"
	case exact:
		return "", ""
	case is.sum == was.Sum && f.sum != was.Sum:
		return doUpdate, "changed"
	}
	return doUpdate, "drift"
}

// rightOwner reports whether a file belongs to root, as what systemd reads and
// root runs must. A run as another user, offline, can only write its own.
func rightOwner(s fileState) bool {
	return os.Geteuid() != 0 || s.uid == 0 && s.gid == 0
}

// removals plans what the ledger has and the commit does not. A unit that the
// host still has after that, because a package brings it too, keeps running
// and keeps its links.
func (p *plan) removals() error {
	reasons := map[string]string{}
	for _, s := range p.want.skipped {
		reasons[s.unit] = s.reason
	}
	for _, path := range slices.Sorted(maps.Keys(p.after.gone)) {
		f := p.ledger.Files[path]
		is, err := p.host.state(path)
		if err != nil {
			return fmt.Errorf("look at %s: %w", path, err)
		}
		// What has taken its place is not ours.
		if is.kind != "file" || p.owners[path] != "" {
			continue
		}
		reason := reasons[f.Unit]
		if reason == "" || f.Unit == "" {
			reason = "pruned"
		}
		a := p.add(doRemove, f.Unit, path, reason)
		switch where, _ := p.after.find(f.Unit); {
		case f.Unit == "":
		case !a.isMain():
			p.changed[f.Unit] = reason
		case unit.Quadlet(f.Unit):
			a.stop, a.service = true, unit.QuadletService(f.Unit, is.data)
		case where != "":
			p.changed[f.Unit] = reason
			for _, l := range p.links.of(f.Unit) {
				if l.Target == path {
					a.add = append(a.add, link{l.Path, where})
				}
			}
		default:
			a.drop, a.stop = p.links.of(f.Unit), true
		}
	}
	return nil
}

// enablements plans the links: what the presets and the [Install] sections of
// the commit want, against what the host has.
func (p *plan) enablements() {
	was := map[string]enablement{}
	for subject, links := range p.ledger.Links {
		was[subject] = links
	}
	subjects := map[string]bool{}
	for _, m := range []map[string]enablement{p.declared.links, p.declared.preset, was} {
		for subject := range m {
			subjects[subject] = true
		}
	}
	for subject, on := range p.ledger.Enabled {
		if on {
			subjects[subject] = true
		}
	}
	for _, subject := range slices.Sorted(maps.Keys(subjects)) {
		main := subject
		if t, ok := unit.Template(subject); ok && p.want.file(path.Join(unitDir, subject)) == nil {
			main = t
		}
		file := path.Join(unitDir, main)
		if p.foreign[main] || p.after.gone[file] {
			continue // the removal of the file takes the links
		}
		e := subjectLinks{
			is: p.links.of(subject), was: was[subject],
			declared: p.declared.links[subject], preset: p.declared.preset[subject],
			off: p.declared.off[subject], enabledBefore: p.ledger.Enabled[subject], known: p.known(subject),
			instance: main != subject,
		}
		do, reason, add, drop := e.decide()
		if do == "" {
			continue
		}
		a := p.add(do, subject, file, reason)
		a.add, a.drop, a.stop = add, drop, reason == "preset" && do == doDisable
	}
}

// compareUnits plans what follows from the files: removals, links, restarts and
// on-change commands.
func (p *plan) compareUnits(ctx context.Context) error {
	if err := p.removals(); err != nil {
		return err
	}
	var err error
	if p.declared, err = p.stage.ask(ctx, p.foreign, p.links); err != nil {
		return err
	}
	p.enablements()
	if err := p.restarts(ctx); err != nil {
		return err
	}
	p.runs()
	return nil
}

// known reports whether the presets decided on a unit before.
func (p *plan) known(subject string) bool {
	_, known := p.ledger.Enabled[subject]
	return known
}

// subjectLinks is all that is known of the links of one unit or instance.
type subjectLinks struct {
	is       enablement // on the host
	was      enablement // that the commit before declared
	declared enablement // that enabling it makes now
	preset   enablement // that the presets want; empty if they do not enable it
	off      bool       // the presets disable it

	enabledBefore bool // the presets enabled it before
	known         bool // they decided on it before
	instance      bool // of a template of the commit
}

// decide returns what the links need: enable or disable, or nothing. It repairs
// the links of a unit that was disabled by hand. It leaves a unit alone that was
// enabled by hand, unless the presets enabled it before: services carry an
// [Install] section for an administrator who wants a run at boot. Links that
// neither the commit before nor this one declares are the administrator's.
func (s subjectLinks) decide() (do, reason string, add, drop enablement) {
	stale := func(now enablement) enablement { return s.was.both(s.is).without(now) }
	switch {
	case len(s.preset) > 0:
		add, drop = s.preset.without(s.is), stale(s.preset)
		switch {
		case len(add) == 0 && len(drop) == 0:
			return "", "", nil, nil
		case !s.known:
			reason = "new"
		case !s.enabledBefore:
			reason = "preset"
		case len(drop) > 0 || len(s.was) > 0 && len(s.preset.without(s.was)) > 0:
			reason = "changed"
		default:
			reason = "drift"
		}
		return doEnable, reason, add, drop
	case s.enabledBefore && len(s.is) > 0 && (s.off || s.instance):
		drop = s.is
		if s.instance && !s.off {
			drop = s.was.both(s.is)
		}
		if len(drop) == 0 {
			return "", "", nil, nil
		}
		return doDisable, "preset", nil, drop
	case len(s.was.both(s.is)) > 0:
		add, drop = s.declared.without(s.is).without(s.was), stale(s.declared)
		switch {
		case len(add) == 0 && len(drop) == 0:
			return "", "", nil, nil
		case len(s.declared) == 0:
			return doDisable, "changed", nil, drop
		}
		return doEnable, "changed", add, drop
	}
	return "", "", nil, nil
}

// runs plans the on-change commands.
func (p *plan) runs() {
	if p.host.offline() {
		return
	}
	for _, r := range p.want.rules {
		if was, known := p.ledger.OnChange[r.key()]; !known {
			p.add(doRun, r.unit(), rulesFile, "new")
		} else if was != r.state {
			p.add(doRun, r.unit(), rulesFile, "changed")
		}
	}
}

// guard refuses a plan that would remove all or most of what is ours: a commit
// with an empty directory is a mistake more often than an intention.
func guard(l *ledger, w *want, allow bool) error {
	if allow {
		return nil
	}
	removed := len(l.gone(w))
	kept := len(l.Files) - removed
	var err error
	switch {
	case len(w.files) == 0 && len(w.rules) == 0 && (len(l.Files) > 0 || !slices.ContainsFunc(w.skipped, func(s skippedFile) bool { return s.unit != "" })):
		err = fmt.Errorf("commit %s wants nothing: no units in systemd/, no scripts in scripts/", w.commit)
	case removed > 2 && removed > kept:
		err = fmt.Errorf("commit %s would remove %d of the %d files that are ours", w.commit, removed, len(l.Files))
	default:
		return nil
	}
	return sysexits.New(sysexits.DataErr, "prune_refused", err).
		WithHint("nothing was changed; if that is meant, run gitsync apply --allow-prune once, by hand as root")
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

package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"slices"
	"time"

	"observability-hub/gitsync/internal/unit"
	"observability-hub/lib/cli"
	"observability-hub/lib/record"
	"observability-hub/lib/table"
)

type planCmd struct {
	stateFlags
	originFlags
	hostFlags
	table.Flag
}

// Viewer implements [cli.Viewable].
func (c *planCmd) Viewer(w io.Writer) cli.Viewer {
	return c.Show(w, table.Columns{"planned": {"action", "unit", "path", "reason", "commit"}})
}

// Validate checks the flags.
func (c *planCmd) Validate() error { return validate(c.originFlags, c.hostFlags) }

// Run prints what apply would do.
func (c *planCmd) Run(ctx context.Context, env *cli.Env) error {
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

	differences map[string]difference // by path, of the files of the commit
	changed     map[string]string     // units whose files change, and why
	foreign     map[string]bool       // units whose main file is not ours
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

// difference is what a file of the commit needs, and why: nothing, if do is empty.
type difference struct{ do, reason string }

// readHost compares the files of a commit with those of the host, and decides
// what this host gets of the commit.
func (p *plan) readHost(all *want) error {
	p.differences = map[string]difference{}
	left := map[string]bool{}
	for _, f := range all.files {
		is, err := p.host.state(f.path)
		if err != nil {
			return fmt.Errorf("look at %s: %w", f.path, err)
		}
		was, ours := p.ledger.Files[f.path]
		do, reason := compareFile(f, is, was, ours, p.owners[f.path] != "")
		p.differences[f.path] = difference{do, reason}
		left[f.path] = do == doSkip
	}
	before := newAfter(p.host, all, p.ledger.gone(all))
	before.left = left
	var err error
	if p.want, err = all.forHost(before, p.running); err != nil {
		return err
	}
	p.after = newAfter(p.host, p.want, p.ledger.gone(p.want))
	p.after.left = left
	return nil
}

// compareFiles plans the files that the commit wants: scripts before the units
// that call them, then presets.
func (p *plan) compareFiles() {
	order := slices.Clone(p.want.files)
	slices.SortStableFunc(order, func(a, b *wantedFile) int { return rank(a) - rank(b) })
	for _, f := range order {
		do, reason := p.differences[f.path].do, p.differences[f.path].reason
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
		p.reportSkipped(s)
	}
}

// reportSkipped plans a line for what this host does not get, the first time.
func (p *plan) reportSkipped(s skippedFile) {
	if p.ledger.Skipped[s.key()] != s.reason {
		p.add(doSkip, s.unit, s.path, s.reason)
	}
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
	changed := is.sum == was.Sum && (f.sum != was.Sum || modeText(f.mode) != was.Mode && modeText(is.mode) == was.Mode)
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
	case changed:
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

// compareUnits plans what follows from the files: removals, links, restarts and
// on-change commands.
func (p *plan) compareUnits(ctx context.Context) error {
	if err := p.removals(); err != nil {
		return err
	}
	var err error
	if p.declared, err = p.stage.ask(ctx, p.foreign, p.links, p.ledger.Links); err != nil {
		return err
	}
	p.enablements()
	if err := p.restarts(ctx); err != nil {
		return err
	}
	p.runs()
	return nil
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

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
	"observability-hub/lib/diag"
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
		env.Diag.Warn("apply_interrupted", "an apply was interrupted, and the next one undoes it first; this plan compares the commit with the host as it is now")
	}
	p, err := a.plan(ctx)
	if err != nil || p == nil {
		return err
	}
	defer p.stage.remove()
	if w := p.pulled.Waiting; w != nil {
		env.Diag.Info("commit_waits", "commit "+w.Commit+" is not in this plan: "+w.why(), diag.Field{Key: "commit", Value: w.Commit})
	}
	if err := guard(a.ledger, p.want, false); err != nil {
		env.Diag.Warn("prune_ahead", err.Error()+"; apply will refuse this without --allow-prune")
	}
	for _, act := range p.actions {
		if err := env.Stdout.Record(record.Info, act.planned(time.Now(), env.Service)); err != nil {
			return err
		}
	}
	return nil
}

// view is the state of the host before the plan.
type view struct {
	host    host
	ledger  *ledger
	owners  map[string]string    // paths that other gitsyncs own, and their state directories
	links   enablement           // all links below /etc/systemd/system
	running map[string]unitState // the units that systemd has loaded; nil on another root, where no systemd runs
	own     string               // the unit that this process is part of
}

// plan is the list of actions, in order, with everything that led to it.
type plan struct {
	view
	pulled   pulled
	want     *want
	after    *after
	stage    *stage
	declared *declared
	actions  []action
	back     bool // a rollback to an earlier commit

	differences map[string]difference // of the files of the commit, by path
	changed     map[string]string     // units whose files change, with the reason
	foreign     map[string]bool       // units whose main file on the host is not the commit's
}

// gone returns the paths that are in the ledger and that the commit does not want.
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

// difference is the action that a file of the commit needs, with its reason. If do
// is empty, the file needs none.
type difference struct{ do, reason string }

// readHost compares the files of a commit with those of the host, and decides
// which files of the commit this host gets.
func (p *plan) readHost(all *want) error {
	p.differences = map[string]difference{}
	left := map[string]bool{}
	for _, f := range all.files {
		is, err := p.host.state(f.path)
		if err != nil {
			return fmt.Errorf("read %s: %w", f.path, err)
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

// compareFiles plans the files that the commit wants: first scripts, then the
// units that call them, then presets.
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

// reportSkipped plans a line for a file that this host does not get, unless an
// earlier run reported it for the same reason.
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

// compareFile decides which action one wanted file needs. The action is empty if
// it needs none. is is the file on the host, and was is the file in the ledger.
// ours says that the ledger has it, and others that another gitsync owns it.
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

// rightOwner reports whether a file has the right owner. The owner must be root,
// because systemd reads these files and root runs them. If gitsync runs as another
// user, on another root, any owner is right, because it can only write files of that
// user.
func rightOwner(s fileState) bool {
	return os.Geteuid() != 0 || s.uid == 0 && s.gid == 0
}

// removals plans the removal of files that are in the ledger and that the commit
// does not want. If the host still has the unit afterwards, because a package
// installed it too, the unit keeps running and keeps its links.
func (p *plan) removals() error {
	reasons := map[string]string{}
	for _, s := range p.want.skipped {
		reasons[s.unit] = s.reason
	}
	for _, path := range slices.Sorted(maps.Keys(p.after.gone)) {
		f := p.ledger.Files[path]
		is, err := p.host.state(path)
		if err != nil {
			return fmt.Errorf("read %s: %w", path, err)
		}
		// There is nothing to remove: the file does not exist, is not a regular file
		// any more, or belongs to another gitsync.
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

// compareUnits plans what follows from the differences of the files: removals,
// links, restarts and on-change commands.
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

package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"observability-hub/gitsync/internal/gitobj"
	"observability-hub/lib/diag"
	"observability-hub/lib/record"
	"observability-hub/lib/sysexits"
)

// wish is what a commit wants of this host.
type wish struct {
	pulled pulled
	view   view
	d      *desired
	plan   *planner
}

// readTimeout bounds the reading of a commit: the source is another user's, who
// can put a pipe where git looks for a file.
const readTimeout = 2 * time.Minute

// wish reads the commit and compares it with the host. It is nil if there is
// nothing to apply.
func (a *apply) wish(ctx context.Context) (*wish, error) {
	w := &wish{}
	var err error
	if w.pulled, err = readPulled(a.Source); err != nil {
		return nil, err
	}
	target := w.pulled.Commit
	if target == "" {
		return nil, nothingPulled(a.Source)
	}
	if err := w.pulled.agree(a.originFlags); err != nil {
		return nil, err
	}
	w.pulled.anchor = a.anchor(w.pulled.anchor)
	known := a.target != ""
	if known {
		target = a.target
	} else if target, known, err = a.unlessQuarantined(target); err != nil || target == "" {
		return nil, err
	}
	bounded, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	reader, err := gitobj.NewReader(a.dir.Path)
	if err != nil {
		return nil, err
	}
	o, err := reader.Open(bounded, filepath.Join(a.Source, repoDir, "objects"))
	if err != nil {
		return nil, err
	}
	defer o.Close()
	err = a.read(bounded, o, reader, target, known, w)
	switch {
	case err == nil:
		return w, nil
	case ctx.Err() != nil:
		return nil, context.Cause(ctx) // a git that was ended in mid-answer looks like damage
	case bounded.Err() != nil:
		err = fmt.Errorf("no answer within %v", readTimeout)
	case !errors.Is(err, gitobj.ErrMissing) && !errors.Is(err, gitobj.ErrCorrupt):
		return nil, err
	}
	return nil, sysexits.New(sysexits.Unavailable, "repository_corrupt", fmt.Errorf("%s: %w", filepath.Join(a.Source, repoDir), err)).
		WithHint("gitsync pull checks it every few hours and clones it again; remove " + filepath.Join(a.Source, pulledFile) + " to have that at once")
}

// anchor is the branch as this run knows it: by its own flags if they are
// given, for the source's word can be a lie.
func (a *apply) anchor(source anchor) anchor {
	if a.Repo == "" {
		return source
	}
	url, err := remoteURL(a.Repo)
	if err != nil {
		url = a.Repo
	}
	return anchor{url, a.Ref, source.Commit}
}

// unlessQuarantined returns the commit to apply: the pulled one, or, if that is
// quarantined, the last good one, so that drift is healed meanwhile. known
// says that the commit was applied before.
func (a *apply) unlessQuarantined(target string) (commit string, known bool, err error) {
	q, err := readQuarantine(a.dir.Path)
	if err != nil || q.Commit != target {
		return target, false, err
	}
	a.env.Diag.Warn("quarantined", fmt.Sprintf("commit %s is not applied: %s", q.Commit, q.Reason),
		diag.Field{Key: "commit", Value: q.Commit}, diag.Field{Key: "since", Value: q.Since.Format(record.TimeFormat)})
	return a.ledger.Commit, true, nil
}

// read checks the commit again, as if pull had not, and makes the plan.
func (a *apply) read(ctx context.Context, o *gitobj.Store, reader gitobj.Reader, target string, known bool, w *wish) error {
	c, err := w.pulled.readCommit(o, target, a.Path)
	if err != nil {
		return err
	}
	if err := a.signers.verify(ctx, reader, c); err != nil {
		return err
	}
	if !known {
		if err := checkAnchor(o, a.ledger.Anchor, w.pulled.anchor, a.AllowRewind); err != nil {
			return err
		}
	}
	all, err := readDesired(o, c, a.ScriptsDir)
	if err != nil {
		return err
	}
	if w.d, err = all.forHost(a.host, a.ledger.gone(all)); err != nil {
		return err
	}
	w.view = view{host: a.host, ledger: a.ledger}
	if w.view.links, err = readEnablement(a.host); err != nil {
		return err
	}
	if !a.host.offline() {
		if w.view.running, err = listUnits(ctx); err != nil {
			return err
		}
		w.view.own = ownUnit()
	}
	w.plan, err = makePlan(w.view, w.d)
	return err
}

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

// readTimeout bounds the reading of a commit: the source is another user's, who
// can put a pipe where git looks for a file.
const readTimeout = 2 * time.Minute

// readCommit reads what the commit to apply wants, and checks it again as if
// pull had not. The want is nil if there is nothing to apply.
func (a *apply) readCommit(ctx context.Context) (pulled, *want, error) {
	p, err := readPulled(a.Source)
	if err != nil {
		return p, nil, err
	}
	target := p.Commit
	if target == "" {
		return p, nil, nothingPulled(a.Source)
	}
	if err := p.agree(a.originFlags); err != nil {
		return p, nil, err
	}
	p.anchor = a.anchor(p.anchor)
	known := a.target != ""
	if known {
		target = a.target
	} else if target, known, err = a.unlessQuarantined(target); err != nil || target == "" {
		return p, nil, err
	}
	bounded, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	reader, err := gitobj.NewReader(a.dir.Path)
	if err != nil {
		return p, nil, err
	}
	o, err := reader.Open(bounded, filepath.Join(a.Source, repoDir, "objects"))
	if err != nil {
		return p, nil, err
	}
	defer o.Close()
	w, err := a.readWant(bounded, o, reader, p, target, known)
	switch {
	case err == nil:
		return p, w, nil
	case ctx.Err() != nil:
		return p, nil, context.Cause(ctx) // a git that was stopped in mid-answer looks like damage
	case bounded.Err() != nil:
		err = fmt.Errorf("no answer within %v", readTimeout)
	case !errors.Is(err, gitobj.ErrMissing) && !errors.Is(err, gitobj.ErrCorrupt):
		return p, nil, err
	}
	return p, nil, sysexits.New(sysexits.Unavailable, "repository_corrupt", fmt.Errorf("%s: %w", filepath.Join(a.Source, repoDir), err)).
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
// quarantined, the last good one, so that drift is repaired meanwhile. known
// says that the commit was applied before.
func (a *apply) unlessQuarantined(target string) (commit string, known bool, err error) {
	q, err := readQuarantine(a.dir.Path)
	if err != nil || q.Commit != target {
		return target, false, err
	}
	a.env.Diag.Warn("quarantined", fmt.Sprintf("commit %s is not applied: %s", q.Commit, q.Reason),
		diag.Field{Key: "commit", Value: q.Commit}, diag.Field{Key: "since", Value: q.Since.Format(record.TimeFormat)})
	if a.ledger.Commit == q.Commit {
		return "", true, nil // repairing the host to it was unhealthy: to try again would break it at every run
	}
	return a.ledger.Commit, true, nil
}

// readWant checks signature and ancestry of a commit and reads what it wants.
// known says that it was applied before.
func (a *apply) readWant(ctx context.Context, o *gitobj.Store, reader gitobj.Reader, p pulled, target string, known bool) (*want, error) {
	c, err := p.readCommit(o, target, a.Path)
	if err != nil {
		return nil, err
	}
	if err := a.signers.verify(ctx, reader, c); err != nil {
		return nil, err
	}
	if !known {
		if err := checkAnchor(o, a.ledger.Anchor, p.anchor, a.AllowRewind); err != nil {
			return nil, err
		}
	}
	return readWant(o, c, a.ScriptsDir)
}

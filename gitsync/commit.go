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

// readTimeout limits the time to read a commit. The source belongs to another
// user, who can put a pipe where git expects a file.
const readTimeout = 2 * time.Minute

// openObjects opens the objects of a repository. state is the state directory of this
// process, which holds its lock. The caller must close the store.
func openObjects(ctx context.Context, state, repo string) (gitobj.Reader, *gitobj.Store, error) {
	reader, err := gitobj.NewReader(state)
	if err != nil {
		return reader, nil, err
	}
	o, err := reader.Open(ctx, filepath.Join(repo, "objects"))
	return reader, o, err
}

// readCommit reads what the commit to apply wants. It repeats the checks of pull
// and does not trust pull's result. The want is nil if there is nothing to apply.
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
	reader, o, err := openObjects(bounded, a.dir.Path, filepath.Join(a.Source, repoDir))
	if err != nil {
		return p, nil, err
	}
	defer o.Close()
	w, err := a.readWant(bounded, o, reader, p, target, known)
	switch {
	case err == nil:
		return p, w, nil
	case ctx.Err() != nil:
		return p, nil, context.Cause(ctx) // the answer of a git that was killed looks like damage
	case bounded.Err() != nil:
		err = fmt.Errorf("git did not answer within %v", readTimeout)
	case !errors.Is(err, gitobj.ErrMissing) && !errors.Is(err, gitobj.ErrCorrupt):
		return p, nil, err
	}
	return p, nil, sysexits.New(sysexits.Unavailable, "repository_corrupt", fmt.Errorf("%s: %w", filepath.Join(a.Source, repoDir), err)).
		WithHint("gitsync pull checks the repository every few hours and clones it again if it is damaged; to repair it at once, remove " + filepath.Join(a.Source, pulledFile) + " and run gitsync pull, or systemctl start gitops-sync.service")
}

// anchor returns the branch and commit that this run is about. It takes the
// branch from its own flags if they are given, because the source may lie.
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

// unlessQuarantined returns the commit to apply. If the pulled commit is
// quarantined, this is the last good commit, which repairs drift in the meantime.
// known says that the commit was applied before.
func (a *apply) unlessQuarantined(target string) (commit string, known bool, err error) {
	q, err := readQuarantine(a.dir.Path)
	if err != nil || q.Commit != target {
		return target, false, err
	}
	a.env.Diag.Warn("quarantined", fmt.Sprintf("commit %s is not applied: %s", q.Commit, q.Reason),
		diag.Field{Key: "commit", Value: q.Commit}, diag.Field{Key: "since", Value: q.Since.Format(record.TimeFormat)})
	if a.ledger.Commit == q.Commit {
		return "", true, nil // repairing drift from this commit was unhealthy; another try would break the host at every run
	}
	return a.ledger.Commit, true, nil
}

// readWant checks the signature and the ancestry of a commit and reads what the
// commit wants. It does not check the ancestry of a known commit, which is one that
// was applied before.
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

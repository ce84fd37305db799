package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"observability-hub/gitsync/internal/gitobj"
	"observability-hub/lib/cli"
	"observability-hub/lib/record"
	"observability-hub/lib/statedir"
	"observability-hub/lib/sysexits"
)

// pulled is what the last successful pull found: the wish that apply reads.
// The time of the file is that of the last pull, also of one with nothing new.
type pulled struct {
	anchor
	FullRef string    `json:"full_ref"` // what Ref turned out to be on the remote
	Tip     string    `json:"tip"`      // what that points to: the commit, or a tag
	Time    time.Time `json:"time"`     // when Commit was found
	Checked time.Time `json:"checked"`  // when all its objects were last read
}

const pulledFile = "pulled.json"

// recheckAfter is how often a pull with nothing new reads the objects again,
// so that a repository that rots is mended before it is needed.
const recheckAfter = 6 * time.Hour

func readPulled(source string) (pulled, error) {
	var p pulled
	if err := readState(source, pulledFile, &p); err != nil {
		return p, err
	}
	if p.Commit != "" && !gitobj.IsHash(p.Commit) {
		return p, sysexits.New(sysexits.DataErr, "commit_refused", fmt.Errorf("%s: commit %q is not a hash", filepath.Join(source, pulledFile), p.Commit))
	}
	return p, nil
}

type pullCmd struct {
	stateFlags
	originFlags
	pullFlags
}

// Validate is kong's check after parsing.
func (c *pullCmd) Validate() error { return validate(c.originFlags, c.pullFlags) }

func (c *pullCmd) Run(ctx context.Context, env *cli.Env) error {
	return cli.Interruptible(ctx, func(ctx context.Context) error {
		dir, err := c.open(ctx, timerWait)
		if err != nil {
			return err
		}
		defer dir.Close()
		return (&pull{env, dir, c.originFlags, c.pullFlags}).run(ctx)
	})
}

// pull is one pull under the lock of its state directory.
type pull struct {
	env *cli.Env
	dir *statedir.Dir
	originFlags
	pullFlags
}

func (p *pull) run(ctx context.Context) error {
	began := time.Now()
	if p.Repo == "" {
		return sysexits.New(sysexits.Config, "no_repository", errors.New("no repository is configured")).
			WithHint("give --repo or GITSYNC_REPO; the units read theirs from /etc/observability-hub/gitops-sync.env")
	}
	url, err := remoteURL(p.Repo)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, p.Timeout)
	defer cancel()
	was, err := readPulled(p.dir.Path)
	if err != nil {
		p.env.Diag.Warn("state_unreadable", err.Error()+"; pulling anew")
		was = pulled{}
	}
	repo, err := openRepository(p.dir.Path, p.env.Diag)
	if err != nil {
		return err
	}
	now := pulled{anchor: anchor{Repo: url, Ref: p.Ref}}
	if was.Repo == url && was.Ref == p.Ref {
		now.FullRef = was.FullRef
	}
	err = p.fetch(ctx, repo, &now)
	if err == nil {
		err = p.check(ctx, repo, was, &now)
	}
	if err != nil && repo.corrupt(ctx, err) {
		err = repo.replace(func(fresh *repository) error {
			if err := p.fetch(ctx, fresh, &now); err != nil {
				return err
			}
			return p.check(ctx, fresh, pulled{anchor: was.anchor}, &now)
		})
	}
	if err != nil {
		// Not only at the next run: half a pack can be all the room there is.
		return errors.Join(p.explain(ctx, err), repo.clearLocks())
	}
	return p.finish(ctx, repo, was, now, began)
}

// fetch brings the ref and notes its tip.
func (p *pull) fetch(ctx context.Context, repo *repository, now *pulled) error {
	if gitobj.IsHash(p.Ref) {
		if err := repo.fetchHash(ctx, now.Repo, p.Ref); err != nil {
			return err
		}
		now.FullRef, now.Tip = p.Ref, p.Ref
		return nil
	}
	known := now.FullRef
	if known != "" {
		err := repo.fetch(ctx, now.Repo, "+"+known+":"+fetchedRef)
		if err == nil {
			now.Tip, err = repo.tip()
			return err
		}
		if !said(err, "couldn't find remote ref") {
			return err
		}
	}
	full, err := repo.remoteRef(ctx, now.Repo, p.Ref)
	if err != nil {
		return err
	}
	if err := repo.fetch(ctx, now.Repo, "+"+full+":"+fetchedRef); err != nil {
		return err
	}
	now.FullRef = full
	now.Tip, err = repo.tip()
	return err
}

// check decides whether the fetched commit is taken: it must descend from the
// one before, be signed if that is asked for, and want nothing that cannot be.
func (p *pull) check(ctx context.Context, repo *repository, was pulled, now *pulled) error {
	unchanged := now.Repo == was.Repo && now.Ref == was.Ref && now.Tip == was.Tip
	if unchanged && time.Since(was.Checked) < recheckAfter && !p.signers.wanted() && p.published(was.Commit) {
		now.Commit, now.Time, now.Checked = was.Commit, was.Time, was.Checked
		return nil
	}
	reader, err := gitobj.NewReader(p.dir.Path)
	if err != nil {
		return err
	}
	o, err := reader.Open(ctx, filepath.Join(repo.dir, "objects"))
	if err != nil {
		return err
	}
	defer o.Close()
	c, err := o.Peel(now.Tip)
	if err != nil {
		return err
	}
	now.Commit, now.Time, now.Checked = c.ID, time.Now().UTC(), time.Now().UTC()
	if unchanged {
		now.Time = was.Time
	}
	if err := p.signers.verify(ctx, reader, c); err != nil {
		return err
	}
	if err := checkAnchor(o, was.anchor, now.anchor, p.AllowRewind); err != nil {
		return err
	}
	if _, err := readDesired(o, c, "/usr/local/bin"); err != nil {
		return err
	}
	if p.Publish != "" {
		return publish(o, c, p.Publish, p.KeepTrees)
	}
	return nil
}

// checkAnchor refuses a commit that does not descend from the one taken last
// from the same ref of the same repository. An old commit is still signed, but
// it is not what the branch was last seen to be.
func checkAnchor(o *gitobj.Store, was, now anchor, allowRewind bool) error {
	if was.Commit == "" || was.Repo != now.Repo || was.Ref != now.Ref || allowRewind {
		return nil
	}
	forward, err := o.Descends(now.Commit, was.Commit)
	if err != nil {
		return err
	}
	if !forward {
		return sysexits.New(sysexits.DataErr, "rewind_refused", fmt.Errorf("%s %s went from %s to %s, which does not descend from it", displayURL(now.Repo), now.Ref, was.Commit, now.Commit)).
			WithHint("if the branch was rewritten on purpose, run once with --allow-rewind")
	}
	return nil
}

// published reports whether the tree of a commit is where it is wanted.
func (p *pull) published(commit string) bool {
	if p.Publish == "" {
		return true
	}
	target, err := os.Readlink(filepath.Join(p.Publish, currentLink))
	if err != nil || target != commit {
		return false
	}
	info, err := os.Stat(publishedTree(p.Publish, commit))
	return err == nil && info.IsDir()
}

// finish writes down what was found and prints it.
func (p *pull) finish(ctx context.Context, repo *repository, was, now pulled, began time.Time) error {
	changed := now.anchor != was.anchor
	if changed || now.Checked != was.Checked || now.FullRef != was.FullRef || now.Tip != was.Tip {
		step("pulled")
		if err := writeState(p.dir, pulledFile, now); err != nil {
			return err
		}
		step("pulled")
		if changed {
			repo.keep(ctx, now.Commit)
		}
	} else if err := os.Chtimes(p.dir.Join(pulledFile), began, began); err != nil {
		return statedir.Unwritable(err)
	}
	l := record.New(time.Now(), record.Info, "pulled", p.env.Service)
	l.String("repo", displayURL(now.Repo))
	l.String("ref", now.Ref)
	l.String("commit", now.Commit)
	if was.Commit != "" {
		l.String("previous", was.Commit)
	} else {
		l.Null("previous")
	}
	l.Bool("changed", changed)
	l.Bool("verified", p.signers.wanted())
	if p.Publish != "" {
		l.String("tree", publishedTree(p.Publish, now.Commit))
	}
	l.Float("duration_s", time.Since(began).Seconds())
	return p.env.Stdout.Record(record.Info, l.End())
}

// explain gives a failure its exit status: what git could not do with the
// remote is the remote's, unless it says otherwise.
func (p *pull) explain(ctx context.Context, err error) error {
	if _, ok := errors.AsType[*sysexits.Error](err); ok {
		return err
	}
	failed, ok := errors.AsType[*gitError](err)
	switch {
	case diskFull(err):
		return statedir.Unwritable(err)
	case errors.Is(context.Cause(ctx), context.DeadlineExceeded):
		return sysexits.New(sysexits.Unavailable, "remote_unavailable", fmt.Errorf("pull from %s: no end within %v: %w", displayURL(p.Repo), p.Timeout, err)).
			WithHint("give a large first clone more time with --timeout; the next run begins anew")
	case ctx.Err() != nil || !ok:
		return err
	}
	if said(err, "couldn't find remote ref") {
		return sysexits.New(sysexits.Config, "no_such_ref", fmt.Errorf("%s has no %q", displayURL(p.Repo), p.Ref)).
			WithHint("give --ref a branch, a tag, a full ref name or a commit")
	}
	if said(err, "mismatched algorithms") {
		return sysexits.New(sysexits.DataErr, "commit_refused", fmt.Errorf("%s names its objects by SHA-256; gitsync reads SHA-1 repositories only", displayURL(p.Repo))).
			WithHint("make the repository anew with git init --object-format=sha1, and push to that")
	}
	if failed.command != "fetch" && failed.command != "ls-remote" {
		return err
	}
	hint := "the host is unchanged; the next run tries again"
	for _, denied := range []string{"Permission denied", "Authentication failed", "could not read Username", "Host key verification failed", "terminal prompts disabled"} {
		if said(err, denied) {
			hint = "give the unit a deploy key and its known_hosts: LoadCredential= in gitsync(1), CREDENTIALS"
		}
	}
	if said(err, "dubious ownership") {
		hint = "git reads no other user's repository: give it to the user of this run (chown -R), or git config --system --add safe.directory with the folder that git names"
	}
	if said(err, "HOST IDENTIFICATION HAS CHANGED") {
		hint = "the server's key is not the one in known_hosts: ask who runs it before you replace that"
	}
	return sysexits.New(sysexits.Unavailable, "remote_unavailable", fmt.Errorf("pull from %s: %w", displayURL(p.Repo), err)).WithHint(hint)
}

// remoteURL makes a local path absolute: git runs in another folder.
func remoteURL(repo string) (string, error) {
	if strings.Contains(repo, "://") || filepath.IsAbs(repo) {
		return repo, nil
	}
	// host:path is ssh, unless a slash comes first (git-fetch(1), GIT URLS).
	if before, _, ok := strings.Cut(repo, ":"); ok && !strings.Contains(before, "/") {
		return repo, nil
	}
	return filepath.Abs(repo)
}

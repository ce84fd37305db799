package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
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
	Path    string    `json:"path,omitempty"` // --path: the part of the repository that is meant
	FullRef string    `json:"full_ref"`       // what Ref turned out to be on the remote
	Tip     string    `json:"tip"`            // what that points to: the commit, or a tag
	Time    time.Time `json:"time"`           // when Commit was found
	Checked time.Time `json:"checked"`        // when all its objects were last read

	secret bool // the file holds a URL with a user or password, as older ones may
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
	if err := checkPart(p.Path); err != nil {
		return p, sysexits.New(sysexits.DataErr, "commit_refused", fmt.Errorf("%s: %w", filepath.Join(source, pulledFile), err))
	}
	bare := bareURL(p.Repo)
	p.secret, p.Repo = bare != p.Repo, bare
	return p, nil
}

// readCommit returns a commit as it is to be deployed: with the part of the
// repository that --path names as its tree. pull has written that part down, so
// that apply follows it without a flag; an apply with a flag for another part
// fails.
func (p pulled) readCommit(o *gitobj.Store, id, flag string) (*gitobj.Commit, error) {
	if part := cleanPart(flag); part != "" && part != p.Path {
		return nil, sysexits.New(sysexits.Config, "nothing_pulled", fmt.Errorf("--path is %q, and what is pulled is for %q", part, p.Path)).
			WithHint("run gitsync pull with that --path first; under the units, systemctl start gitops-sync.service")
	}
	c, err := o.Commit(id)
	if err != nil {
		return nil, err
	}
	return o.At(c, p.Path)
}

// nothingPulled says that a source holds nothing to apply.
func nothingPulled(source string) error {
	return sysexits.New(sysexits.Config, "nothing_pulled", fmt.Errorf("%s holds no pulled commit", source)).
		WithHint("run gitsync pull first, or give --source its state directory; under the units, systemctl start gitops-sync.service. If the pull fails: journalctl -u gitops-sync.service -p err -n 5")
}

// agree fails if the flags name another repository than the one that was
// pulled: the configuration has changed, and no pull has succeeded since.
func (p pulled) agree(f originFlags) error {
	if f.Repo == "" || p.Commit == "" {
		return nil
	}
	url, err := remoteURL(f.Repo)
	if err != nil || url == p.Repo {
		return err
	}
	return sysexits.New(sysexits.Config, "nothing_pulled", fmt.Errorf("what is pulled is of %s, not of %s", displayURL(p.Repo), displayURL(url))).
		WithHint("run gitsync pull first; under the units, systemctl start gitops-sync.service. If the pull fails: journalctl -u gitops-sync.service -p err -n 5")
}

type pullCmd struct {
	stateFlags
	originFlags
	pullFlags
}

func (c *pullCmd) Validate() error { return validate(c.originFlags, c.pullFlags) }

func (c *pullCmd) Run(ctx context.Context, env *cli.Env) error {
	dir, err := c.openSource(ctx, timerWait)
	if err != nil {
		return err
	}
	defer dir.Close()
	return (&pull{env, dir, c.originFlags, c.pullFlags}).run(ctx)
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
	ctx, cancel := context.WithTimeout(ctx, p.Timeout)
	defer cancel()
	was, err := readPulled(p.dir.Path)
	if err != nil {
		p.env.Diag.Warn("state_unreadable", err.Error()+"; pulling anew")
		was = pulled{}
	}
	repo, err := openRepository(p.dir, p.env.Diag)
	if err != nil {
		return err
	}
	url, err := remoteURL(p.Repo)
	if err != nil {
		return err
	}
	c, err := findCredentials(repo.as, "/run")
	defer c.remove()
	if err != nil {
		return sysexits.New(sysexits.CantCreate, "state_unwritable", err).WithHint("root gives the owner of the state directory a copy of /etc/credstore there")
	}
	from, env, err := repo.open(ctx, p.Repo, c)
	if err != nil {
		return p.explain(ctx, err)
	}
	repo.env = append(repo.user, env...)
	now := pulled{anchor: anchor{Repo: url, Ref: p.Ref}, Path: p.part()}
	if was.Repo == url && was.Ref == p.Ref {
		now.FullRef = was.FullRef
	}
	err = p.fetch(ctx, repo, from.url, &now)
	if err == nil {
		err = p.check(ctx, repo, was, &now)
	}
	if err != nil && repo.corrupt(ctx, err) {
		err = repo.replace(func(fresh *repository) error {
			if err := p.fetch(ctx, fresh, from.url, &now); err != nil {
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
func (p *pull) fetch(ctx context.Context, repo *repository, url string, now *pulled) (err error) {
	if gitobj.IsHash(p.Ref) {
		now.FullRef, now.Tip = p.Ref, p.Ref
		return repo.followHash(ctx, url, p.Ref)
	}
	now.FullRef, now.Tip, err = repo.follow(ctx, url, p.Ref, now.FullRef)
	return err
}

// check decides whether the fetched commit is taken: it must descend from the
// one before, be signed if that is asked for, and want nothing that cannot be.
func (p *pull) check(ctx context.Context, repo *repository, was pulled, now *pulled) error {
	unchanged := now.Repo == was.Repo && now.Ref == was.Ref && now.Path == was.Path && now.Tip == was.Tip
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
	if c, err = o.At(c, p.part()); err != nil {
		return err
	}
	d, err := readWant(o, c, "/usr/local/bin")
	if err != nil || p.Publish == "" {
		return err
	}
	return publisher{o, p.Publish, p.KeepTrees, slices.Compact([]string{p.part(), was.Path, ""}), was.Commit != "" && was.Path != p.part(), p.env.Diag}.publish(c, d.rules)
}

// rewindHint is true for both halves, under the units and by hand.
const rewindHint = "if the branch was rewritten on purpose: under the units add GITSYNC_ALLOW_REWIND=true to /etc/observability-hub/gitops-sync.env, " +
	"run systemctl start gitops-sync.service, wait for gitops-apply.service, and remove the line; by hand run the same command once with --allow-rewind"

// checkAnchor refuses a commit that does not descend from the one taken last
// from the same ref of the same repository. An old commit is still signed, but
// it is not what the branch was last seen to be.
func checkAnchor(o *gitobj.Store, was, now anchor, allowRewind bool) error {
	if was.Commit == "" || bareURL(was.Repo) != bareURL(now.Repo) || was.Ref != now.Ref || allowRewind {
		return nil
	}
	forward, err := o.Descends(now.Commit, was.Commit)
	if err != nil {
		return err
	}
	if !forward {
		return sysexits.New(sysexits.DataErr, "rewind_refused", fmt.Errorf("%s %s went from %s to %s, which does not descend from it", displayURL(now.Repo), now.Ref, was.Commit, now.Commit)).
			WithHint(rewindHint)
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
	changed := now.anchor != was.anchor || now.Path != was.Path
	if changed || was.secret || now.Checked != was.Checked || now.FullRef != was.FullRef || now.Tip != was.Tip {
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
	if now.Path != "" {
		l.String("path", now.Path)
	}
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
			WithHint("give --ref a branch, a tag, a full ref name or a whole commit hash")
	}
	if said(err, "mismatched algorithms") {
		return sha256Refused(p.Repo)
	}
	if failed.command != "fetch" && failed.command != "ls-remote" {
		return err
	}
	return sysexits.New(sysexits.Unavailable, "remote_unavailable", fmt.Errorf("pull from %s: %w", displayURL(p.Repo), err)).WithHint(remoteHint(p.Repo, failed.said))
}

// Hints for a remote that does not take the credentials.
const (
	tokenHint = "give it a token that may read the repository: under the units a line https://USER:TOKEN@HOST in /etc/credstore/git_credentials; by hand in a credential helper of git or in ~/.netrc"
	keyHint   = "give it a key that may read the repository and the server's host key: under the units the files deploy_key and known_hosts in /etc/credstore; by hand in ~/.ssh"
)

// remoteHint says what to do about a git that could not talk to the remote.
func remoteHint(repo, said string) string {
	any := func(words ...string) bool {
		return slices.ContainsFunc(words, func(w string) bool { return strings.Contains(said, w) })
	}
	switch {
	case any("HOST IDENTIFICATION HAS CHANGED"):
		return "the server's key is not the one in known_hosts: ask its administrator before you replace that"
	case any("dubious ownership"):
		return "git does not read another user's repository: give it to the user of this run (chown -R), or git config --system --add safe.directory with the directory that git names"
	case any("Authentication failed", "could not read Username", "could not read Password", "terminal prompts disabled", "returned error: 401", "returned error: 403"):
		return tokenHint
	case any("Permission denied", "Host key verification failed", "Load key"):
		if strings.Contains(repo, "://") && strings.HasPrefix(strings.ToLower(repo), "http") {
			return tokenHint
		}
		return keyHint
	case any("does not appear to be a git repository", "not found", "does not exist"):
		return "check --repo: the server has no repository of that name, or hides it from a user who may not read it"
	}
	return "the host is unchanged; the next run tries again"
}

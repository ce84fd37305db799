package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"

	"observability-hub/gitsync/internal/gitobj"
	"observability-hub/lib/cli"
	"observability-hub/lib/record"
	"observability-hub/lib/statedir"
	"observability-hub/lib/sysexits"
)

// pulled is what the last successful pull found. apply reads it. The time of the
// file is that of the last successful pull, even if that pull found nothing new.
type pulled struct {
	anchor
	Path    string    `json:"path,omitempty"` // --path: the directory of the repository to deploy
	FullRef string    `json:"full_ref"`       // the full name of Ref on the remote
	Tip     string    `json:"tip"`            // the object that FullRef points to: the commit, or a tag
	Time    time.Time `json:"time"`           // when Commit was found
	Checked time.Time `json:"checked"`        // when the objects of Commit were last read
	Waiting *waiting  `json:"waiting,omitempty"`

	secret bool // the file contains a URL with a user or password, as files of older versions may
}

const pulledFile = "pulled.json"

// recheckAfter is how long a pull that finds nothing new relies on the last check
// of the objects. Reading them again finds and repairs damage before the objects
// are needed.
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
	if p.Waiting != nil && !gitobj.IsHash(p.Waiting.Commit) {
		p.Waiting = nil // the next pull begins the wait again
	}
	if w := p.Waiting; w != nil {
		// Root prints these names, and the owner of the file is another user.
		w.BadOn = slices.DeleteFunc(w.BadOn, func(name string) bool { return name == "" || checkHost(name) != nil })
		w.BadOn = w.BadOn[:min(len(w.BadOn), maxNamed)]
	}
	return p, nil
}

// readCommit returns a commit with the tree to deploy: the directory that --path
// names. apply takes that directory from what pull recorded and needs no flag.
// An apply whose flag names another directory fails.
func (p pulled) readCommit(o *gitobj.Store, id, flag string) (*gitobj.Commit, error) {
	if part := cleanPart(flag); part != "" && part != p.Path {
		return nil, sysexits.New(sysexits.Config, "nothing_pulled", fmt.Errorf("--path is %q, but the last pull was for --path %q", part, p.Path)).
			WithHint("run gitsync pull with this --path first; under the units, systemctl start gitops-sync.service")
	}
	c, err := o.Commit(id)
	if err != nil {
		return nil, err
	}
	return o.At(c, p.Path)
}

// nothingPulled returns the error for a source that contains no pulled commit.
func nothingPulled(source string) error {
	return sysexits.New(sysexits.Config, "nothing_pulled", fmt.Errorf("%s holds no pulled commit", source)).
		WithHint("run gitsync pull first, or set --source to its state directory; under the units, systemctl start gitops-sync.service. If the pull fails: journalctl -u gitops-sync.service -p err -n 5")
}

// agree fails if the flags name a repository that was not the one pulled: the
// configuration has changed, and no pull has succeeded since.
func (p pulled) agree(f originFlags) error {
	if f.Repo == "" || p.Commit == "" {
		return nil
	}
	url, err := remoteURL(f.Repo)
	if err != nil || url == p.Repo {
		return err
	}
	return sysexits.New(sysexits.Config, "nothing_pulled", fmt.Errorf("the pulled commit is from %s, not from %s", displayURL(p.Repo), displayURL(url))).
		WithHint("run gitsync pull first; under the units, systemctl start gitops-sync.service. If the pull fails: journalctl -u gitops-sync.service -p err -n 5")
}

type pullCmd struct {
	stateFlags
	originFlags
	pullFlags
	rolloutFlags
}

func (c *pullCmd) Validate() error { return validate(c.originFlags, c.pullFlags, c.rolloutFlags) }

func (c *pullCmd) Run(ctx context.Context, env *cli.Env) error {
	dir, err := c.openSource(ctx, timerWait)
	if err != nil {
		return err
	}
	defer dir.Close()
	return (&pull{env, dir, c.originFlags, c.pullFlags, c.rolloutFlags}).run(ctx)
}

// pull is one run of pull, which holds the lock of its state directory.
type pull struct {
	env *cli.Env
	dir *statedir.Dir
	originFlags
	pullFlags
	rolloutFlags
}

func (p *pull) run(ctx context.Context) error {
	began := time.Now()
	if p.Repo == "" {
		return sysexits.New(sysexits.Config, "no_repository", errors.New("no repository is configured")).
			WithHint("set --repo or GITSYNC_REPO; the units read GITSYNC_REPO from /etc/observability-hub/gitops-sync.env")
	}
	ctx, cancel := context.WithTimeout(ctx, p.Timeout)
	defer cancel()
	was, err := readPulled(p.dir.Path)
	if errors.Is(err, fs.ErrPermission) {
		return err
	}
	if err != nil {
		p.env.Diag.Warn("state_unreadable", err.Error()+"; this pull replaces the file")
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
	c, err := findCredentials(repo.as, pullKeys, p.dir.Path, "/run")
	defer c.remove()
	if err != nil {
		return err
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
		err = p.check(ctx, repo, from.url, was, &now)
	}
	if err != nil && repo.corrupt(ctx, err) {
		err = repo.replace(func(fresh *repository) error {
			if err := p.fetch(ctx, fresh, from.url, &now); err != nil {
				return err
			}
			again := was
			again.Checked = time.Time{} // read the objects of the new repository
			if was.Waiting != nil {
				first := *was.Waiting
				first.Commit, again.Waiting = "", &first
			}
			return p.check(ctx, fresh, from.url, again, &now)
		})
	}
	if err != nil {
		// Remove what a failed fetch left now, not at the next run: half a pack can
		// fill the file system.
		return errors.Join(p.explain(ctx, err), repo.clearLocks())
	}
	return p.finish(ctx, repo, was, now, began)
}

// fetch fetches the ref and stores its full name and its tip in now.
func (p *pull) fetch(ctx context.Context, repo *repository, url string, now *pulled) (err error) {
	if gitobj.IsHash(p.Ref) {
		now.FullRef, now.Tip = p.Ref, p.Ref
		return repo.followHash(ctx, url, p.Ref)
	}
	now.FullRef, now.Tip, err = repo.follow(ctx, url, p.Ref, now.FullRef)
	return err
}

// check accepts the fetched commit if examine does and if the turn of this host has
// come, and publishes its tree.
func (p *pull) check(ctx context.Context, repo *repository, url string, was pulled, now *pulled) error {
	if err := p.postpone(ctx, repo, url, was, now); err != nil {
		return err
	}
	unchanged := now.Repo == was.Repo && now.Ref == was.Ref && now.Path == was.Path && now.Tip == was.Tip
	if unchanged && time.Since(was.Checked) < recheckAfter && !p.signers.wanted() && p.published(was.Commit) {
		now.Commit, now.Time, now.Checked = was.Commit, was.Time, was.Checked
		return nil
	}
	reader, o, err := openObjects(ctx, p.dir.Path, repo.dir)
	if err != nil {
		return err
	}
	defer o.Close()
	c, d, err := p.examine(ctx, o, reader, was, *now)
	if err != nil {
		return err
	}
	now.Commit, now.Time, now.Checked = c.ID, time.Now().UTC(), time.Now().UTC()
	if unchanged {
		now.Time = was.Time
	}
	if p.Publish == "" {
		return nil
	}
	return publisher{o, p.Publish, p.KeepTrees, slices.Compact([]string{p.part(), was.Path, ""}), was.Commit != "" && was.Path != p.part(), p.env.Diag}.publish(c, d.rules)
}

// examine returns the commit that now.Tip names, with what it wants. The commit must
// descend from the one before, it must be signed if the flags require that, and
// everything that it wants must be deployable.
func (p *pull) examine(ctx context.Context, o *gitobj.Store, reader gitobj.Reader, was, now pulled) (*gitobj.Commit, *want, error) {
	c, err := o.Peel(now.Tip)
	if err != nil {
		return nil, nil, err
	}
	if err := p.signers.verify(ctx, reader, c); err != nil {
		return nil, nil, err
	}
	now.Commit = c.ID
	if err := checkAnchor(o, was.anchor, now.anchor, p.AllowRewind); err != nil {
		return nil, nil, err
	}
	if c, err = o.At(c, p.part()); err != nil {
		return nil, nil, err
	}
	d, err := readWant(o, c, "/usr/local/bin")
	return c, d, err
}

// rewindHint is the hint of pull and of apply, under the units and by hand.
const rewindHint = "if the branch was rewritten on purpose: under the units add GITSYNC_ALLOW_REWIND=true to /etc/observability-hub/gitops-sync.env, " +
	"run systemctl start gitops-sync.service, wait for gitops-apply.service, and remove the line; by hand run the same command once with --allow-rewind"

// checkAnchor refuses a commit that does not descend from the commit that was
// last accepted from the same ref of the same repository. The signature of an old
// commit stays good, so a signature does not protect from going back to it.
func checkAnchor(o *gitobj.Store, was, now anchor, allowRewind bool) error {
	if was.Commit == "" || bareURL(was.Repo) != bareURL(now.Repo) || was.Ref != now.Ref || allowRewind {
		return nil
	}
	forward, err := o.Descends(now.Commit, was.Commit)
	if err != nil {
		return err
	}
	if !forward {
		return sysexits.New(sysexits.DataErr, "rewind_refused", fmt.Errorf("%s %s moved from %s to %s, which does not descend from it", displayURL(now.Repo), now.Ref, was.Commit, now.Commit)).
			WithHint(rewindHint)
	}
	return nil
}

// published reports whether current points to the tree of a commit and the tree
// exists. It is true if no tree is wanted.
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

// finish records what the pull found, and prints it.
func (p *pull) finish(ctx context.Context, repo *repository, was, now pulled, began time.Time) error {
	changed := now.anchor != was.anchor || now.Path != was.Path
	if changed || was.secret || now.Checked != was.Checked || now.FullRef != was.FullRef || now.Tip != was.Tip || !reflect.DeepEqual(now.Waiting, was.Waiting) {
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
	if w := now.Waiting; w != nil {
		w.record(l)
	}
	l.Bool("verified", p.signers.wanted())
	if p.Publish != "" {
		l.String("tree", publishedTree(p.Publish, now.Commit))
	}
	l.Float("duration_s", time.Since(began).Seconds())
	return p.env.Stdout.Record(record.Info, l.End())
}

// explain gives an error its exit status. A failure of git fetch or git ls-remote
// counts as one of the remote unless git's message says otherwise.
func (p *pull) explain(ctx context.Context, err error) error {
	if _, ok := errors.AsType[*sysexits.Error](err); ok {
		return err
	}
	failed, ok := errors.AsType[*gitError](err)
	switch {
	case diskFull(err):
		return statedir.Unwritable(err)
	case errors.Is(context.Cause(ctx), context.DeadlineExceeded):
		return sysexits.New(sysexits.Unavailable, "remote_unavailable", fmt.Errorf("pull from %s: not finished within %v: %w", displayURL(p.Repo), p.Timeout, err)).
			WithHint("if this is the first clone of a large repository, set a longer --timeout; the next run starts over")
	case ctx.Err() != nil || !ok:
		return err
	}
	if said(err, "couldn't find remote ref") {
		return sysexits.New(sysexits.Config, "no_such_ref", fmt.Errorf("%s has no ref %q", displayURL(p.Repo), p.Ref)).
			WithHint(refHint)
	}
	if said(err, "mismatched algorithms") {
		return sha256Refused(p.Repo)
	}
	if failed.command != "fetch" && failed.command != "ls-remote" {
		return err
	}
	return sysexits.New(sysexits.Unavailable, "remote_unavailable", fmt.Errorf("pull from %s: %w", displayURL(p.Repo), err)).WithHint(remoteHint(p.Repo, failed.said))
}

// Hints for a remote that does not accept the credentials.
const (
	tokenHint = "provide a token that may read the repository: under the units, as a line https://USER:TOKEN@HOST in /etc/credstore/git_credentials; by hand, in a credential helper of git or in ~/.netrc"
	keyHint   = "provide an SSH key that may read the repository, and the server's host key: under the units, as the files deploy_key and known_hosts in /etc/credstore; by hand, in ~/.ssh"
)

// refHint is the hint for a ref that the repository does not have.
const refHint = "set --ref to a branch, a tag, a full ref name or a full commit hash"

// remoteHint returns the hint for a git that could not use the remote.
func remoteHint(repo, said string) string {
	any := func(words ...string) bool {
		return slices.ContainsFunc(words, func(w string) bool { return strings.Contains(said, w) })
	}
	switch {
	case any("HOST IDENTIFICATION HAS CHANGED"):
		return "the server's host key is not the one in known_hosts: ask the server's administrator before you replace it"
	case any("dubious ownership"):
		return "git does not read a repository that belongs to another user: make the user of this run its owner (chown -R), or run git config --system --add safe.directory with the directory that git names"
	case any("Authentication failed", "could not read Username", "could not read Password", "terminal prompts disabled", "returned error: 401", "returned error: 403"):
		return tokenHint
	case any("Permission denied", "Host key verification failed", "Load key"):
		if strings.Contains(repo, "://") && strings.HasPrefix(strings.ToLower(repo), "http") {
			return tokenHint
		}
		return keyHint
	case any("does not appear to be a git repository", "not found", "does not exist"):
		return "check --repo: the server has no repository of that name, or hides it from users who may not read it"
	}
	return "the host is unchanged; the next run tries again"
}

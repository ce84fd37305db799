package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"observability-hub/gitsync/internal/gitobj"
	"observability-hub/lib/diag"
	"observability-hub/lib/statedir"
	"observability-hub/lib/sysexits"
)

// repository is the bare repository that pull fetches into: full history, so
// that a fast-forward can be told from a rewritten branch.
type repository struct {
	git
	state string
	Diag  *diag.Logger
}

const (
	repoDir = "repo.git"     // in the state directory
	newDir  = "repo.git.new" // a clone that is not whole yet
	oldDir  = "repo.git.old" // the corrupt repository that a clone has replaced

	fetchedRef  = "refs/gitsync/fetched"  // what the last fetch brought
	acceptedRef = "refs/gitsync/accepted" // what the last pull accepted; keeps it from gc
)

// bareConfig is the whole configuration of the repository. Nothing else is
// ever left there: a configuration can name programs that git then runs.
const bareConfig = "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = true\n"

const bareHead = "ref: refs/heads/gitsync\n"

// openRepository makes the repository in the state directory if it is
// missing, and puts in order what an interrupted run or a stranger left. The
// caller holds the lock of the state directory.
func openRepository(state string, diag *diag.Logger) (*repository, error) {
	r := &repository{git: git{dir: filepath.Join(state, repoDir), env: remoteEnv()}, state: state, Diag: diag}
	old := filepath.Join(state, oldDir)
	if _, err := os.Lstat(r.dir); errors.Is(err, fs.ErrNotExist) {
		// Killed between the two renames of a replacement.
		if err := os.Rename(old, r.dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, statedir.Unwritable(err)
		}
	}
	for _, left := range []string{old, filepath.Join(state, newDir)} {
		if err := os.RemoveAll(left); err != nil {
			return nil, statedir.Unwritable(err)
		}
	}
	return r, r.settle()
}

// settle gives the repository the files that it must have, and takes away
// what must not be there: hooks, configuration, stale lock files.
func (r *repository) settle() error {
	if info, err := os.Lstat(r.dir); err == nil && !info.IsDir() {
		if err := os.Remove(r.dir); err != nil {
			return statedir.Unwritable(err)
		}
	}
	for _, d := range []string{"objects/pack", "objects/info", "refs/heads"} {
		if err := os.MkdirAll(filepath.Join(r.dir, d), 0o700); err != nil {
			return statedir.Unwritable(err)
		}
	}
	for name, want := range map[string]string{"config": bareConfig, "HEAD": bareHead} {
		path := filepath.Join(r.dir, name)
		b, err := os.ReadFile(path)
		if err == nil && string(b) == want {
			continue
		}
		if err == nil {
			r.Diag.Warn("repository_settled", "the repository's "+name+" is not as gitsync wrote it: replaced", diag.Field{Key: "path", Value: path})
		}
		if err := replaceFile(path, want); err != nil {
			return statedir.Unwritable(err)
		}
	}
	for _, d := range []string{"hooks", "info/grafts", "info/attributes", "shallow", "config.worktree", "worktrees", "modules"} {
		if err := os.RemoveAll(filepath.Join(r.dir, d)); err != nil {
			return statedir.Unwritable(err)
		}
	}
	return r.clearLocks()
}

// replaceFile writes a small file of the repository by rename, so that a full
// disk leaves the old one.
func replaceFile(path, content string) error {
	tmp := path + ".gitsync"
	if err := os.WriteFile(tmp, []byte(content), 0o600); err != nil {
		os.Remove(tmp)
		return err
	}
	return os.Rename(tmp, path)
}

// clearLocks removes the lock files and half-written packs of a git that was
// killed. Under our own lock, and with git dying when gitsync does, nobody
// holds them.
func (r *repository) clearLocks() error {
	objects := filepath.Join(r.dir, "objects")
	return filepath.WalkDir(r.dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // a git that dies with its parent can take a moment
		}
		if err != nil {
			return fmt.Errorf("look for stale locks: %w", err)
		}
		name := d.Name()
		if d.IsDir() && filepath.Dir(path) == objects && name != "pack" && name != "info" {
			return fs.SkipDir // objects; there may be many
		}
		stale := strings.HasSuffix(name, ".lock") || strings.HasPrefix(name, "tmp_") || name == "gc.pid" || strings.HasSuffix(name, ".gitsync") ||
			strings.HasPrefix(name, "pack-") && !wholePack(path)
		if d.IsDir() || !stale {
			return nil
		}
		if strings.HasSuffix(name, ".lock") {
			r.Diag.Warn("stale_lock", "removed a lock file that a killed git left", diag.Field{Key: "path", Value: path})
		}
		if err := remove(path); err != nil {
			return statedir.Unwritable(err)
		}
		return nil
	})
}

// wholePack reports whether a file of a pack belongs to one that has both of
// its parts. A .keep is there while a fetch lasts: one that stays would keep gc
// away from the pack for ever.
func wholePack(path string) bool {
	base, ext := strings.TrimSuffix(path, filepath.Ext(path)), filepath.Ext(path)
	_, noPack := os.Lstat(base + ".pack")
	_, noIndex := os.Lstat(base + ".idx")
	return noPack == nil && noIndex == nil && ext != ".keep"
}

// fetch brings refspecs from the remote, in one conversation. git fetches again
// what it cannot read, says so, succeeds, and leaves the damage where it is.
func (r *repository) fetch(ctx context.Context, url string, refspecs ...string) error {
	args := []string{"fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--no-auto-maintenance", "--force", "--", url}
	_, said, err := r.listen(ctx, append(args, refspecs...)...)
	for line := range strings.Lines(said) {
		if err == nil && strings.HasPrefix(line, "error: ") && (strings.Contains(line, "index file") || strings.Contains(line, "pack")) {
			return fmt.Errorf("%s: %w: %s", r.dir, gitobj.ErrCorrupt, strings.TrimSpace(line))
		}
	}
	return err
}

// tip returns what fetchedRef points to, read from its file: a process less.
func (r *repository) tip() (string, error) {
	b, err := os.ReadFile(filepath.Join(r.dir, fetchedRef))
	if err == nil {
		if id := strings.TrimSpace(string(b)); gitobj.IsHash(id) {
			return id, nil
		}
	}
	packed, err := os.ReadFile(filepath.Join(r.dir, "packed-refs"))
	for line := range strings.Lines(string(packed)) {
		if id, name, _ := strings.Cut(strings.TrimSpace(line), " "); name == fetchedRef && gitobj.IsHash(id) {
			return id, nil
		}
	}
	return "", fmt.Errorf("%s: %s: no such ref after a fetch: %w", r.dir, fetchedRef, errors.Join(gitobj.ErrCorrupt, err))
}

// remoteRef finds what kind of ref a short name is. A branch wins over a tag
// of that name: who may push tags must not be able to put one before a branch.
func (r *repository) remoteRef(ctx context.Context, url, ref string) (string, error) {
	if strings.HasPrefix(ref, "refs/") || ref == "HEAD" {
		return ref, nil
	}
	out, err := r.run(ctx, "ls-remote", "--quiet", "--", url, "refs/heads/"+ref, "refs/tags/"+ref)
	if err != nil {
		return "", err
	}
	for _, kind := range []string{"refs/heads/", "refs/tags/"} {
		if strings.Contains(out, "\t"+kind+ref+"\n") {
			return kind + ref, nil
		}
	}
	return "", sysexits.New(sysexits.Config, "no_such_ref", fmt.Errorf("%s has no branch or tag %q", displayURL(url), ref)).
		WithHint("give --ref a branch, a tag, a full ref name or a commit")
}

// fetchHash brings a commit by its name. Servers may refuse to give what no
// ref points to; then all branches and tags are fetched to find it in them.
func (r *repository) fetchHash(ctx context.Context, url, id string) error {
	err := r.fetch(ctx, url, "+"+id+":"+fetchedRef)
	if err == nil || ctx.Err() != nil || !said(err, "not our ref") && !said(err, "unadvertised object") && !said(err, "not a valid object") {
		return err
	}
	if err := r.fetch(ctx, url, "+refs/heads/*:refs/gitsync/all/heads/*", "+refs/tags/*:refs/gitsync/all/tags/*"); err != nil {
		return err
	}
	if _, err := r.run(ctx, "update-ref", fetchedRef, id); err != nil {
		return sysexits.New(sysexits.Config, "no_such_ref", fmt.Errorf("%s has no commit %s in any branch or tag", displayURL(url), id)).
			WithHint("give --ref a branch, a tag, a full ref name or a commit")
	}
	return nil
}

// corruptWords are in git's messages when it cannot read its own repository,
// and sometimes when a connection broke; fsck then tells.
var corruptWords = []string{"corrupt", "bad object", "bad ref", "broken", "unable to read", "unable to find", "missing", "loose object",
	"packfile", "pack has", "index file", "index-pack", "unpack-objects", "not a git repository", "invalid sha1", "garbage", "did not send all", "reference broken", "unable to resolve", "cannot lock ref"}

// corrupt reports whether the repository itself is why err happened. A check
// that does not end in time proves nothing.
func (r *repository) corrupt(ctx context.Context, err error) bool {
	if ctx.Err() != nil {
		return false // a git that was ended in mid-answer looks like damage
	}
	if errors.Is(err, gitobj.ErrCorrupt) || errors.Is(err, gitobj.ErrMissing) {
		return true
	}
	failed, ok := errors.AsType[*gitError](err)
	if !ok {
		return false
	}
	suspect := false
	for _, word := range corruptWords {
		suspect = suspect || strings.Contains(strings.ToLower(failed.said), word)
	}
	if !suspect {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	_, err = r.run(ctx, "fsck", "--connectivity-only", "--no-dangling", "--no-progress")
	return err != nil && ctx.Err() == nil && !diskFull(err)
}

// replace fetches all anew into a repository beside this one, which stays
// until the new one is whole. fill is the fetch.
func (r *repository) replace(fill func(*repository) error) error {
	r.Diag.Warn("repository_replaced", "the local repository is damaged: cloning it again", diag.Field{Key: "path", Value: r.dir})
	fresh := &repository{git: git{dir: filepath.Join(r.state, newDir), env: r.env}, state: r.state, Diag: r.Diag}
	if err := os.RemoveAll(fresh.dir); err != nil {
		return statedir.Unwritable(err)
	}
	if err := fresh.settle(); err != nil {
		return err
	}
	if err := fill(fresh); err != nil {
		return errors.Join(err, os.RemoveAll(fresh.dir))
	}
	old := filepath.Join(r.state, oldDir)
	step("repository-replace")
	if err := os.Rename(r.dir, old); err != nil {
		return statedir.Unwritable(err)
	}
	step("repository-replace")
	if err := os.Rename(fresh.dir, r.dir); err != nil {
		return statedir.Unwritable(err)
	}
	return os.RemoveAll(old)
}

// keep protects an accepted commit from gc, and lets gc run if there is enough
// for it to do. Both are housekeeping: pull has done its work without them.
func (r *repository) keep(ctx context.Context, id string) {
	_, err := r.run(ctx, "update-ref", acceptedRef, id)
	if err == nil {
		// Not in the background, where it would go on without our lock.
		_, err = r.run(ctx, "-c", "gc.auto=2000", "-c", "gc.autoDetach=false", "gc", "--auto", "--quiet")
	}
	if err != nil && ctx.Err() == nil {
		r.Diag.Warn("housekeeping_failed", err.Error())
	}
}

// displayURL is a URL without user and password: a token is often the user.
func displayURL(url string) string {
	scheme, rest, ok := strings.Cut(url, "://")
	if !ok {
		return url
	}
	host, path, _ := strings.Cut(rest, "/")
	if i := strings.LastIndexByte(host, '@'); i >= 0 && scheme != "ssh" {
		host = host[i+1:]
	}
	if path != "" {
		path = "/" + path
	}
	return scheme + "://" + host + path
}

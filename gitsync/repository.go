package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
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
	user  []string // variables of the owner of the state directory, if root works for another user
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
func openRepository(dir *statedir.Dir, diag *diag.Logger) (*repository, error) {
	state := dir.Path
	r := &repository{git: git{dir: filepath.Join(state, repoDir)}, state: state, Diag: diag}
	if uid, gid, other := dir.Owner(); other {
		// As that user git has the user's keys and helpers, and nothing that the
		// user can write into the repository runs as root.
		r.as = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		r.user = []string{"HOME=/"}
		if u, err := user.LookupId(strconv.Itoa(uid)); err == nil {
			r.user = []string{"HOME=" + u.HomeDir, "USER=" + u.Username, "LOGNAME=" + u.Username}
		}
		r.env = r.user
	}
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
		if err := statedir.MkdirAll(filepath.Join(r.dir, d), 0o700); err != nil {
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
	f, err := statedir.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC)
	if err == nil {
		_, err = f.WriteString(content)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
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

// fetch brings refspecs from the remote, in one conversation, and returns
// git's messages. git fetches again what it cannot read, says so, succeeds, and
// leaves the damage where it is.
func (r *repository) fetch(ctx context.Context, url string, refspecs ...string) (messages string, err error) {
	g, volume := r.git, "--quiet"
	if r.Diag.Terminal {
		g.progress, volume = &fetchProgress{w: r.Diag.W}, "--progress"
	}
	args := []string{"fetch", volume, "--no-tags", "--no-write-fetch-head", "--no-auto-maintenance", "--force", "--", url}
	_, messages, err = g.listen(ctx, append(args, refspecs...)...)
	for line := range strings.Lines(messages) {
		if err == nil && strings.HasPrefix(line, "error: ") && (strings.Contains(line, "index file") || strings.Contains(line, "pack")) {
			return messages, fmt.Errorf("%s: %w: %s", r.dir, gitobj.ErrCorrupt, strings.TrimSpace(line))
		}
	}
	return messages, err
}

// tip returns what fetchedRef points to, empty if there is no such ref. It is
// read from its file, which saves a process.
func (r *repository) tip() string {
	b, err := os.ReadFile(filepath.Join(r.dir, fetchedRef))
	if err == nil {
		if id := strings.TrimSpace(string(b)); gitobj.IsHash(id) {
			return id
		}
	}
	packed, _ := os.ReadFile(filepath.Join(r.dir, "packed-refs")) // a new repository has none
	for line := range strings.Lines(string(packed)) {
		if id, name, _ := strings.Cut(strings.TrimSpace(line), " "); name == fetchedRef && gitobj.IsHash(id) {
			return id
		}
	}
	return ""
}

// advertised asks the remote what a ref points to and returns its full name and
// the object. full is what it turned out to be before, or empty. A branch wins
// over a tag of the same name: a person who may push tags must not be able to
// put one in the place of a branch.
func (r *repository) advertised(ctx context.Context, url, ref, full string) (name, id string, err error) {
	candidates, kinds := []string{"refs/heads/" + ref, "refs/tags/" + ref}, []string{"--heads", "--tags"}
	if strings.HasPrefix(ref, "refs/") || ref == "HEAD" {
		candidates, kinds = []string{ref}, nil
	}
	if full == candidates[0] && kinds != nil {
		// Then the server need not list its tags.
		name, id, err = r.list(ctx, url, candidates[:1], "--heads")
		if err != nil || id != "" {
			return name, id, err
		}
	}
	return r.list(ctx, url, candidates, kinds...)
}

// list returns the first of some refs that a remote has, and its object.
func (r *repository) list(ctx context.Context, url string, refs []string, kinds ...string) (name, id string, err error) {
	args := append(append([]string{"ls-remote", "--quiet"}, kinds...), "--", url)
	out, err := r.run(ctx, append(args, refs...)...)
	if err != nil {
		return "", "", err
	}
	for _, ref := range refs {
		for line := range strings.Lines(out) {
			id, name, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
			if name != ref {
				continue // a pattern of ls-remote matches the end of longer names, too
			}
			if !gitobj.IsHash(id) {
				return "", "", sha256Refused(url)
			}
			return name, id, nil
		}
	}
	return "", "", nil
}

// sha256Refused says that a repository has names that gitsync cannot check.
func sha256Refused(url string) error {
	return sysexits.New(sysexits.DataErr, "commit_refused", fmt.Errorf("%s names its objects by SHA-256; gitsync reads SHA-1 repositories only", displayURL(url))).
		WithHint("create the repository again with git init --object-format=sha1, and push to that")
}

// follow brings what a ref of the remote points to, and returns the full name
// of the ref and the object. If the repository has it already nothing is
// fetched. git also exits with 0 if it rejects what the remote sends, as from a
// shallow clone; so what it fetched is compared with what the remote said.
func (r *repository) follow(ctx context.Context, url, ref, full string) (name, id string, err error) {
	var message string
	for range 2 {
		name, id, err = r.advertised(ctx, url, ref, full)
		if err != nil {
			return "", "", err
		}
		if id == "" {
			return "", "", r.noSuchRef(ctx, url, ref)
		}
		if r.tip() == id {
			return name, id, nil
		}
		if message, err = r.fetch(ctx, url, "+"+name+":"+fetchedRef); err != nil && !said(err, "couldn't find remote ref") {
			return "", "", err
		}
		if r.tip() == id {
			return name, id, nil
		}
		// The branch moved between the two questions: ask once more.
	}
	return "", "", notFetched(url, name, id, message)
}

// notFetched says that git did not take what the remote has.
func notFetched(url, name, id, message string) error {
	why, hint := firstLine(message), "the host is unchanged; the next run tries again. Compare with git ls-remote "+displayURL(url)
	if strings.Contains(message, "shallow") {
		why = "the remote is a shallow clone and does not have the history of its branch"
		hint = "run git fetch --unshallow in the remote repository, or point --repo at a complete one"
	}
	return sysexits.New(sysexits.Unavailable, "ref_not_fetched", fmt.Errorf("%s: %s is %s there, and git does not fetch that: %s", displayURL(url), name, id, why)).WithHint(hint)
}

// noSuchRef names the branches that there are.
func (r *repository) noSuchRef(ctx context.Context, url, ref string) error {
	const most = 10
	hint := "give --ref a branch, a tag, a full ref name or a whole commit hash"
	out, err := r.run(ctx, "ls-remote", "--quiet", "--heads", "--", url)
	if err != nil {
		return err
	}
	var branches []string
	for line := range strings.Lines(out) {
		if _, name, ok := strings.Cut(strings.TrimSpace(line), "\trefs/heads/"); ok {
			branches = append(branches, name)
		}
	}
	switch n := len(branches); {
	case n == 0:
		hint = "the repository has no branches yet: push one"
	case n > most:
		hint += fmt.Sprintf("; of its %d branches the first are %s", n, strings.Join(branches[:most], ", "))
	default:
		hint += "; its branches are " + strings.Join(branches, ", ")
	}
	return sysexits.New(sysexits.Config, "no_such_ref", fmt.Errorf("%s has no branch or tag %q", displayURL(url), ref)).WithHint(hint)
}

// followHash brings a commit by its name. Servers may refuse to send a commit
// that no ref points to; then all branches and tags are fetched to find it in
// them.
func (r *repository) followHash(ctx context.Context, url, id string) error {
	message, err := r.fetch(ctx, url, "+"+id+":"+fetchedRef)
	if err == nil && r.tip() != id {
		return notFetched(url, "commit", id, message)
	}
	if err == nil || ctx.Err() != nil || !said(err, "not our ref") && !said(err, "unadvertised object") && !said(err, "not a valid object") && !said(err, "no such remote ref") {
		return err
	}
	message, err = r.fetch(ctx, url, "+refs/heads/*:refs/gitsync/all/heads/*", "+refs/tags/*:refs/gitsync/all/tags/*")
	if err != nil {
		return err
	}
	if _, err := r.run(ctx, "update-ref", fetchedRef, id); err != nil {
		if strings.Contains(message, "shallow") {
			return notFetched(url, "commit", id, message)
		}
		return sysexits.New(sysexits.Config, "no_such_ref", fmt.Errorf("%s has no commit %s in any branch or tag", displayURL(url), id)).
			WithHint("give --ref a branch, a tag, a full ref name or a whole commit hash")
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
	fresh := &repository{git: git{dir: filepath.Join(r.state, newDir), env: r.env, as: r.as}, state: r.state, Diag: r.Diag}
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

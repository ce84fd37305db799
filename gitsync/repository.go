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

// repository is the bare repository that pull fetches into. It has the full
// history, because pull must distinguish a fast-forward from a rewritten branch.
type repository struct {
	git
	state string
	user  []string // variables of the owner of the state directory, if root works for another user
	Diag  *diag.Logger
}

const (
	repoDir = "repo.git"     // in the state directory
	newDir  = "repo.git.new" // a clone that is not complete yet
	oldDir  = "repo.git.old" // the corrupt repository that a clone has replaced

	fetchedRef  = "refs/gitsync/fetched"  // the object that the last fetch fetched
	acceptedRef = "refs/gitsync/accepted" // the commit that the last pull accepted; protects it from gc
	movedRef    = "refs/gitsync/moved"    // the object that the ref pointed to when a verdict was published
)

// bareConfig is the whole configuration of the repository. Any other configuration
// is replaced, because it could name programs that git then runs.
const bareConfig = "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = true\n"

const bareHead = "ref: refs/heads/gitsync\n"

// openRepository creates the repository in the state directory if it is missing. It
// repairs what an interrupted run left and what another program changed. The caller
// holds the lock of the state directory.
func openRepository(dir *statedir.Dir, diag *diag.Logger) (*repository, error) {
	state := dir.Path
	r := &repository{git: git{dir: filepath.Join(state, repoDir)}, state: state, Diag: diag}
	if uid, gid, other := dir.Owner(); other {
		// Run git as that user: git then has the user's keys and helpers, and no program
		// that the user names in the repository runs as root.
		r.as = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		r.user = []string{"HOME=/"}
		if u, err := user.LookupId(strconv.Itoa(uid)); err == nil {
			r.user = []string{"HOME=" + u.HomeDir, "USER=" + u.Username, "LOGNAME=" + u.Username}
		}
		r.env = r.user
	}
	old := filepath.Join(state, oldDir)
	if _, err := os.Lstat(r.dir); errors.Is(err, fs.ErrNotExist) {
		// A run was killed between the two renames of replace.
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

// settle creates the files that the repository must have. It removes what the
// repository must not have: hooks, other configuration and stale lock files.
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
			r.Diag.Warn("repository_settled", "replaced the repository's "+name+", which differed from what gitsync had written", diag.Field{Key: "path", Value: path})
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

// replaceFile replaces a small file of the repository by rename. If the disk is full,
// the old file stays.
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
// killed. No process uses them: gitsync holds its own lock, and git dies when
// gitsync dies.
func (r *repository) clearLocks() error {
	objects := filepath.Join(r.dir, "objects")
	return filepath.WalkDir(r.dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // a git that is still dying may remove files
		}
		if err != nil {
			return fmt.Errorf("look for stale locks: %w", err)
		}
		name := d.Name()
		if d.IsDir() && filepath.Dir(path) == objects && name != "pack" && name != "info" {
			return fs.SkipDir // a directory of loose objects, which may be many
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

// wholePack reports whether a file belongs to a complete pack, which has a .pack and
// a .idx. It returns false for a .keep, which git needs only during a fetch: a .keep
// that stays would exclude the pack from gc forever.
func wholePack(path string) bool {
	base, ext := strings.TrimSuffix(path, filepath.Ext(path)), filepath.Ext(path)
	_, noPack := os.Lstat(base + ".pack")
	_, noIndex := os.Lstat(base + ".idx")
	return noPack == nil && noIndex == nil && ext != ".keep"
}

// fetch fetches refspecs from the remote with one git, and returns git's messages.
// If git cannot read a local pack, it prints an error, fetches the objects again,
// succeeds, and leaves the damaged pack. fetch returns ErrCorrupt in this case.
func (r *repository) fetch(ctx context.Context, url string, refspecs ...string) (messages string, err error) {
	g, volume := r.git, "--quiet"
	if r.Diag.Terminal {
		g.progress, volume = &fetchProgress{diag: r.Diag}, "--progress"
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

// tip returns the object that fetchedRef points to, or "" if there is no such ref.
// It reads the file of the ref, which saves a process.
func (r *repository) tip() string {
	b, err := os.ReadFile(filepath.Join(r.dir, fetchedRef))
	if err == nil {
		if id := strings.TrimSpace(string(b)); gitobj.IsHash(id) {
			return id
		}
	}
	packed, _ := os.ReadFile(filepath.Join(r.dir, "packed-refs")) // a new repository has no such file
	for line := range strings.Lines(string(packed)) {
		if id, name, _ := strings.Cut(strings.TrimSpace(line), " "); name == fetchedRef && gitobj.IsHash(id) {
			return id
		}
	}
	return ""
}

// advertised asks the remote what a ref points to, and returns the full name of the
// ref and the object. full is the full name that an earlier pull found, or "". If a
// branch and a tag have the same name, the branch is used: a person who may push
// tags must not be able to replace a branch.
func (r *repository) advertised(ctx context.Context, url, ref, full string) (name, id string, err error) {
	switch {
	case strings.HasPrefix(ref, "refs/heads/"):
		return r.list(ctx, url, []string{ref}, "--heads")
	case strings.HasPrefix(ref, "refs/tags/"):
		return r.list(ctx, url, []string{ref}, "--tags")
	case strings.HasPrefix(ref, "refs/") || ref == "HEAD":
		return r.list(ctx, url, []string{ref})
	}
	branch, tag := "refs/heads/"+ref, "refs/tags/"+ref
	if full == branch {
		// Ask for the branch first: then the server need not list its tags.
		name, id, err = r.list(ctx, url, []string{branch}, "--heads")
		if err != nil || id != "" {
			return name, id, err
		}
	}
	return r.list(ctx, url, []string{branch, tag}, "--heads", "--tags")
}

// list returns the first of the given refs that a remote has, and its object.
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
				continue // ls-remote also matches longer names that end like the pattern
			}
			if !gitobj.IsHash(id) {
				return "", "", sha256Refused(url)
			}
			return name, id, nil
		}
	}
	return "", "", nil
}

// badOn asks the remote which hosts rolled a commit back; see verdict.go. There is no
// way to have git ask for these refs alone (ls-remote sends ref-prefix only for
// --heads and --tags), so the remote lists all of its refs. A pull asks only before it
// takes a new commit.
func (r *repository) badOn(ctx context.Context, url, commit string) ([]string, error) {
	out, err := r.run(ctx, "ls-remote", "--quiet", "--refs", "--", url, badRef("*"))
	return parseBad(out, commit), err
}

// parseBad returns the hosts whose verdict is about a commit. The remote, and every
// host that may push a verdict, decide what is in out.
func parseBad(out, commit string) []string {
	var hosts []string
	for line := range strings.Lines(out) {
		id, name, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		host := strings.TrimSuffix(strings.TrimPrefix(name, hostRefs), badSuffix)
		if id == commit && host != "" && checkHost(host) == nil && name == badRef(host) {
			hosts = append(hosts, host)
		}
	}
	return hosts
}

// sha256Refused returns the error for a repository with SHA-256 names, which gitsync
// cannot check.
func sha256Refused(url string) error {
	return sysexits.New(sysexits.DataErr, "commit_refused", fmt.Errorf("%s names its objects by SHA-256; gitsync reads SHA-1 repositories only", displayURL(url))).
		WithHint("create the repository again with git init --object-format=sha1, and push to that")
}

// follow fetches the object that a ref of the remote points to, and returns the full
// name of the ref and the object. If the last fetch brought the same object, it
// fetches nothing. git exits with 0 even if it rejects what the remote sends, for
// example from a shallow clone. Therefore follow compares the fetched object with
// the object that the remote advertised.
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
		// The branch may have moved between the two requests: try once more.
	}
	return "", "", notFetched(url, name, id, message)
}

// notFetched returns the error for an object that git did not fetch although the
// remote has it.
func notFetched(url, name, id, message string) error {
	why, hint := firstLine(message), "the host is unchanged; the next run tries again. Compare with git ls-remote "+displayURL(url)
	if strings.Contains(message, "shallow") {
		why = "the remote is a shallow clone and does not have the history of its branch"
		hint = "run git fetch --unshallow in the remote repository, or point --repo at a complete one"
	}
	return sysexits.New(sysexits.Unavailable, "ref_not_fetched", fmt.Errorf("%s: %s is %s on the remote, but git did not fetch it: %s", displayURL(url), name, id, why)).WithHint(hint)
}

// noSuchRef returns the error for a ref that the remote does not have. Its hint
// lists the branches of the remote.
func (r *repository) noSuchRef(ctx context.Context, url, ref string) error {
	const most = 10
	hint := refHint
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
		hint += fmt.Sprintf("; the first %d of its %d branches are %s", most, n, strings.Join(branches[:most], ", "))
	default:
		hint += "; its branches are " + strings.Join(branches, ", ")
	}
	return sysexits.New(sysexits.Config, "no_such_ref", fmt.Errorf("%s has no branch or tag %q", displayURL(url), ref)).WithHint(hint)
}

// followHash fetches a commit by its hash. A server may refuse to send a commit that
// no ref points to. Then followHash fetches all branches and tags, which may contain
// the commit.
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
			WithHint(refHint)
	}
	return nil
}

// corruptWords appear in git's messages when git cannot read its own repository.
// Some also appear when a connection broke, so fsck must confirm the damage.
var corruptWords = []string{"corrupt", "bad object", "bad ref", "broken", "unable to read", "unable to find", "missing", "loose object",
	"packfile", "pack has", "index file", "index-pack", "unpack-objects", "not a git repository", "invalid sha1", "garbage", "did not send all", "reference broken", "unable to resolve", "cannot lock ref"}

// corrupt reports whether err was caused by damage of the repository itself. It
// returns false if the check does not end in time, because that proves nothing.
func (r *repository) corrupt(ctx context.Context, err error) bool {
	if ctx.Err() != nil {
		return false // the answer of a git that was killed looks like damage
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

// replace fetches everything again into a new repository, which then takes the place
// of this one. This one stays until the new one is complete. fill does the fetch.
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

// keep protects an accepted commit from gc, and runs gc if there is enough for it to
// do. A failure of either is only a warning, because the pull has succeeded.
func (r *repository) keep(ctx context.Context, id string) {
	_, err := r.run(ctx, "update-ref", acceptedRef, id)
	if err == nil {
		// Not in the background, where gc would go on after gitsync has released its lock.
		_, err = r.run(ctx, "-c", "gc.auto=2000", "-c", "gc.autoDetach=false", "gc", "--auto", "--quiet")
	}
	if err != nil && ctx.Err() == nil {
		r.Diag.Warn("housekeeping_failed", err.Error())
	}
}

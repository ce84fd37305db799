package gitobj

import (
	"bytes"
	"compress/zlib"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"observability-hub/lib/command"
	"observability-hub/lib/statedir"
)

// Reader is an empty repository through which git reads the objects of another
// repository. git gets only the object directory of the other repository. It never
// reads that repository's configuration, hooks, refs, grafts and replacements.
type Reader struct {
	dir string
	// as is the owner of the state directory if root works for another user. git
	// then runs as that user, because it obeys a configuration that the user could
	// write.
	as *syscall.Credential
}

// NewReader creates the repository reader.git in a state directory, or repairs it.
// It has only the few files that git needs to accept it as a repository. The caller
// holds the lock of the state directory.
func NewReader(state string) (Reader, error) {
	dir := filepath.Join(state, "reader.git")
	// A check of a signature that was killed has left its object directory.
	left, err := filepath.Glob(filepath.Join(dir, "commit-*"))
	if err != nil {
		return Reader{}, err
	}
	for _, l := range left {
		if err := os.RemoveAll(l); err != nil {
			return Reader{}, statedir.Unwritable(err)
		}
	}
	for _, d := range []string{"objects", "refs"} {
		if err := statedir.MkdirAll(filepath.Join(dir, d), 0o700); err != nil {
			return Reader{}, statedir.Unwritable(err)
		}
	}
	for name, content := range map[string]string{
		"HEAD":   "ref: refs/heads/none\n",
		"config": "[core]\n\trepositoryformatversion = 0\n\tbare = true\n",
	} {
		path := filepath.Join(dir, name)
		if b, err := os.ReadFile(path); err == nil && string(b) == content {
			continue
		}
		f, err := statedir.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC)
		if err == nil {
			_, err = f.WriteString(content)
			err = errors.Join(err, f.Close())
		}
		if err != nil {
			return Reader{}, statedir.Unwritable(err)
		}
	}
	return Reader{dir, owner(state)}, nil
}

// owner returns the owner of a directory if this process is root and the owner
// is another user.
func owner(dir string) *syscall.Credential {
	info, err := os.Stat(dir)
	if err != nil || os.Geteuid() != 0 {
		return nil
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || st.Uid == 0 {
		return nil
	}
	return &syscall.Credential{Uid: st.Uid, Gid: st.Gid}
}

// command returns the command line of a git that works in the reader.
func (r Reader) command(args ...string) []string {
	return append([]string{"git", "--git-dir=" + r.dir, "-c", "safe.directory=" + r.dir}, args...)
}

// environment returns an environment in which git reads only the reader and the
// objects in one directory. Of the caller's variables for git it keeps only
// GIT_EXEC_PATH, which says where git's programs are.
func environment(objects string) []string {
	var env []string
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "GIT_") || strings.HasPrefix(v, "GIT_EXEC_PATH=") {
			env = append(env, v)
		}
	}
	return append(env, "GIT_OBJECT_DIRECTORY="+objects, "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null",
		"GIT_NO_LAZY_FETCH=1", "GIT_NO_REPLACE_OBJECTS=1", "GIT_TERMINAL_PROMPT=0")
}

// VerifyCommit runs `git verify-commit` with the given -c options and environment.
// It returns nil if git exits with 0. Git's message "Good signature" does not count,
// because it also appears for untrusted keys.
//
// git reads the commit from an object directory that contains nothing else, written
// from the bytes whose hash was checked. A change of the source during the check
// therefore has no effect.
func (r Reader) VerifyCommit(ctx context.Context, c *Commit, options, env []string) error {
	store, err := r.loose(c)
	if err != nil {
		return statedir.Unwritable(err)
	}
	defer os.RemoveAll(store)
	args := r.command(append(options, "verify-commit", c.ID)...)
	_, err = command.Cmd{Args: args, Env: append(environment(store), env...), Dir: "/", Dependent: true, Credential: r.as}.Output(ctx)
	return err
}

// loose creates an object directory that contains only this commit.
func (r Reader) loose(c *Commit) (string, error) {
	store, err := os.MkdirTemp(r.dir, "commit-")
	if err != nil {
		return "", err
	}
	var b bytes.Buffer
	z := zlib.NewWriter(&b)
	fmt.Fprintf(z, "commit %d\x00", len(c.raw))
	_, err = z.Write(c.raw)
	err = errors.Join(err, z.Close())
	if err == nil {
		err = os.Mkdir(filepath.Join(store, c.ID[:2]), 0o700)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(store, c.ID[:2], c.ID[2:]), b.Bytes(), 0o600)
	}
	if err == nil && r.as != nil {
		for _, path := range []string{filepath.Join(store, c.ID[:2], c.ID[2:]), filepath.Join(store, c.ID[:2]), store} {
			err = errors.Join(err, os.Lchown(path, int(r.as.Uid), int(r.as.Gid)))
		}
	}
	if err != nil {
		os.RemoveAll(store)
	}
	return store, err
}

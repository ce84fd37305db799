package main

import (
	"bufio"
	"context"
	"crypto/sha1"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"observability-hub/lib/statedir"
)

// objects reads git objects by name through one `git cat-file --batch`, and
// computes each one's hash again. So whoever can write to the object store can
// make objects be missing, but not be others than their names say.
//
// git works in a repository of our own, with an empty configuration, and gets
// only the object directory of the source: its configuration, hooks, refs,
// grafts and replacements are never read.
type objects struct {
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    *bufio.Reader
	cancel context.CancelFunc
	broken error
}

// errMissing says that an object is not in the repository.
var errMissing = errors.New("object is missing")

// errCorrupt says that an object's content is not what its name says.
var errCorrupt = errors.New("object is corrupt")

// tooBig is an object that is longer than the caller takes.
type tooBig struct{ size, limit int64 }

func (t *tooBig) Error() string { return fmt.Sprintf("%d bytes, more than %d", t.size, t.limit) }

// readerDir is the name of that repository of our own in the state directory.
const readerDir = "reader.git"

// makeReader makes the repository in which git reads. It is a few files, of
// which git needs these to believe that it is one.
func makeReader(state string) (string, error) {
	dir := filepath.Join(state, readerDir)
	// What a check of a signature left when it was killed.
	left, err := filepath.Glob(filepath.Join(dir, "commit-*"))
	if err != nil {
		return "", err
	}
	for _, l := range left {
		if err := os.RemoveAll(l); err != nil {
			return "", statedir.Unwritable(err)
		}
	}
	for _, d := range []string{"objects", "refs"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o700); err != nil {
			return "", statedir.Unwritable(err)
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
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			return "", statedir.Unwritable(err)
		}
	}
	return dir, nil
}

// readerEnv keeps git from reading anything but reader and the objects in store.
func readerEnv(store string) []string {
	return []string{"GIT_OBJECT_DIRECTORY=" + store, "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_NO_LAZY_FETCH=1"}
}

// openObjects starts git in reader on the object directory store. It is killed
// when ctx is done.
func openObjects(ctx context.Context, reader, store string) (*objects, error) {
	ctx, cancel := context.WithCancel(ctx)
	args := append([]string{"--git-dir=" + reader, "-c", "safe.directory=" + reader}, gitConfig...)
	o := &objects{cmd: exec.CommandContext(ctx, "git", append(args, "cat-file", "--batch")...), cancel: cancel}
	o.cmd.Env = append(gitEnv(os.Environ()), readerEnv(store)...)
	o.cmd.Dir = "/"
	o.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	var err error
	if o.in, err = o.cmd.StdinPipe(); err == nil {
		var out io.ReadCloser
		if out, err = o.cmd.StdoutPipe(); err == nil {
			o.out = bufio.NewReaderSize(out, 64<<10)
			err = o.cmd.Start()
		}
	}
	if err != nil {
		cancel()
		return nil, fmt.Errorf("start git cat-file: %w", err)
	}
	return o, nil
}

// close ends git. Its exit status tells nothing: all that was asked for was
// answered and checked.
func (o *objects) close() {
	o.in.Close()
	o.cancel()
	_ = o.cmd.Wait()
}

// read returns the kind and content of the object called id, a full hash.
func (o *objects) read(id string, limit int64) (kind string, content []byte, err error) {
	if o.broken != nil {
		return "", nil, o.broken
	}
	kind, content, err = o.ask(id, limit)
	if err != nil && !errors.Is(err, errMissing) {
		o.broken = fmt.Errorf("git cat-file has ended: %w", err) // the stream is not in step any more
	}
	return kind, content, err
}

func (o *objects) ask(id string, limit int64) (string, []byte, error) {
	if !isHash(id) {
		return "", nil, fmt.Errorf("object %q: not a hash", id)
	}
	// A git that has ended already is heard of below.
	if _, err := io.WriteString(o.in, id+"\n"); err != nil && !errors.Is(err, syscall.EPIPE) {
		return "", nil, fmt.Errorf("git cat-file %s: %w", id, err)
	}
	header, err := o.out.ReadString('\n')
	if err != nil {
		// What git says of a damaged object goes to a stderr that nobody reads;
		// it ends without an answer.
		return "", nil, fmt.Errorf("object %s: %w", id, errCorrupt)
	}
	fields := strings.Fields(header)
	if len(fields) == 2 && fields[1] == "missing" {
		return "", nil, fmt.Errorf("object %s: %w", id, errMissing)
	}
	if len(fields) != 3 || fields[0] != id {
		return "", nil, fmt.Errorf("git cat-file %s: unexpected answer %q", id, header)
	}
	size, err := strconv.ParseInt(fields[2], 10, 64)
	if err != nil || size < 0 {
		return "", nil, fmt.Errorf("git cat-file %s: unexpected answer %q", id, header)
	}
	if size > limit {
		return "", nil, &tooBig{size, limit}
	}
	content := make([]byte, size+1)
	if _, err := io.ReadFull(o.out, content); err != nil {
		return "", nil, fmt.Errorf("object %s: %w", id, errCorrupt)
	}
	content = content[:size]
	if hashObject(fields[1], content) != id {
		return "", nil, fmt.Errorf("object %s: %w", id, errCorrupt)
	}
	return fields[1], content, nil
}

// hashObject returns the name that git gives an object.
func hashObject(kind string, content []byte) string {
	h := sha1.New()
	fmt.Fprintf(h, "%s %d\x00", kind, len(content))
	h.Write(content)
	return hex.EncodeToString(h.Sum(nil))
}

// isHash reports whether s is a full object name in lower case.
func isHash(s string) bool {
	if len(s) != 2*sha1.Size {
		return false
	}
	for _, c := range []byte(s) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

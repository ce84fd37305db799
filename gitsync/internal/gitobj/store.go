// Package gitobj reads git objects by their hashes and computes every hash again.
// It does not use the configuration, the refs or the URL of a repository. A process
// that trusts a commit ID can therefore read that commit from an object store that
// another user writes. That user can remove objects but cannot change what an object
// with a given hash contains.
package gitobj

import (
	"bufio"
	"context"
	"crypto/sha1"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
)

// ErrMissing says that an object is not in the store.
var ErrMissing = errors.New("object is missing")

// ErrCorrupt says that git cannot read an object, or that the content of an object
// does not match its hash.
var ErrCorrupt = errors.New("object is corrupt")

// tooBig is the error for an object that is longer than the caller accepts.
type tooBig struct{ size, limit int64 }

func (t *tooBig) Error() string { return fmt.Sprintf("%d bytes, more than %d", t.size, t.limit) }

// Store is an object store that one `git cat-file --batch` reads. Only one goroutine
// may use it.
type Store struct {
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    *bufio.Reader
	cancel context.CancelFunc
	broken error
}

// Open starts git on an object directory. git is killed when ctx is done. The caller
// must close the Store.
func (r Reader) Open(ctx context.Context, objects string) (*Store, error) {
	ctx, cancel := context.WithCancel(ctx)
	args := r.command("cat-file", "--batch")
	s := &Store{cmd: exec.CommandContext(ctx, args[0], args[1:]...), cancel: cancel}
	s.cmd.Env = environment(objects)
	s.cmd.Dir = "/"
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL, Credential: r.as}
	var err error
	if s.in, err = s.cmd.StdinPipe(); err == nil {
		var out io.ReadCloser
		if out, err = s.cmd.StdoutPipe(); err == nil {
			s.out = bufio.NewReaderSize(out, 64<<10)
			err = s.cmd.Start()
		}
	}
	if err != nil {
		cancel()
		return nil, fmt.Errorf("start git cat-file: %w", err)
	}
	return s, nil
}

// Close stops git. It ignores git's exit status, because every answer was checked.
func (s *Store) Close() {
	s.in.Close()
	s.cancel()
	_ = s.cmd.Wait()
}

// read returns the kind and content of the object called id, a full hash.
func (s *Store) read(id string, limit int64) (kind string, content []byte, err error) {
	if s.broken != nil {
		return "", nil, s.broken
	}
	kind, content, err = s.ask(id, limit)
	if err != nil && !errors.Is(err, ErrMissing) {
		s.broken = fmt.Errorf("git cat-file has ended: %w", err) // the next answer could not be found in the stream
	}
	return kind, content, err
}

func (s *Store) ask(id string, limit int64) (string, []byte, error) {
	if !IsHash(id) {
		return "", nil, fmt.Errorf("object %q: not a hash", id)
	}
	// Ignore EPIPE: if git has ended already, the read below fails.
	if _, err := io.WriteString(s.in, id+"\n"); err != nil && !errors.Is(err, syscall.EPIPE) {
		return "", nil, fmt.Errorf("git cat-file %s: %w", id, err)
	}
	header, err := s.out.ReadString('\n')
	if err != nil {
		// git reports a damaged object on stderr, which is not read here, and ends
		// without an answer.
		return "", nil, fmt.Errorf("object %s: %w", id, ErrCorrupt)
	}
	fields := strings.Fields(header)
	if len(fields) == 2 && fields[1] == "missing" {
		return "", nil, fmt.Errorf("object %s: %w", id, ErrMissing)
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
	if _, err := io.ReadFull(s.out, content); err != nil {
		return "", nil, fmt.Errorf("object %s: %w", id, ErrCorrupt)
	}
	content = content[:size]
	if hash(fields[1], content) != id {
		return "", nil, fmt.Errorf("object %s: %w", id, ErrCorrupt)
	}
	return fields[1], content, nil
}

// hash returns the hash by which git names an object.
func hash(kind string, content []byte) string {
	h := sha1.New()
	fmt.Fprintf(h, "%s %d\x00", kind, len(content))
	h.Write(content)
	return hex.EncodeToString(h.Sum(nil))
}

// BlobID returns the hash by which git names a file with this content.
func BlobID(content []byte) string { return hash("blob", content) }

// IsHash reports whether s is a full SHA-1 hash in lower case.
func IsHash(s string) bool {
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

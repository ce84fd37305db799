package deadletter

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/google/renameio/v2"

	"observability-hub/lib/durable"
	"observability-hub/lib/statedir"
	"observability-hub/lib/sysexits"
	"observability-hub/readsync/internal/stage"
)

// Rewriting is a dead letter file from which some letters are removed. The file is
// replaced as a whole at the end. Until then it has all letters.
type Rewriting struct {
	Lines *stage.Lines // the current lines

	path string
	in   *os.File
	out  *renameio.PendingFile
	keep *bufio.Writer
}

// Rewrite opens and locks a file. If path is a symbolic link, Commit replaces its
// target, not the link.
func Rewrite(path string) (*Rewriting, error) {
	in, err := Lock(path, os.O_RDONLY)
	if err == nil {
		if path, err = filepath.EvalSymlinks(in.Name()); err != nil {
			in.Close()
		}
	}
	if err != nil {
		if errors.Is(err, os.ErrPermission) {
			return nil, statedir.Unreadable(err)
		}
		if _, ok := errors.AsType[*sysexits.Error](err); !ok {
			err = sysexits.New(sysexits.DataErr, "bad_input", fmt.Errorf("open the dead letters: %w", err)).
				WithHint("name a file of dead letters that readsync has written")
		}
		return nil, err
	}
	r := &Rewriting{Lines: stage.NewLines(in), path: path, in: in}
	if r.out, err = renameio.NewPendingFile(path, renameio.WithTempDir(filepath.Dir(path)), renameio.WithPermissions(0o600), renameio.WithExistingPermissions()); err != nil {
		in.Close()
		return nil, statedir.Unwritable(err)
	}
	r.keep = bufio.NewWriterSize(r.out, 64<<10)
	if err := sameOwner(in, r.out.File); err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

// Keep adds a line to the new file.
func (r *Rewriting) Keep(line []byte) error {
	if _, err := r.keep.Write(append(line, '\n')); err != nil {
		return statedir.Unwritable(err)
	}
	return nil
}

// Commit replaces the file by the kept lines.
func (r *Rewriting) Commit() error {
	err := r.keep.Flush()
	if err == nil {
		err = r.out.CloseAtomicallyReplace()
	}
	if err == nil {
		err = durable.SyncDir(filepath.Dir(r.path))
	}
	if err != nil {
		return statedir.Unwritable(err)
	}
	return nil
}

// Close closes the file and releases its lock. Without [Rewriting.Commit] the file is
// unchanged.
func (r *Rewriting) Close() error { return errors.Join(r.out.Cleanup(), r.in.Close()) }

// sameOwner gives f the owner of another file. If root retries the service's file, it
// must stay the service's.
func sameOwner(of, f *os.File) error {
	info, err := of.Stat()
	if err != nil {
		return fmt.Errorf("stat %s: %w", of.Name(), err)
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || int(st.Uid) == os.Geteuid() && int(st.Gid) == os.Getegid() {
		return nil
	}
	if err := f.Chown(int(st.Uid), int(st.Gid)); err != nil {
		return sysexits.New(sysexits.CantCreate, "state_unwritable", fmt.Errorf("set the owner of the new dead letters: %w", err)).
			WithHint("run it as the owner of " + of.Name() + ", or as root")
	}
	return nil
}

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

// Rewriting is a file of which some letters are to be taken out. It is replaced as a
// whole, at the end. Until then all letters are there.
type Rewriting struct {
	Lines *stage.Lines // of the file as it is

	path string
	in   *os.File
	out  *renameio.PendingFile
	keep *bufio.Writer
}

// Rewrite opens a file for this process alone. Of a symbolic link, the file is
// replaced, not the link.
func Rewrite(path string) (*Rewriting, error) {
	in, err := Lock(path, os.O_RDONLY)
	if err == nil {
		if path, err = filepath.EvalSymlinks(in.Name()); err != nil {
			in.Close()
		}
	}
	if err != nil {
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

// Keep keeps a line.
func (r *Rewriting) Keep(line []byte) error {
	if _, err := r.keep.Write(append(line, '\n')); err != nil {
		return statedir.Unwritable(err)
	}
	return nil
}

// Commit replaces the file by the lines that were kept.
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

// Close ends the use of the file, which is unchanged without a [Rewriting.Commit].
func (r *Rewriting) Close() error { return errors.Join(r.out.Cleanup(), r.in.Close()) }

// sameOwner gives a file the owner of another: retried by root, the dead letters
// stay those of the service.
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

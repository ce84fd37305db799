// Package statedir is a tool's state directory: where it is, one run at a
// time in it, and files that are replaced as a whole or not at all.
package statedir

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/google/renameio/v2"

	"observability-hub/lib/sysexits"
)

// Resolve returns the state directory of a unit family: the flag's value,
// else systemd's $STATE_DIRECTORY, else $XDG_STATE_HOME/family, else
// ~/.local/state/family.
func Resolve(flag, family string) (string, error) {
	if flag != "" {
		return flag, nil
	}
	// StateDirectory= may name several; the unit's first is the tool's.
	if dir, _, _ := strings.Cut(os.Getenv("STATE_DIRECTORY"), ":"); dir != "" {
		return dir, nil
	}
	base := os.Getenv("XDG_STATE_HOME")
	if base == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", sysexits.New(sysexits.Config, "no_state_directory", fmt.Errorf("no state directory: %w", err)).
				WithHint("give --state-dir")
		}
		base = filepath.Join(home, ".local", "state")
	}
	return filepath.Join(base, family), nil
}

// Dir is a state directory that this process has locked.
type Dir struct {
	Path string
	f    *os.File
}

// Open creates the directory if it is missing (mode 0700), locks it and clears
// what an interrupted [Dir.WriteFile] left. The lock is a flock(2) on the
// directory itself: it needs no file, works where nothing can be written, and
// the kernel drops it with the process. If another run holds it for longer
// than wait, the error carries [sysexits.TempFail].
func Open(ctx context.Context, path string, wait time.Duration) (*Dir, error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		if err := os.MkdirAll(path, 0o700); err != nil {
			return nil, Unwritable(err)
		}
		f, err = os.Open(path)
	}
	if err != nil {
		return nil, Unwritable(err)
	}
	if info, err := f.Stat(); err != nil || !info.IsDir() {
		f.Close()
		return nil, Unwritable(&os.PathError{Op: "open", Path: path, Err: syscall.ENOTDIR})
	}
	d := &Dir{Path: path, f: f}
	if err := d.lock(ctx, wait); err != nil {
		f.Close()
		return nil, err
	}
	if err := d.clear(); err != nil {
		f.Close()
		return nil, err
	}
	return d, nil
}

func (d *Dir) lock(ctx context.Context, wait time.Duration) error {
	const poll = 20 * time.Millisecond // flock(2) has no time-out of its own
	for deadline := time.Now().Add(wait); ; {
		err := syscall.Flock(int(d.f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, syscall.EINTR):
			continue
		case !errors.Is(err, syscall.EWOULDBLOCK):
			return fmt.Errorf("lock %s: %w", d.Path, err)
		case time.Now().After(deadline):
			return sysexits.New(sysexits.TempFail, "locked", fmt.Errorf("lock %s: another run holds it", d.Path)).
				WithHint("wait for the other run to end, or give --state-dir another folder; fuser -v shows who holds it")
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(poll):
		}
	}
}

// clear removes the temporary files that a killed [Dir.ReplaceFrom] left. Under
// the lock nobody else is writing one. Other files that begin with a dot may be
// the user's own: nobody says that the folder holds nothing else.
func (d *Dir) clear() error {
	names, err := d.f.Readdirnames(-1)
	if err != nil {
		return fmt.Errorf("read %s: %w", d.Path, err)
	}
	for _, name := range names {
		if !temporary(name) {
			continue
		}
		if info, err := os.Lstat(d.Join(name)); err == nil && info.Mode().IsRegular() {
			// A read-only folder cannot be tidied; the first write will say so.
			_ = os.Remove(d.Join(name))
		}
	}
	return nil
}

// temporary reports whether a file has a name such as renameio gives: a dot, the
// name of the file to be, and a random number of 63 bits. One in ten thousand
// is shorter than this and stays; no name of a person's is that long a number.
func temporary(name string) bool {
	digits := len(name) - len(strings.TrimRight(name, "0123456789"))
	return strings.HasPrefix(name, ".") && digits >= 15 && digits <= 19
}

// Join returns the path of the file called name.
func (d *Dir) Join(name string) string { return filepath.Join(d.Path, name) }

// WriteFile replaces the file called name by data. See [Dir.ReplaceFrom].
func (d *Dir) WriteFile(name string, data []byte) error {
	return d.ReplaceFrom(name, bytes.NewReader(data))
}

// ReplaceFrom replaces the file called name by what r holds: written to a
// temporary file, fsynced, renamed, and the directory fsynced. After a crash,
// and after an error, the file is the old or the new one.
func (d *Dir) ReplaceFrom(name string, r io.Reader) error {
	f, err := renameio.NewPendingFile(d.Join(name), renameio.WithTempDir(d.Path), renameio.WithStaticPermissions(0o600))
	if err != nil {
		return Unwritable(err)
	}
	defer f.Cleanup()
	if _, err := io.Copy(f, r); err != nil {
		return Unwritable(err)
	}
	if err := f.CloseAtomicallyReplace(); err != nil {
		return Unwritable(err)
	}
	return d.Sync()
}

// Sync makes renames and removals in the directory durable.
func (d *Dir) Sync() error {
	if err := d.f.Sync(); err != nil {
		return Unwritable(fmt.Errorf("fsync %s: %w", d.Path, err))
	}
	return nil
}

// Close releases the lock.
func (d *Dir) Close() error { return d.f.Close() }

// Unwritable gives an error of writing state its exit status and a hint.
func Unwritable(err error) error {
	hint := "give the user of this run a writable folder with --state-dir"
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		hint = "make room on that file system; what was stored there before is unchanged"
	}
	return sysexits.New(sysexits.CantCreate, "state_unwritable", fmt.Errorf("state: %w", err)).WithHint(hint)
}

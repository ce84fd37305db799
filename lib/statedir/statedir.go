// Package statedir provides a tool's state directory. It finds the directory, locks
// it so that only one run uses it, and replaces files in it atomically.
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

	"observability-hub/lib/durable"
	"observability-hub/lib/sysexits"
)

// Resolve returns the state directory of a unit family. It is the first of these:
// the flag's value, systemd's $STATE_DIRECTORY, /var/lib/family if that exists and
// the user is root or owns it, $XDG_STATE_HOME/family, ~/.local/state/family.
func Resolve(flag, family string) (string, error) { return ResolveUnit(flag, family, family) }

// ResolveUnit is [Resolve] for a command whose unit does not use the state
// directory of its family but /var/lib/unit. If a user runs the command by hand
// and cannot use that directory, the commands of the family share
// $XDG_STATE_HOME/family.
func ResolveUnit(flag, unit, family string) (string, error) {
	return resolve(varLib, os.Geteuid(), flag, unit, family)
}

// varLib is the directory below which the units have their state directories.
const varLib = "/var/lib"

// ResolveExisting is [Resolve] for a command that does not create state. If the
// directory does not exist, and neither a flag nor systemd names it, ResolveExisting
// returns that of the unit. So a monitor need not name it.
func ResolveExisting(flag, family string) (string, error) {
	return existing(varLib, os.Geteuid(), flag, family, family)
}

// Existing is [ResolveExisting] for a command of [ResolveUnit]. The directory must
// exist.
func Existing(flag, unit, family string) (string, error) {
	dir, err := existing(varLib, os.Geteuid(), flag, unit, family)
	if err != nil {
		return "", err
	}
	return dir, Require(dir)
}

func existing(varLib string, euid int, flag, unit, family string) (string, error) {
	dir, err := resolve(varLib, euid, flag, unit, family)
	if err == nil && isDir(dir) {
		return dir, nil
	}
	if of := filepath.Join(varLib, unit); flag == "" && os.Getenv("STATE_DIRECTORY") == "" && isDir(of) {
		return of, nil
	}
	return dir, err
}

// Unit returns the state directory of a unit if this host has one, and if it is
// not dir.
func Unit(unit, dir string) (string, bool) {
	of := filepath.Join(varLib, unit)
	return of, isDir(of) && filepath.Clean(dir) != of
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

func resolve(varLib string, euid int, flag, unit, family string) (string, error) {
	if flag != "" {
		return flag, nil
	}
	// StateDirectory= may list several directories. The tool uses the first one.
	if dir, _, _ := strings.Cut(os.Getenv("STATE_DIRECTORY"), ":"); dir != "" {
		return dir, nil
	}
	dir := filepath.Join(varLib, unit)
	if info, err := os.Stat(dir); err == nil && info.IsDir() {
		if uid, _ := owner(info); euid == 0 || euid == uid {
			return dir, nil
		}
	}
	base := os.Getenv("XDG_STATE_HOME")
	if base == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", sysexits.New(sysexits.Config, "no_state_directory", fmt.Errorf("no state directory: %w", err)).
				WithHint("set HOME, or pass --state-dir DIR")
		}
		base = filepath.Join(home, ".local", "state")
	}
	return filepath.Join(base, family), nil
}

// Require returns an error if there is no directory at path. It is for a command
// that reports or uses existing state, and that must not create an empty state.
func Require(path string) error {
	switch info, err := os.Stat(path); {
	case errors.Is(err, os.ErrNotExist):
		return sysexits.New(sysexits.Config, "no_state_directory", fmt.Errorf("no state directory %s: no run has saved state there", path)).
			WithHint("pass --state-dir; the units keep their state below /var/lib")
	case err != nil:
		return Unreadable(err)
	case !info.IsDir():
		return Unwritable(&os.PathError{Op: "open", Path: path, Err: syscall.ENOTDIR})
	}
	return nil
}

// Unreadable adds an exit status and a hint to an error of the operating system
// that occurred while state was read. A file that cannot be read is not damaged, so
// the hint never proposes to remove or replace it. Unreadable returns every other
// error unchanged: [os.ErrNotExist], and errors that already have an exit status.
func Unreadable(err error) error {
	e, ok := errors.AsType[*os.PathError](err)
	if _, done := errors.AsType[*sysexits.Error](err); done || !ok || errors.Is(err, os.ErrNotExist) {
		return err
	}
	if errors.Is(err, os.ErrPermission) {
		return sysexits.New(sysexits.Failed, "permission_denied", err).
			WithHint("run it as root, or as a user or in a group that may read it: namei -l " + e.Path + " shows the owners and modes")
	}
	if errors.Is(err, syscall.ENOTDIR) {
		return Unwritable(err)
	}
	return sysexits.New(sysexits.Failed, "failed", err).
		WithHint("the file may be intact, so keep it: journalctl -k -p err shows errors of the disk; findmnt -T " + filepath.Dir(e.Path) + " shows the file system")
}

// Dir is a state directory that this process has locked. All files in it belong to
// the owner of the directory. If root runs a tool by hand on the state of a
// service, the service must be able to replace root's files.
type Dir struct {
	Path string
	f    *os.File
	give bool // this process is root, and the owner is another user
	uid  int  // of the owner
	gid  int
}

// Open locks the directory at path and removes the temporary files of an
// interrupted [Dir.WriteFile]. If the directory is missing, Open creates it with
// mode 0700 and the owner of its parent directory. The lock is a flock(2) on the
// directory itself. It needs no lock file, it works on a read-only file system,
// and the kernel releases it when the process ends. If another run holds the lock
// for longer than wait, the error carries [sysexits.TempFail].
func Open(ctx context.Context, path string, wait time.Duration) (*Dir, error) {
	f, err := openFile(path, os.O_RDONLY, 0)
	if errors.Is(err, os.ErrNotExist) {
		if err := MkdirAll(path, 0o700); err != nil {
			return nil, Unwritable(err)
		}
		f, err = openFile(path, os.O_RDONLY, 0)
	}
	if err != nil {
		return nil, Unwritable(err)
	}
	info, err := f.Stat()
	if err != nil || !info.IsDir() {
		f.Close()
		return nil, Unwritable(&os.PathError{Op: "open", Path: path, Err: syscall.ENOTDIR})
	}
	d := &Dir{Path: path, f: f}
	d.uid, d.gid = owner(info)
	d.give = os.Geteuid() == 0 && d.uid != 0
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
	const poll = 20 * time.Millisecond // flock(2) has no timeout
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
				WithHint("wait for the other run to end, or pass another --state-dir; fuser -v " + d.Path + " shows which process holds it")
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(poll):
		}
	}
}

// clear removes the temporary files that a killed [Dir.ReplaceFrom] left. While
// this process holds the lock, no other process writes such a file. clear keeps
// other files that begin with a dot, because they may belong to the user.
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
			// In a read-only directory this fails, and so will the first write.
			_ = os.Remove(d.Join(name))
		}
	}
	return nil
}

// temporary reports whether name looks like that of a temporary file of renameio:
// a dot, the name of the final file, and a random number of 63 bits. The number
// must have at least 15 digits, because a user's file can end in a short number.
// One temporary file in ten thousand has a shorter number and is kept.
func temporary(name string) bool {
	digits := len(name) - len(strings.TrimRight(name, "0123456789"))
	return strings.HasPrefix(name, ".") && digits >= 15 && digits <= 19
}

// Join returns the path of the file called name.
func (d *Dir) Join(name string) string { return filepath.Join(d.Path, name) }

// WriteFile replaces the file called name by data, like [Dir.ReplaceFrom].
func (d *Dir) WriteFile(name string, data []byte) error {
	return d.ReplaceFrom(name, bytes.NewReader(data))
}

// WriteReadable is [Dir.WriteFile] for a file without secrets: every user who may
// enter the directory can read it. The mode of the directory decides who may.
func (d *Dir) WriteReadable(name string, data []byte) error {
	return d.replace(name, 0o644, bytes.NewReader(data))
}

// ReplaceFrom replaces the file called name by the content of r. It writes a
// temporary file, fsyncs it, renames it, and fsyncs the directory. After a crash
// or an error, the file is either the old file or the new file.
func (d *Dir) ReplaceFrom(name string, r io.Reader) error { return d.replace(name, 0o600, r) }

func (d *Dir) replace(name string, mode os.FileMode, r io.Reader) error {
	f, err := renameio.NewPendingFile(d.Join(name), renameio.WithTempDir(d.Path), renameio.WithStaticPermissions(mode))
	if err != nil {
		return Unwritable(err)
	}
	defer f.Cleanup()
	if err := d.Give(f.File); err != nil {
		return err
	}
	if _, err := io.Copy(f, r); err != nil {
		return Unwritable(err)
	}
	if err := f.CloseAtomicallyReplace(); err != nil {
		return Unwritable(err)
	}
	return d.Sync()
}

// Remove removes the file called name, durably. It is not an error if there is no
// such file.
func (d *Dir) Remove(name string) error {
	if err := durable.Remove(d.Join(name)); err != nil {
		return Unwritable(err)
	}
	return nil
}

// ReplaceVolatile replaces the file called name by data, as [Dir.WriteFile] does,
// but without fsync. If the process is killed, the file is the old file or the new
// file. After a power loss it may also be empty.
func (d *Dir) ReplaceVolatile(name string, data []byte) error {
	temporary := "." + name + ".new" // this process holds the lock, so no other process uses the name
	f, err := d.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return Unwritable(err)
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(d.Join(temporary), d.Join(name))
	}
	if err != nil {
		return Unwritable(errors.Join(err, os.Remove(d.Join(temporary))))
	}
	return nil
}

// Sync makes changes of names in the directory durable.
func (d *Dir) Sync() error {
	if err := durable.Sync(d.f); err != nil {
		return Unwritable(err)
	}
	return nil
}

// OpenFile is the function [OpenFile] for the file called name.
func (d *Dir) OpenFile(name string, flag int) (*os.File, error) { return OpenFile(d.Join(name), flag) }

// ReadFile returns the content of a file in the state directory.
func (d *Dir) ReadFile(name string) ([]byte, error) {
	f, err := openFile(d.Join(name), os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(f)
}

// OpenFile opens a file as [os.OpenFile] does. A file that it creates has mode 0600
// and the owner of its directory. If this process is root and the directory
// belongs to another user, OpenFile follows no symbolic link, because that user
// may have planted it.
func OpenFile(path string, flag int) (*os.File, error) {
	uid, gid, foreign := foreignOwner(filepath.Dir(path))
	if !foreign {
		return openFile(path, flag, 0o600)
	}
	flag |= syscall.O_NOFOLLOW
	if flag&os.O_CREATE == 0 {
		return os.OpenFile(path, flag, 0)
	}
	for {
		// With O_EXCL it is certain that this process created the file. Only
		// then may it change the owner of the file.
		f, err := os.OpenFile(path, flag|os.O_EXCL, 0o600)
		if err == nil {
			if err := give(f, uid, gid); err != nil {
				return nil, errors.Join(err, f.Close(), os.Remove(path))
			}
			return f, nil
		}
		if flag&os.O_EXCL != 0 || !errors.Is(err, os.ErrExist) {
			return nil, err
		}
		f, err = os.OpenFile(path, flag&^os.O_CREATE, 0)
		if !errors.Is(err, os.ErrNotExist) {
			return f, err
		}
	}
}

// openFile is [os.OpenFile] for a regular file or a directory. os.OpenFile asks the
// kernel whether it can wait for the file, which takes five system calls and, for the
// first file, the start of the runtime's poller.
func openFile(path string, flag int, mode uint32) (*os.File, error) {
	for {
		fd, err := syscall.Open(path, flag|syscall.O_CLOEXEC|syscall.O_LARGEFILE, mode)
		switch {
		case err == nil:
			return os.NewFile(uintptr(fd), path), nil
		case err != syscall.EINTR:
			return nil, &os.PathError{Op: "open", Path: path, Err: err}
		}
	}
}

// Give changes the owner of f, which this process has created, to the owner of the
// state directory. It does nothing unless this process is root and the state
// directory belongs to another user.
func (d *Dir) Give(f *os.File) error {
	if !d.give {
		return nil
	}
	return give(f, d.uid, d.gid)
}

// give changes the owner of f.
func give(f *os.File, uid, gid int) error {
	if err := f.Chown(uid, gid); !withoutOwners(err) {
		return Unwritable(err)
	}
	return nil
}

// Inherit makes the owner of dir the owner of path, which this process has created
// there or further down, and which may be a link. It does nothing unless this process
// is root and dir belongs to another user, who must be able to replace or remove path.
func Inherit(path, dir string) error {
	uid, gid, foreign := foreignOwner(dir)
	if !foreign {
		return nil
	}
	if err := os.Lchown(path, uid, gid); !withoutOwners(err) {
		return err
	}
	return nil
}

// withoutOwners reports whether err is nil, or means that the file system has no owners
// or does not allow root to change them, as with NFS.
func withoutOwners(err error) bool {
	return err == nil || errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOTSUP)
}

// Owner returns the user and group of the state directory, for programs that write
// into it. ok is false unless this process is root and the state directory belongs
// to another user.
func (d *Dir) Owner() (uid, gid int, ok bool) { return d.uid, d.gid, d.give }

// MkdirAll creates a directory and its missing parents. Each of them gets the owner
// of its parent directory, so that a directory that root creates in the state of a
// service belongs to the service.
func MkdirAll(path string, perm os.FileMode) error {
	if info, err := os.Stat(path); err == nil {
		if !info.IsDir() {
			return &os.PathError{Op: "mkdir", Path: path, Err: syscall.ENOTDIR}
		}
		return nil
	}
	parent := filepath.Dir(path)
	if parent != path {
		if err := MkdirAll(parent, perm); err != nil {
			return err
		}
	}
	if err := os.Mkdir(path, perm); err != nil {
		if info, e := os.Lstat(path); e == nil && info.IsDir() {
			return nil // another process has created it meanwhile
		}
		return err
	}
	uid, gid, foreign := foreignOwner(parent)
	if !foreign {
		return nil
	}
	made, err := os.OpenFile(path, syscall.O_DIRECTORY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	return errors.Join(give(made, uid, gid), made.Close())
}

// foreignOwner returns the owner of a directory, and whether this process is
// root and the owner is another user.
func foreignOwner(dir string) (uid, gid int, foreign bool) {
	info, err := os.Stat(dir)
	if err != nil {
		return 0, 0, false
	}
	uid, gid = owner(info)
	return uid, gid, uid != 0 && os.Geteuid() == 0
}

// owner returns the user and group of a file.
func owner(info os.FileInfo) (uid, gid int) {
	st := info.Sys().(*syscall.Stat_t)
	return int(st.Uid), int(st.Gid)
}

// Close releases the lock.
func (d *Dir) Close() error { return d.f.Close() }

// Unwritable adds an exit status and a hint to an error of writing state.
func Unwritable(err error) error {
	where := "DIR" // unless the error names a path
	if e, ok := errors.AsType[*os.PathError](err); ok {
		where = e.Path
		if info, err := os.Stat(where); err != nil || !info.IsDir() {
			where = filepath.Dir(where) // a temporary file is removed by now
		}
	} else if e, ok := errors.AsType[*os.LinkError](err); ok {
		where = filepath.Dir(e.New)
	}
	hint := "ls -ld " + where + " shows its owner and mode: run as that user, or pass --state-dir DIR, a directory that this user can write"
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		hint = "make room on that file system: df -h " + where + "; df -i " + where + " show what is free; what was stored there before is unchanged"
	case errors.Is(err, syscall.EROFS):
		hint = "findmnt -T " + where + " shows whether that file system is read-only; under a unit it may be the sandbox, which lets the unit write to its StateDirectory= and ReadWritePaths= alone; or pass --state-dir DIR"
	case errors.Is(err, syscall.ENOTDIR):
		hint = "a file is in the place of the directory: move it away, or pass --state-dir DIR"
	}
	return sysexits.New(sysexits.CantCreate, "state_unwritable", fmt.Errorf("state: %w", err)).WithHint(hint)
}

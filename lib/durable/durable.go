// Package durable writes, replaces and removes files. When a function returns nil,
// its change survives a power loss. A crash in the middle of [Replace] or [Rename]
// leaves the old file or the new one, never half of it. All errors name a path.
package durable

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// Create creates a file with mode 0600 and opens it for writing. It first removes
// the file that a killed run left under that name. It truncates nothing and follows
// no link, because another user may have planted one.
func Create(path string) (*os.File, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
}

// Write creates a file as [Create] does, calls own to set its owner and mode, and
// fsyncs it. On an error it removes the file. The name is not durable until
// [SyncDir]; [Replace] and [Rename] call it.
func Write(path string, data []byte, own func(*os.File) error) error {
	f, err := Create(path)
	if err != nil {
		return err
	}
	if _, err = f.Write(data); err == nil {
		err = own(f)
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return nil
}

// Replace replaces the file at path by data. It writes the file called temp, which
// must be in the same directory, as [Write] does, and then renames it.
func Replace(path, temp string, data []byte, own func(*os.File) error) error {
	if err := Write(temp, data, own); err != nil {
		return err
	}
	err := Rename(temp, path)
	if err != nil {
		_ = os.Remove(temp) // it is missing if only the fsync of the directory failed
	}
	return err
}

// Rename renames a file whose content is already durable, within its directory.
// If only the fsync of the directory fails, the file has the new name.
func Rename(from, to string) error {
	if err := os.Rename(from, to); err != nil {
		return err
	}
	return SyncDir(filepath.Dir(to))
}

// Remove removes a file. It is not an error if there is no such file.
func Remove(path string) error {
	if err := os.Remove(path); errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	return SyncDir(filepath.Dir(path))
}

// SyncDir makes new names, renames and removals in a directory durable.
func SyncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(Sync(dir), dir.Close())
}

// Sync is [SyncDir] for an open directory. Some network file systems have no fsync
// of a directory; that is not an error.
func Sync(dir *os.File) error {
	if err := dir.Sync(); err != nil && !errors.Is(err, syscall.EINVAL) && !errors.Is(err, syscall.ENOTSUP) {
		return err
	}
	return nil
}

package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// scratchPrefix is the prefix of the names of directories for restored snapshots.
const scratchPrefix = ".volbackup-restic-"

// scratch creates a directory in staging and locks it until it is removed. It
// first removes directories that no process locks, which killed runs left.
func scratch(staging string) (dir string, remove func(), err error) {
	old, _ := filepath.Glob(filepath.Join(staging, scratchPrefix+"*")) // fails if staging is not a valid pattern; then no directory is removed
	for _, path := range old {
		if f, err := hold(path); err == nil {
			_ = os.RemoveAll(path) // the next run tries again
			f.Close()
		}
	}
	for {
		if dir, err = os.MkdirTemp(staging, scratchPrefix); err != nil {
			return "", nil, stagingError(err)
		}
		f, err := hold(dir)
		if errors.Is(err, fs.ErrNotExist) { // another run removed it before it was locked
			continue
		}
		// On a file system without locks f is nil. There, directories of killed runs are not removed.
		return dir, func() {
			os.RemoveAll(dir)
			if f != nil {
				f.Close()
			}
		}, nil
	}
}

// hold locks a directory of this user, and fails if it no longer exists.
func hold(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	held, err := f.Stat()
	if err == nil {
		if st, ok := held.Sys().(*syscall.Stat_t); !ok || int(st.Uid) != os.Geteuid() {
			err = fs.ErrPermission
		}
	}
	if err == nil {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	}
	if err == nil {
		if now, gone := os.Lstat(path); gone != nil || !os.SameFile(now, held) {
			err = fs.ErrNotExist
		}
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

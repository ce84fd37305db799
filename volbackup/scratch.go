package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// scratchPrefix begins the names of directories for restored snapshots.
const scratchPrefix = ".volbackup-restic-"

// scratch makes a directory in staging and holds it locked until it is removed.
// Those that nobody holds were left by runs that were killed: they go.
func scratch(staging string) (dir string, remove func(), err error) {
	old, _ := filepath.Glob(filepath.Join(staging, scratchPrefix+"*")) // staging is no pattern of ours; then none is found
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
		if errors.Is(err, fs.ErrNotExist) { // another run took it for one that was left
			continue
		}
		// A file system without locks has to do without: there, nothing is cleared up.
		return dir, func() {
			os.RemoveAll(dir)
			if f != nil {
				f.Close()
			}
		}, nil
	}
}

// hold locks a directory of this user that is still there.
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

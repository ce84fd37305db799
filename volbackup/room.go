package main

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"syscall"

	"observability-hub/lib/sysexits"
)

// checkRoom refuses to begin what could not end, before a container is stopped
// for it: where no file can be made, and for want of space, as far as the last
// archive tells or, of a first one, the size of the folder that is read.
func (s *store) checkRoom(volume string, base *manifest, folder string, stage bool) error {
	err := probe(s.folder(volume))
	if errors.Is(err, fs.ErrNotExist) { // the first of its volume
		err = probe(s.dir)
	}
	if err != nil {
		return unwritable(err)
	}
	if stage {
		if err := probe(s.staging); err != nil {
			return stagingError(err)
		}
	}
	var stored, staged int64
	switch {
	case base != nil:
		stored, staged = base.StoredBytes, base.Bytes
	case stage && folder != "":
		staged = occupied(folder)
	}
	if !stage {
		staged = 0
	}
	repo, err := free(s.dir)
	if err != nil {
		return unwritable(err)
	}
	staging, err := free(s.staging)
	if err != nil {
		return stagingError(err)
	}
	if repo.fs == staging.fs {
		stored += staged
	} else if staging.bytes < staged {
		return noRoom(s.staging, staging.bytes, staged)
	}
	if repo.bytes < stored {
		return noRoom(s.dir, repo.bytes, stored)
	}
	return nil
}

// probe makes a file in a folder, which is gone at once.
func probe(dir string) error {
	f, err := unnamed(dir)
	if err != nil {
		return err
	}
	return f.Close()
}

// occupied returns the bytes that the files in a folder take on disk, as far as
// this user may look.
func occupied(folder string) (bytes int64) {
	const sector = 512 // of st_blocks, whatever the file system
	seen := map[uint64]bool{}
	_ = filepath.WalkDir(folder, func(_ string, e fs.DirEntry, err error) error {
		if err != nil {
			return nil // what cannot be seen is not counted
		}
		info, err := e.Info()
		if err != nil {
			return nil
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok && (st.Nlink == 1 || !seen[st.Ino]) {
			bytes += st.Blocks * sector
			if st.Nlink > 1 {
				seen[st.Ino] = true
			}
		}
		return nil
	})
	return bytes
}

type space struct {
	fs    syscall.Fsid
	bytes int64
}

func free(dir string) (space, error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return space{}, fmt.Errorf("statfs %s: %w", dir, err)
	}
	return space{st.Fsid, int64(st.Bavail) * st.Bsize}, nil
}

func noRoom(dir string, has, need int64) error {
	return sysexits.New(sysexits.CantCreate, "no_room", fmt.Errorf("%s: %d MiB free, and %d MiB are needed", dir, has>>20, need>>20)).
		WithHint("make room there, or prune older backups; nothing was stopped and nothing changed")
}

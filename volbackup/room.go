package main

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"syscall"

	"observability-hub/lib/sysexits"
	"observability-hub/volbackup/internal/repository"
)

// need describes a volume whose backup needs room.
type need struct {
	volume string
	base   *repository.Manifest // the newest archive, nil if there is none
	dir    string               // the directory that is read, "" if it is not known
}

// checkRoom fails if there is not enough room for the backups, or if no file can be
// created. It is called before a container is stopped. A backup needs as much room as
// the newest archive of its volume needed. For the first backup of a volume, the staging
// directory needs as much room as the volume's directory takes.
func (s *store) checkRoom(stage bool, needs ...need) error {
	var stored, staged int64
	for _, n := range needs {
		err := probe(s.Dir(n.volume))
		if errors.Is(err, fs.ErrNotExist) { // the first backup of the volume
			err = probe(s.Root)
		}
		if err != nil {
			return repository.Unwritable(err)
		}
		switch {
		case n.base != nil:
			stored, staged = stored+n.base.StoredBytes, staged+n.base.Bytes
		case stage && n.dir != "":
			staged += occupied(n.dir)
		}
	}
	if stage {
		if err := probe(s.staging); err != nil {
			return stagingError(err)
		}
	} else {
		staged = 0
	}
	repo, err := free(s.Root)
	if err != nil {
		return repository.Unwritable(err)
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
		return noRoom(s.Root, repo.bytes, stored)
	}
	return nil
}

func stagingError(err error) error {
	hint := "pass --staging DIR, a directory that the user of this run can write to"
	if repository.Full(err) {
		hint = "make room there, or pass --staging DIR with room for the volume; the existing backups are unchanged"
	}
	return sysexits.New(sysexits.CantCreate, "staging_unwritable", fmt.Errorf("staging: %w", err)).WithHint(hint)
}

// probe creates an unnamed file in a directory to see whether that works.
func probe(dir string) error {
	f, err := repository.Unnamed(dir)
	if err != nil {
		return err
	}
	return f.Close()
}

// occupied returns the size on disk of the files in a directory. It does not count
// files that this user cannot see.
func occupied(dir string) (bytes int64) {
	const sector = 512 // the unit of st_blocks on every file system
	seen := map[uint64]bool{}
	_ = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil {
			return nil // not counted
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
	return sysexits.New(sysexits.CantCreate, "no_room", fmt.Errorf("%s: %d MiB free, %d MiB needed", dir, has>>20, need>>20)).
		WithHint("make room there, or prune older backups; no container was stopped, and the backups are unchanged")
}

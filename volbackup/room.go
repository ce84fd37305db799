package main

import (
	"fmt"
	"syscall"

	"observability-hub/lib/sysexits"
)

// checkRoom refuses to begin what could not end for want of space, as far as
// the last archive tells: before a container is stopped for it.
func (s *store) checkRoom(base *manifest, stage bool) error {
	if base == nil {
		return nil
	}
	repo, err := free(s.dir)
	if err != nil {
		return unwritable(err)
	}
	staging, err := free(s.staging)
	if err != nil {
		return stagingError(err)
	}
	need, staged := uint64(base.StoredBytes), uint64(0)
	if stage {
		staged = uint64(base.Bytes)
	}
	if repo.fs == staging.fs {
		need += staged
	} else if staging.bytes < staged {
		return noRoom(s.staging, staging.bytes, staged)
	}
	if repo.bytes < need {
		return noRoom(s.dir, repo.bytes, need)
	}
	return nil
}

type space struct {
	fs    syscall.Fsid
	bytes uint64
}

func free(dir string) (space, error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return space{}, fmt.Errorf("statfs %s: %w", dir, err)
	}
	return space{st.Fsid, st.Bavail * uint64(st.Bsize)}, nil
}

func noRoom(dir string, has, need uint64) error {
	return sysexits.New(sysexits.CantCreate, "no_room", fmt.Errorf("%s: %d MiB free, and the last backup needed %d MiB", dir, has>>20, need>>20)).
		WithHint("make room there, or prune older backups; nothing was stopped and nothing changed")
}

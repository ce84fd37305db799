package postgres

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// mountDisk puts a tmpfs of the given size on dir.
func mountDisk(dir string, size int64) error {
	if os.Geteuid() != 0 {
		return errors.New("a disk that can be filled needs root: run the tests as root")
	}
	if err := syscall.Mount("hub-e2e", dir, "tmpfs", 0, fmt.Sprintf("size=%d", size)); err != nil {
		return fmt.Errorf("mount tmpfs on %s: %w", dir, err)
	}
	return nil
}

// unmountDisk undoes mountDisk. It is no error if nothing is mounted there.
func unmountDisk(dir string) error {
	err := syscall.Unmount(dir, syscall.MNT_DETACH)
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.EPERM) {
		return nil
	}
	return err
}

// Fill takes every free byte of the cluster's disk until Empty gives them back. The next write that
// needs a new page or a new segment of the log then fails; the latter takes the whole server down.
func (c *Cluster) Fill() error {
	if c.config.Disk == 0 {
		return errors.New("this cluster has no disk of its own: see Config.Disk")
	}
	f, err := os.OpenFile(c.filler(), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	// Halving the size of the write fills the last page too.
	for size := 1 << 20; size > 0; {
		n, err := f.Write(make([]byte, size))
		switch {
		case errors.Is(err, syscall.ENOSPC):
			if n == 0 {
				size /= 2
			}
		case err != nil:
			return errors.Join(err, f.Close())
		}
	}
	return f.Close()
}

// Empty gives the disk's space back and starts the server again if the lack of it took it down.
func (c *Cluster) Empty() error {
	if err := removeIfThere(c.filler()); err != nil {
		return err
	}
	return c.revive()
}

func (c *Cluster) filler() string { return filepath.Join(c.data(), "filler") }

// revive makes sure that the server answers. One whose disk was full may still be about to give up on its recovery.
func (c *Cluster) revive() error {
	if c.Running() {
		if err := c.awaitReady(); err == nil {
			return nil
		}
	}
	if c.Running() {
		if err := c.Crash(); err != nil {
			return err
		}
	}
	return c.Start()
}

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
		return errors.New("Config.Disk needs root: run the tests as root")
	}
	if err := syscall.Mount("hub-e2e", dir, "tmpfs", 0, fmt.Sprintf("size=%d", size)); err != nil {
		return fmt.Errorf("mount tmpfs on %s: %w", dir, err)
	}
	return nil
}

// unmountDisk unmounts the tmpfs on dir. It does nothing if nothing is mounted there.
func unmountDisk(dir string) error {
	err := syscall.Unmount(dir, syscall.MNT_DETACH)
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.EPERM) {
		return nil
	}
	return err
}

// Fill fills the cluster's disk until Empty is called. Then a write that needs a new page or a new WAL segment fails.
// A failed WAL write stops the whole server.
func (c *Cluster) Fill() error {
	if c.config.Disk == 0 {
		return errors.New("the cluster has no separate disk: set Config.Disk")
	}
	f, err := os.OpenFile(c.filler(), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	// Halve the size of the writes, in order to fill the last page too.
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

// Empty frees the disk's space. It starts the server again if the full disk stopped it.
func (c *Cluster) Empty() error {
	if err := removeIfExists(c.filler()); err != nil {
		return err
	}
	return c.revive()
}

func (c *Cluster) filler() string { return filepath.Join(c.data(), "filler") }

// revive returns after the server answers. A server whose disk was full may still be about to stop in its recovery.
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

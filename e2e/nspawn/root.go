package nspawn

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
)

// Suites of Debian that a machine can run.
const (
	Bookworm = "bookworm" // Debian 12, systemd 252
	Trixie   = "trixie"   // Debian 13, systemd 257
)

// base are the packages of every root: systemd as PID 1, and the bus that systemctl and similar programs need.
var base = []string{"systemd", "systemd-sysv", "dbus"}

// recipe must change whenever build changes, so that roots of another recipe are not used.
const recipe = "1"

// CacheDir returns the directory in which roots are kept between runs: $XDG_CACHE_HOME/observability-hub, else
// /var/cache/observability-hub. It can be deleted while no test runs. The next roots then have newer packages.
func CacheDir() string {
	parent := os.Getenv("XDG_CACHE_HOME")
	if parent == "" {
		parent = "/var/cache"
	}
	return filepath.Join(parent, "observability-hub")
}

// Root returns the directory of a Debian root of that suite with the given packages in addition to systemd and dbus. If the
// cache has no such root, Root builds it, which takes about half a minute and needs a Debian mirror. Nothing may write to it.
//
// A root is built in a directory of another name under a lock. So a root with its final name is complete, and several
// processes may ask at the same time.
func Root(suite string, packages ...string) (string, error) {
	all := slices.Concat(base, packages)
	slices.Sort(all)
	all = slices.Compact(all)
	key := sha256.Sum256([]byte(recipe + " " + suite + " " + runtime.GOARCH + " " + strings.Join(all, " ")))
	dir := filepath.Join(CacheDir(), fmt.Sprintf("%s-%x", suite, key[:6]))

	if err := os.MkdirAll(CacheDir(), 0o755); err != nil {
		return "", err
	}
	unlock, err := lock(dir + ".lock")
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	// This process holds the lock, so an existing directory was left by a killed process.
	unfinished := dir + ".new"
	if err := os.RemoveAll(unfinished); err != nil {
		return "", err
	}
	if err := build(unfinished, suite, all); err != nil {
		return "", errors.Join(err, os.RemoveAll(unfinished))
	}
	return dir, os.Rename(unfinished, dir)
}

func build(dir, suite string, packages []string) error {
	// It runs in its own namespaces, so that no mount and no process outlives this process.
	out, err := combinedOutput(exec.Command("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--",
		"mmdebstrap", "--mode=root", "--variant=minbase", "--include="+strings.Join(packages, ","),
		// Without this directory journald would keep the journal in memory, where it is lost when the machine ends.
		`--customize-hook=mkdir -p "$1/var/log/journal"`,
		suite, dir))
	if err != nil {
		return fmt.Errorf("build a root of Debian %s with mmdebstrap, which needs a Debian mirror: %w\n%s", suite, err, out)
	}
	return nil
}

// combinedOutput runs cmd, which is killed when this process ends.
func combinedOutput(cmd *exec.Cmd) ([]byte, error) {
	// The kernel sends the signal when the thread ends, not the process. So the thread must not end before cmd.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd.CombinedOutput()
}

// lock waits for an exclusive lock on the file and returns the function that releases it.
func lock(path string) (func(), error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX); err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), file.Close())
	}
	return func() { _ = file.Close() }, nil
}

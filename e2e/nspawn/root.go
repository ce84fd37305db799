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

// Suites of Debian that a machine may be.
const (
	Bookworm = "bookworm" // Debian 12, systemd 252
	Trixie   = "trixie"   // Debian 13, systemd 257
)

// base is what every root has: systemd as PID 1 and the bus that systemctl and its like need.
var base = []string{"systemd", "systemd-sysv", "dbus"}

// recipe changes whenever build does, so that roots of another recipe are not used.
const recipe = "1"

// CacheDir is where roots are kept between runs: $XDG_CACHE_HOME/observability-hub, else /var/cache/observability-hub. It is
// safe to delete while no test runs; that is also how to have newer packages.
func CacheDir() string {
	parent := os.Getenv("XDG_CACHE_HOME")
	if parent == "" {
		parent = "/var/cache"
	}
	return filepath.Join(parent, "observability-hub")
}

// Root gives the directory of a Debian root of that suite with the given packages beside systemd and dbus. It is built when the cache has
// none, which takes about half a minute and needs a Debian mirror. Nothing may write to it.
//
// It is built in a folder of another name under a lock, so that one which is there is whole, and several processes may ask
// at once.
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
	// Under the lock, what is there is what a killed process left.
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
	// In namespaces of its own, so that no mount and no process outlives this one.
	out, err := combinedOutput(exec.Command("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--",
		"mmdebstrap", "--mode=root", "--variant=minbase", "--include="+strings.Join(packages, ","),
		// Without the folder journald would keep the journal in memory, where it goes with the machine.
		`--customize-hook=mkdir -p "$1/var/log/journal"`,
		suite, dir))
	if err != nil {
		return fmt.Errorf("build a root of Debian %s with mmdebstrap, which needs a Debian mirror: %w\n%s", suite, err, out)
	}
	return nil
}

// combinedOutput runs cmd, which dies with this process.
func combinedOutput(cmd *exec.Cmd) ([]byte, error) {
	// The signal comes when the thread ends, not the process: the thread must be there until cmd is done.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd.CombinedOutput()
}

// lock waits for an exclusive lock on the file and gives the function that releases it.
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

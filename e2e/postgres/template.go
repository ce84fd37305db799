package postgres

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"syscall"

	"observability-hub/e2e/workspace"
)

// templateRevision is part of the cached template's name. Increment it if the template's content changes.
const templateRevision = "1"

// binDir returns the directory of the server's programs. Debian does not put it into PATH, and has one for each version.
func binDir() (string, error) {
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if err != nil {
		return "", err
	}
	if len(found) == 0 {
		path, err := exec.LookPath("initdb")
		if err != nil {
			return "", errors.New("no PostgreSQL server programs in /usr/lib/postgresql or PATH: install the package postgresql")
		}
		return filepath.Dir(path), nil
	}
	version := func(path string) int {
		n, _ := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(path)))) // a directory with another name sorts first
		return n
	}
	sort.Slice(found, func(i, j int) bool { return version(found[i]) < version(found[j]) })
	return filepath.Dir(found[len(found)-1]), nil
}

// serverUser returns the user of the server, or nil for the user of this process.
func serverUser() (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		return nil, fmt.Errorf("PostgreSQL refuses to run as root: %w", err)
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return nil, err
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
}

// copyTemplate fills the data directory from the cached result of initdb, because initdb takes a second.
func (c *Cluster) copyTemplate() error {
	template, err := c.template()
	if err != nil {
		return err
	}
	if out, err := exec.Command("cp", "-a", template+"/.", c.data()).CombinedOutput(); err != nil {
		return fmt.Errorf("copy %s: %w\n%s", template, err, out)
	}
	return nil
}

// template returns the path of the cached template. It creates the template if it is missing. Two processes may call it at once.
func (c *Cluster) template() (string, error) {
	cache, err := workspace.Cache()
	if err != nil {
		return "", err
	}
	version, err := c.command("postgres", "--version").Output()
	if err != nil {
		return "", fmt.Errorf("postgres --version: %w", err)
	}
	owner := os.Geteuid()
	if c.user != nil {
		owner = int(c.user.Uid)
	}
	name := fmt.Sprintf("postgres-%s-%d-%s", strings.Fields(string(version))[2], owner, templateRevision)
	path := filepath.Join(cache, name)
	lock, err := os.OpenFile(path+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return "", fmt.Errorf("lock %s: %w", lock.Name(), err)
	}
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	if err := c.makeTemplate(path); err != nil {
		return "", fmt.Errorf("make the template %s: %w", path, err)
	}
	return path, nil
}

func (c *Cluster) makeTemplate(path string) error {
	// The server's user may not be able to access the cache. Create the template in the cluster's directory and copy it.
	work := filepath.Join(c.Dir, "template")
	defer os.RemoveAll(work)
	if err := c.run("initdb", "-D", work, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8",
		// With small segments the WAL fits on a small disk and can be copied quickly.
		"--wal-segsize=1", "--no-sync", "--no-instructions"); err != nil {
		return err
	}
	// Single-user mode reads one statement per line and needs no server.
	single := c.command("postgres", "--single", "-F", "-D", work, "postgres")
	single.Stdin = strings.NewReader("CREATE ROLE hub LOGIN\nCREATE DATABASE hub OWNER hub\n")
	if out, err := single.CombinedOutput(); err != nil {
		return fmt.Errorf("postgres --single: %w\n%s", err, out)
	}
	fresh := path + ".new"
	if err := os.RemoveAll(fresh); err != nil {
		return err
	}
	if out, err := exec.Command("cp", "-a", work, fresh).CombinedOutput(); err != nil {
		return fmt.Errorf("copy: %w\n%s", err, out)
	}
	return os.Rename(fresh, path)
}

package nspawn

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// standIn replaces mmdebstrap by a shell script, and the cache by an empty directory.
func standIn(t *testing.T, script string) {
	t.Helper()
	bin := t.TempDir()
	if err := os.WriteFile(filepath.Join(bin, "mmdebstrap"), []byte("#!/bin/bash\n"+script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
}

func TestRootIsBuiltOnce(t *testing.T) {
	calls := filepath.Join(t.TempDir(), "calls")
	standIn(t, `echo "$*" >>`+calls+`; mkdir "${@: -1}"; echo whole >"${@: -1}/file"`)
	dirs := make([]string, 4)
	var group sync.WaitGroup
	for i := range dirs {
		group.Go(func() {
			var err error
			// The order of the packages makes no difference.
			if dirs[i], err = Root(Bookworm, [][]string{{"jq", "git"}, {"git", "jq", "git"}}[i%2]...); err != nil {
				t.Errorf("Root: %v", err)
			}
		})
	}
	group.Wait()
	for _, dir := range dirs {
		if dir != dirs[0] {
			t.Errorf("two roots for the same packages: %s, %s", dir, dirs[0])
		}
	}
	if content, err := os.ReadFile(filepath.Join(dirs[0], "file")); string(content) != "whole\n" {
		t.Errorf("the root is not whole: %q, %v", content, err)
	}
	log, err := os.ReadFile(calls)
	if err != nil || strings.Count(string(log), "\n") != 1 || !strings.Contains(string(log), "--include=dbus,git,jq,systemd,systemd-sysv ") {
		t.Errorf("mmdebstrap ran with %q, %v; want one run", log, err)
	}
	if other, err := Root(Bookworm, "git"); err != nil || other == dirs[0] {
		t.Errorf("Root with other packages = %s, %v", other, err)
	}
	if other, err := Root(Trixie, "git", "jq"); err != nil || other == dirs[0] {
		t.Errorf("Root of another suite = %s, %v", other, err)
	}
}

func TestRootFails(t *testing.T) {
	standIn(t, `mkdir "${@: -1}"; echo no mirror >&2; exit 3`)
	if dir, err := Root(Bookworm); err == nil || !strings.Contains(err.Error(), "no mirror") {
		t.Errorf("Root = %q, %v; want what mmdebstrap said", dir, err)
	}
	if left, err := filepath.Glob(filepath.Join(CacheDir(), Bookworm+"-*[^k]")); err != nil || len(left) > 0 {
		t.Errorf("left in the cache: %q, %v", left, err)
	}
}

func TestRootAfterAKill(t *testing.T) {
	standIn(t, `mkdir "${@: -1}"`)
	dir, err := Root(Bookworm)
	if err != nil {
		t.Fatal(err)
	}
	// A killed build leaves an unfinished directory.
	if err := os.Rename(dir, dir+".new"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir+".new", "half"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if dir, err = Root(Bookworm); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "half")); !os.IsNotExist(err) {
		t.Errorf("a half-built root is in use: %v", err)
	}
}

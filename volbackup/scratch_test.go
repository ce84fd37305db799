package main

import (
	"os"
	"path/filepath"
	"testing"
)

// Directories of killed runs are removed. Directories of live runs, and files of other
// programs, are kept.
func TestScratch(t *testing.T) {
	staging := t.TempDir()
	used, remove, err := scratch(staging)
	if err != nil {
		t.Fatal(err)
	}
	left := filepath.Join(staging, scratchPrefix+"left")
	link := filepath.Join(staging, scratchPrefix+"link")
	target := filepath.Join(t.TempDir(), "target")
	for _, dir := range []string{filepath.Join(left, "deep"), target} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(target, link); err != nil {
		t.Fatal(err)
	}
	second, removeSecond, err := scratch(staging)
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]bool{used: true, second: true, left: false, target: true} {
		if _, err := os.Stat(path); (err == nil) != want {
			t.Errorf("%s exists: %v; want %v", path, err == nil, want)
		}
	}
	remove()
	removeSecond()
	for _, path := range []string{used, second} {
		if _, err := os.Stat(path); err == nil {
			t.Errorf("%s still exists", path)
		}
	}
}

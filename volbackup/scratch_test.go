package main

import (
	"os"
	"path/filepath"
	"testing"
)

// What a killed run left goes; what a living one uses, and what is none of ours, stays.
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
			t.Errorf("%s is there: %v; want %v", path, err == nil, want)
		}
	}
	remove()
	removeSecond()
	for _, path := range []string{used, second} {
		if _, err := os.Stat(path); err == nil {
			t.Errorf("%s is still there", path)
		}
	}
}

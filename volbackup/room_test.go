package main

import (
	"os"
	"path/filepath"
	"testing"
)

// A file that has several names takes its room once.
func TestOccupied(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "below"), 0o755); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "below", "file")
	if err := os.WriteFile(file, make([]byte, 1<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	one := occupied(dir)
	if one < 1<<20 || one > 1<<20+1<<16 {
		t.Errorf("a file of 1 MiB takes %d bytes", one)
	}
	if err := os.Link(file, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if two := occupied(dir); two != one {
		t.Errorf("with a second name %d bytes; want %d", two, one)
	}
}

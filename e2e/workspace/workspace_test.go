package workspace

import (
	"os"
	"path/filepath"
	"testing"
)

func TestRoot(t *testing.T) {
	root, err := Root()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(root, "e2e", "workspace", "workspace.go")); err != nil {
		t.Errorf("Root() = %s, which is not the directory of this project: %v", root, err)
	}
	t.Chdir("/")
	if got, err := Root(); err == nil {
		t.Errorf("Root() in / = %s; want an error", got)
	}
}

func TestBinaryFromTheEnvironment(t *testing.T) {
	given := t.TempDir()
	want := filepath.Join(given, "made-before")
	if err := os.WriteFile(want, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv(binEnv, given)
	if got, err := Binary("made-before"); err != nil || got != want {
		t.Errorf("Binary() = %q, %v; want %q", got, err, want)
	}
	if got, err := Binary("missing"); err == nil {
		t.Errorf("Binary() of a file that is not there = %q; want an error", got)
	}
}

func TestBuildIsCleaned(t *testing.T) {
	src := t.TempDir()
	for name, content := range map[string]string{"go.mod": "module empty\n\ngo 1.26\n", "main.go": "package main\n\nfunc main() {}\n"} {
		if err := os.WriteFile(filepath.Join(src, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("GOWORK", "off")
	path, err := Build(src, "empty")
	if err != nil {
		t.Fatal(err)
	}
	if err := Clean(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("%s after Clean(): %v; want it gone", path, err)
	}
}

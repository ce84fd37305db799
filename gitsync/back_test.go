package main

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"observability-hub/lib/statedir"
	"observability-hub/lib/sysexits"
)

// A bad commit is undone even if the quarantine cannot be written. The journal
// stays, and the next run writes the quarantine.
func TestUndoWithoutQuarantine(t *testing.T) {
	const p = "/etc/systemd/system/a.service"
	dir, err := statedir.Open(context.Background(), t.TempDir(), 0)
	if err != nil {
		t.Fatal(err)
	}
	h := host{root: t.TempDir()}
	real := filepath.Join(h.root, p)
	if err := os.MkdirAll(filepath.Dir(real), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(real, []byte("new"), 0o644); err != nil {
		t.Fatal(err)
	}
	j := &journal{
		Version: journalVersion, Root: h.root, Commit: "bad", Run: "1", Bad: "a.service: it failed",
		Files: []savedFile{{p, "file", 0o644, uint32(os.Getuid()), uint32(os.Getgid()), []byte("old"), sum([]byte("old"))}},
	}
	if err := writeState(dir, journalFile, j); err != nil {
		t.Fatal(err)
	}
	// A directory in its place: no file can be renamed to it.
	if err := os.Mkdir(dir.Join(quarantineFile), 0o700); err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	a := &apply{dir: dir, host: h}
	if err := a.undo(context.Background(), j); sysexits.Code(err) != sysexits.CantCreate {
		t.Errorf("undo = %v; want status 73", err)
	}
	if got, err := os.ReadFile(real); string(got) != "old" {
		t.Errorf("the file is %q, %v; want the old one", got, err)
	}
	if again, err := readJournal(dir.Path); err != nil || again == nil || again.Bad == "" {
		t.Errorf("the journal is %+v, %v; it must stay", again, err)
	}
	if err := os.Remove(dir.Join(quarantineFile)); err != nil {
		t.Fatal(err)
	}
	if err := a.undo(context.Background(), j); err != nil {
		t.Fatal(err)
	}
	if q, err := readQuarantine(dir.Path); err != nil || q.Commit != "bad" {
		t.Errorf("quarantine: %+v, %v", q, err)
	}
	if again, err := readJournal(dir.Path); err != nil || again != nil {
		t.Errorf("the journal still exists: %+v, %v", again, err)
	}
}

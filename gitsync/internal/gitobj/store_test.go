package gitobj

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"observability-hub/lib/sysexits"
)

// The error is the same whether git ends before the request or because of it.
func TestReadWithoutStore(t *testing.T) {
	reader, err := NewReader(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	o, err := reader.Open(t.Context(), "/nowhere")
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	// When git's output ends, git has ended and its stdin is closed.
	if _, err := o.out.Peek(1); err == nil {
		t.Fatal("git answers without a store")
	}
	if _, _, err := o.read("0123456789012345678901234567890123456789", 1); !errors.Is(err, ErrCorrupt) {
		t.Errorf("read = %v; want %v", err, ErrCorrupt)
	}
}

// repository creates a repository with one commit per script. It returns the object
// directory and the commits.
func repository(t *testing.T, scripts ...string) (objects string, commits []string) {
	t.Helper()
	dir := t.TempDir()
	run := func(script string) string {
		cmd := exec.Command("sh", "-ec", script)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@b", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@b")
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%s: %v", script, err)
		}
		return strings.TrimSpace(string(out))
	}
	run("git init -q -b main")
	for _, s := range scripts {
		commits = append(commits, run(s+"; git add -A; git commit -q --allow-empty -m x; git rev-parse HEAD"))
	}
	return filepath.Join(dir, ".git/objects"), commits
}

func openStore(t *testing.T, objects string) *Store {
	t.Helper()
	reader, err := NewReader(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	s, err := reader.Open(t.Context(), objects)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func TestReadRepository(t *testing.T) {
	objects, commits := repository(t, "mkdir -p a/b; echo one >a/b/f; ln -s f a/link", "echo two >a/b/f")
	s := openStore(t, objects)
	c, err := s.Peel(commits[1])
	if err != nil || c.ID != commits[1] || c.Signed() {
		t.Fatalf("Peel = %+v, %v", c, err)
	}
	for _, tc := range []struct {
		from, to string
		want     bool
	}{{commits[1], commits[0], true}, {commits[0], commits[1], false}, {commits[0], commits[0], true}} {
		if got, err := s.Descends(tc.from, tc.to); got != tc.want || err != nil {
			t.Errorf("Descends(%s, %s) = %v, %v; want %v", tc.from, tc.to, got, err, tc.want)
		}
	}
	below, err := s.At(c, "a/b")
	if err != nil {
		t.Fatal(err)
	}
	entries, err := s.Tree(below.Tree)
	if err != nil || len(entries) != 1 || entries[0].Name != "f" || below.ID != c.ID {
		t.Fatalf("Tree of a/b = %+v, %v", entries, err)
	}
	if content, err := s.Blob("a/b/f", entries[0].ID, 100); string(content) != "two\n" || err != nil {
		t.Errorf("Blob = %q, %v", content, err)
	}
	if same, err := s.At(c, ""); same != c || err != nil {
		t.Errorf("At of the whole repository = %+v, %v", same, err)
	}
	for dir, want := range map[string]string{"a/none": `"a/none": commit`, "a/b/f": "it is a file", "a/link": "it is a symbolic link", "none/x": `"none"`} {
		if _, err := s.At(c, dir); sysexits.Code(err) != sysexits.DataErr || !strings.Contains(err.Error(), want) {
			t.Errorf("At(%s) = %v; want status 65 and %s", dir, err, want)
		}
	}
	if _, err := s.Peel(c.Tree); sysexits.Code(err) != sysexits.DataErr {
		t.Errorf("Peel of a tree = %v; want status 65", err)
	}
	if _, err := s.Commit(c.Tree); err == nil {
		t.Error("Commit accepts a tree")
	}
	if _, err := s.Tree(c.ID); err == nil {
		t.Error("Tree accepts a commit")
	}
	if _, err := s.Blob("x", c.Tree, 1000); sysexits.Code(err) != sysexits.DataErr {
		t.Errorf("Blob of a tree = %v; want status 65", err)
	}
	if _, err := s.Commit(strings.Repeat("0", 40)); !errors.Is(err, ErrMissing) {
		t.Errorf("Commit of a missing object = %v; want %v", err, ErrMissing)
	}
	if _, err := s.Blob("f", entries[0].ID, 3); sysexits.Code(err) != sysexits.DataErr {
		t.Errorf("Blob that is too long = %v; want status 65", err)
	}
}

// A commit without a signature is never verified.
func TestVerifyCommitUnsigned(t *testing.T) {
	objects, commits := repository(t, "true")
	s := openStore(t, objects)
	c, err := s.Commit(commits[0])
	if err != nil {
		t.Fatal(err)
	}
	reader, err := NewReader(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := reader.VerifyCommit(t.Context(), c, nil, nil); err == nil || sysexits.Code(err) != sysexits.Failed {
		t.Errorf("VerifyCommit = %v; want git's refusal", err)
	}
	if left, _ := filepath.Glob(filepath.Join(reader.dir, "commit-*")); len(left) > 0 {
		t.Errorf("VerifyCommit leaves %q", left)
	}
}

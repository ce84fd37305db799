package deadletter

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"observability-hub/lib/sysexits"
)

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o640); err != nil {
		t.Fatal(err)
	}
}

// rewrite keeps the lines that keep accepts, and commits if commit is set.
func rewrite(t *testing.T, path string, commit bool, keep func(string) bool) {
	t.Helper()
	r, err := Rewrite(path)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for {
		line, err := r.Lines.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if keep(string(line)) {
			if err := r.Keep(line); err != nil {
				t.Fatal(err)
			}
		}
	}
	if commit {
		if err := r.Commit(); err != nil {
			t.Fatal(err)
		}
	}
}

// Commit replaces the file as a whole, and Close without Commit does not change it.
// Symbolic links to the file and its mode are preserved.
func TestRewrite(t *testing.T) {
	dir := t.TempDir()
	path, link := filepath.Join(dir, "letters"), filepath.Join(dir, "link")
	write(t, path, "a\nb\nc\n")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	content := func() string {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	rewrite(t, link, false, func(string) bool { return false })
	if got := content(); got != "a\nb\nc\n" {
		t.Errorf("without a commit: %q", got)
	}
	rewrite(t, link, true, func(line string) bool { return line != "b" })
	if got := content(); got != "a\nc\n" {
		t.Errorf("after a commit: %q", got)
	}
	if info, err := os.Lstat(link); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link was replaced: %v", err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("the mode is %v, %v", info.Mode(), err)
	}
	if names, err := os.ReadDir(dir); err != nil || len(names) != 2 {
		t.Errorf("the directory has %d files, %v; want 2", len(names), err)
	}
}

func TestRewriteRefuses(t *testing.T) {
	dir := t.TempDir()
	for _, path := range []string{filepath.Join(dir, "none"), dir, "/dev/null"} {
		if r, err := Rewrite(path); sysexits.Code(err) != sysexits.DataErr {
			t.Errorf("Rewrite(%s) = %v, %v", path, r, err)
		}
	}
}

// Only one process at a time can lock the file.
func TestLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "letters")
	write(t, path, "")
	f, err := Lock(path, os.O_RDONLY)
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan error, 1)
	go func() {
		second, err := Lock(path, os.O_RDONLY)
		if err == nil {
			second.Close()
		}
		got <- err
	}()
	select {
	case err := <-got:
		t.Fatalf("a second Lock succeeded: %v", err)
	default:
	}
	f.Close()
	if err := <-got; err != nil {
		t.Errorf("Lock after the first holder closed the file: %v", err)
	}
}

// Parse returns the fields of a letter, and an error for any other line.
func TestParse(t *testing.T) {
	for line, want := range map[string]error{
		`{"mongo_id":"a","reason":"nul","detail":"d","document":{"_id":"a"},"guard":"g"}`: nil,
		`{"mongo_id":"a","reason":"nul","document":null,"bson":"BQAAAAA="}`:               nil,
		`{"mongo_id":"a"}`: errors.New(""), `{"mongo_id":5,"document":{}}`: errors.New(""), `{"document":{}`: errors.New(""), `[]`: errors.New(""),
		`{"mongo_id":"a","bson":"%"}`: errors.New(""),
	} {
		l, err := Parse([]byte(line))
		if (err == nil) != (want == nil) || err == nil && (l.ID != "a" || l.Reason != "nul") {
			t.Errorf("Parse(%s) = %+v, %v", line, l, err)
		}
		if doc, err := l.Doc(); want == nil && (err != nil || len(doc) < 5) {
			t.Errorf("the document of %s is %x, %v", line, doc, err)
		}
	}
}

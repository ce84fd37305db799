package deadletter

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"observability-hub/lib/diag"
)

// A killed run may leave an incomplete last line, which Open removes. It may leave
// letters of documents that it did not mark, which Append does not write again.
func TestLettersAreUnique(t *testing.T) {
	path := filepath.Join(t.TempDir(), "dead-letters.jsonl")
	var said bytes.Buffer
	log := &diag.Logger{Name: "readsync", Service: "reading-sync", Now: time.Now, W: &said}
	letter := func(id, text string) Letter {
		return Letter{ID: id, Reason: "nul", Detail: "holds a NUL character", Document: []byte(`{"_id":"` + id + `","payload":"` + text + `"}`)}
	}
	write := func(letters ...Letter) {
		t.Helper()
		d, err := Open(log, path)
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		if err := d.Append("reading-sync", letters); err != nil {
			t.Fatal(err)
		}
	}
	count := func() int {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return bytes.Count(b, []byte("\n"))
	}
	write(letter("a", "\\u0000"), letter("b", "\\u0000"))
	write(letter("a", "\\u0000"), letter("c", "\\u0000"))
	if n := count(); n != 3 || said.Len() != 0 {
		t.Errorf("%d letters, %s; want 3", n, said.String())
	}
	write(letter("a", "edited\\u0000"))
	if n := count(); n != 4 {
		t.Errorf("%d letters; want 4, because the document has changed", n)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, info.Size()-5); err != nil {
		t.Fatal(err)
	}
	write(letter("a", "edited\\u0000"))
	if n := count(); n != 4 || !bytes.Contains(said.Bytes(), []byte("dead_letters_torn")) {
		t.Errorf("%d letters, %s; want 4, and a warning about the incomplete line", n, said.String())
	}
	d, err := Open(log, path)
	if err != nil || len(d.seen) != 4 {
		t.Errorf("%d letters can be read, %v; want 4", len(d.seen), err)
	}
	d.Close()
}

package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"observability-hub/lib/cli"
	"observability-hub/lib/diag"
)

// A killed run leaves half a line, or letters of documents that it could not mark:
// the one is cut off, the others are not written twice.
func TestDeadLettersAreThereOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "dead-letters.jsonl")
	var said bytes.Buffer
	env := &cli.Env{App: app(), Diag: &diag.Logger{Name: name, Service: family, Now: time.Now, W: &said}}
	refused := func(id, text string) *row {
		r := newBuilder(nulReject, datesFlag{}).row(marshal(t, bson.D{{Key: "_id", Value: id}, {Key: "payload", Value: text}}))
		if r.refused == nil {
			t.Fatalf("%s is not refused", id)
		}
		return &r
	}
	write := func(rows ...*row) {
		t.Helper()
		d, err := openDeadLetters(env, path)
		if err != nil {
			t.Fatal(err)
		}
		defer d.close()
		if err := d.append(rows); err != nil {
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
	write(refused("a", "\x00"), refused("b", "\x00"))
	write(refused("a", "\x00"), refused("c", "\x00"))
	if n := count(); n != 3 || said.Len() != 0 {
		t.Errorf("%d letters, %s; want 3", n, said.String())
	}
	write(refused("a", "edited\x00"))
	if n := count(); n != 4 {
		t.Errorf("%d letters; want 4: the document has changed", n)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, info.Size()-5); err != nil {
		t.Fatal(err)
	}
	write(refused("a", "edited\x00"))
	if n := count(); n != 4 || !bytes.Contains(said.Bytes(), []byte("dead_letters_torn")) {
		t.Errorf("%d letters, %s; want 4, and a word about the half one", n, said.String())
	}
	d, err := openDeadLetters(env, path)
	if err != nil || len(d.seen) != 4 {
		t.Errorf("%d letters can be read, %v; want 4", len(d.seen), err)
	}
	d.close()
}

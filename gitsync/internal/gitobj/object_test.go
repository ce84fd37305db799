package gitobj

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

const someHash = "0123456789abcdef0123456789abcdef01234567"

func TestParseCommit(t *testing.T) {
	other := strings.Repeat("a", 40)
	c, err := parseCommit(someHash, []byte("tree "+someHash+"\nparent "+other+"\nparent "+someHash+"\nauthor a <a@b> 0 +0000\n\ntree "+other+"\n"))
	if err != nil || c.Tree != someHash || len(c.parents) != 2 || c.parents[0] != other {
		t.Errorf("parseCommit = %+v, %v", c, err)
	}
	for _, bad := range []string{"", "parent " + someHash + "\n", "tree x\n", "tree " + someHash + "\nparent ../x\n", "author\ntree " + someHash + "\n"} {
		if c, err := parseCommit(someHash, []byte(bad)); err == nil {
			t.Errorf("parseCommit(%q) = %+v; want an error", bad, c)
		}
	}
}

func TestTrailer(t *testing.T) {
	header := "tree " + someHash + "\ngpgsig -----BEGIN\n \n Key: signature\n -----END\n\n"
	for message, want := range map[string]string{
		"": "", "subject": "", "Key: subject": "", "subject\n\nKey: now": "now", "subject\n\nbody\n\nother: x\nkey:now  \n\n": "now",
		"subject\n\nKey: now\n\nlast paragraph": "", "subject\n\nKeys: now": "", "subject\n\nKey: a\nKey: b": "b", "subject\n\n Key: now": "",
	} {
		if got := (&Commit{raw: []byte(header + message)}).Trailer("Key"); got != want {
			t.Errorf("Trailer of %q = %q; want %q", message, got, want)
		}
	}
}

func TestParseTree(t *testing.T) {
	raw := []byte("100644 a\x0001234567890123456789" + "40000 b c\x00abcdefghijklmnopqrst")
	entries, err := parseTree(raw)
	if err != nil || len(entries) != 2 || entries[0].Name != "a" || !entries[0].IsRegular() || entries[1].Name != "b c" || !entries[1].IsTree() {
		t.Errorf("parseTree = %+v, %v", entries, err)
	}
	for _, bad := range []string{"x", "100644 a", "100644 a\x00short", "1006440 a\x0001234567890123456789", " a\x0001234567890123456789"} {
		if entries, err := parseTree([]byte(bad)); err == nil {
			t.Errorf("parseTree(%q) = %+v; want an error", bad, entries)
		}
	}
}

// A tree that is parsed and written again is unchanged.
func FuzzParseTree(f *testing.F) {
	f.Add([]byte("100644 a\x0001234567890123456789"))
	f.Add([]byte("40000 ../x\x0001234567890123456789120000 \n\x0001234567890123456789"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		entries, err := parseTree(raw)
		if err != nil {
			return
		}
		var again bytes.Buffer
		for _, e := range entries {
			var id []byte
			if _, err := fmt.Sscanf(e.ID, "%x", &id); err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(&again, "%s %s\x00%s", e.Mode, e.Name, id)
		}
		if !bytes.Equal(again.Bytes(), raw) {
			t.Errorf("%q became %q", raw, again.Bytes())
		}
	})
}

func FuzzParseCommit(f *testing.F) {
	f.Add([]byte("tree " + someHash + "\nparent " + someHash + "\n\ntext"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		c, err := parseCommit(someHash, raw)
		if err != nil {
			return
		}
		for _, id := range append(c.parents, c.Tree) {
			if !IsHash(id) {
				t.Errorf("%q counts as a hash", id)
			}
		}
	})
}

func TestHash(t *testing.T) {
	if got := hash("blob", nil); got != "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391" {
		t.Errorf("the empty blob is %s", got)
	}
}

func TestIsLFSPointer(t *testing.T) {
	const oid = "oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\n"
	for content, want := range map[string]bool{
		"version https://git-lfs.github.com/spec/v1\n" + oid + "size 12345\n":                    true,
		"version https://hawser.github.com/spec/v1\n" + oid + "size 1\n":                         true,
		"version https://git-lfs.github.com/spec/v1\next-0-foo sha256:00\n" + oid + "size 1\n":   true,
		"#!/bin/sh\n# version https://git-lfs.github.com/spec/v1\n" + oid:                        false,
		"version https://git-lfs.github.com/spec/v1\nsize 1\n":                                   false,
		"version https://git-lfs.github.com/spec/v1\n" + oid + strings.Repeat("a script\n", 200): false,
		"": false,
	} {
		if got := IsLFSPointer([]byte(content)); got != want {
			t.Errorf("IsLFSPointer(%q) = %v; want %v", content, got, want)
		}
	}
}

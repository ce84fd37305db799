package main

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
	if err != nil || c.tree != someHash || len(c.parents) != 2 || c.parents[0] != other {
		t.Errorf("parseCommit = %+v, %v", c, err)
	}
	for _, bad := range []string{"", "parent " + someHash + "\n", "tree x\n", "tree " + someHash + "\nparent ../x\n", "author\ntree " + someHash + "\n"} {
		if c, err := parseCommit(someHash, []byte(bad)); err == nil {
			t.Errorf("parseCommit(%q) = %+v; want an error", bad, c)
		}
	}
}

func TestParseTree(t *testing.T) {
	raw := []byte("100644 a\x0001234567890123456789" + "40000 b c\x00abcdefghijklmnopqrst")
	entries, err := parseTree(raw)
	if err != nil || len(entries) != 2 || entries[0].name != "a" || !entries[0].isRegular() || entries[1].name != "b c" || !entries[1].isTree() {
		t.Errorf("parseTree = %+v, %v", entries, err)
	}
	for _, bad := range []string{"x", "100644 a", "100644 a\x00short", "1006440 a\x0001234567890123456789", " a\x0001234567890123456789"} {
		if entries, err := parseTree([]byte(bad)); err == nil {
			t.Errorf("parseTree(%q) = %+v; want an error", bad, entries)
		}
	}
}

// A tree that is read and written again is the same.
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
			if _, err := fmt.Sscanf(e.id, "%x", &id); err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(&again, "%s %s\x00%s", e.mode, e.name, id)
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
		for _, id := range append(c.parents, c.tree) {
			if !isHash(id) {
				t.Errorf("%q is taken for a hash", id)
			}
		}
	})
}

func TestHashObject(t *testing.T) {
	if got := hashObject("blob", nil); got != "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391" {
		t.Errorf("the empty blob is %s", got)
	}
}

func TestNames(t *testing.T) {
	for _, good := range []string{"a.service", "getty@.service", "a-b_c.timer", `dev-disk\x2d.service`, "a:b.socket", "tool", "x+y"} {
		if reason := badName(good); reason != "" {
			t.Errorf("badName(%q) = %q", good, reason)
		}
	}
	for _, bad := range []string{"", ".", "..", "a/b", "a b", "a\n", "\x7f", "ä", "-x", ".git", ".GiT", "a\x00", "$x", "`x`", strings.Repeat("x", 201)} {
		if badName(bad) == "" {
			t.Errorf("badName(%q) finds nothing", bad)
		}
	}
}

// Whatever is called a good name stays inside its folder.
func FuzzBadFileName(f *testing.F) {
	f.Add("a b")
	f.Add("..")
	f.Fuzz(func(t *testing.T, name string) {
		if badFileName(name) == "" && (name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00\n\x1b") || strings.EqualFold(name, ".git")) {
			t.Errorf("badFileName(%q) finds nothing", name)
		}
		if badName(name) == "" && badFileName(name) != "" {
			t.Errorf("%q is a good name of a unit, but no good name of a file", name)
		}
	})
}

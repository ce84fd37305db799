package main

import (
	"strings"
	"testing"
)

const someHash = "0123456789abcdef0123456789abcdef01234567"

func TestNames(t *testing.T) {
	for _, good := range []string{"a.service", "getty@.service", "a-b_c.timer", `dev-disk\x2d.service`, "a:b.socket", "tool", "x+y"} {
		if reason := badName(good); reason != "" {
			t.Errorf("badName(%q) = %q", good, reason)
		}
	}
	for _, bad := range []string{"", ".", "..", "a/b", "a b", "a\n", "\x7f", "ä", "-x", ".git", ".GiT", "a\x00", "$x", "`x`", strings.Repeat("x", 201)} {
		if badName(bad) == "" {
			t.Errorf("badName(%q) accepts the name", bad)
		}
	}
}

// A file with an accepted name stays inside its directory.
func FuzzBadFileName(f *testing.F) {
	f.Add("a b")
	f.Add("..")
	f.Fuzz(func(t *testing.T, name string) {
		if badFileName(name) == "" && (name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00\n\x1b") || strings.EqualFold(name, ".git")) {
			t.Errorf("badFileName(%q) accepts the name", name)
		}
		if badName(name) == "" && badFileName(name) != "" {
			t.Errorf("badName accepts %q, but badFileName does not", name)
		}
	})
}

package main

import (
	"regexp"
	"strings"
	"testing"
)

func TestMatch(t *testing.T) {
	for _, tc := range []struct {
		pattern, name string
		want          bool
	}{
		{"", "", true}, {"", "a", false}, {"a", "a", true}, {"a", "ab", false}, {"a", "ba", false},
		{"*", "", true}, {"*", "a/b", true}, {"veth*", "veth", true}, {"veth*", "veth1", true}, {"veth*", "xveth1", false},
		{"*p", "nvme0n1p", true}, {"a*b", "ab", true}, {"a*b", "a", false}, {"a*a", "a", false}, {"a*b*c", "abbc", true}, {"a*b*c", "acb", false},
		{"*ab*ab", "ab", false}, {"*ab*ab", "abab", true}, {"**", "x", true}, {"/boot/*", "/boot/efi/x", true}, {"/boot/*", "/boot", false},
		{"fuse.*", "fuse", false}, {"fuse.*", "fuse.sshfs", true}, {"a?c", "abc", false}, {"[a]", "a", false},
	} {
		if got := match(tc.pattern, tc.name); got != tc.want {
			t.Errorf("match(%q, %q) = %v; want %v", tc.pattern, tc.name, got, tc.want)
		}
	}
}

// FuzzMatch compares match with an equivalent regular expression.
func FuzzMatch(f *testing.F) {
	f.Add("veth*", "veth1")
	f.Add("a*b*ab", "aabab")
	f.Add("**", "")
	f.Fuzz(func(t *testing.T, pattern, name string) {
		if strings.Count(pattern, "*") > 20 || len(name) > 200 {
			return
		}
		parts := strings.Split(pattern, "*")
		for i := range parts {
			parts[i] = regexp.QuoteMeta(parts[i])
		}
		re, err := regexp.Compile(`(?s)\A` + strings.Join(parts, ".*") + `\z`)
		if err != nil {
			return // not UTF-8
		}
		if !strings.Contains(name, "\ufffd") && strings.ToValidUTF8(name, "\ufffd") == name {
			if got, want := match(pattern, name), re.MatchString(name); got != want {
				t.Fatalf("match(%q, %q) = %v; want %v", pattern, name, got, want)
			}
		}
	})
}

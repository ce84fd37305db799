package main

import "strings"

// filter decides by name whether a resource counts: what only names, else
// what skip does not name. Both hold shell-like patterns in which * stands for
// any text.
type filter struct {
	only, skip []string
}

func (f filter) allows(name string) bool {
	if len(f.only) > 0 {
		return matchAny(f.only, name)
	}
	return !matchAny(f.skip, name)
}

func matchAny(patterns []string, name string) bool {
	for _, p := range patterns {
		if match(p, name) {
			return true
		}
	}
	return false
}

// match reports whether name matches pattern. Unlike path.Match, * matches a
// slash too: /boot/* is all that is mounted below /boot.
func match(pattern, name string) bool {
	head, rest, star := strings.Cut(pattern, "*")
	if !star {
		return pattern == name
	}
	if !strings.HasPrefix(name, head) {
		return false
	}
	name = name[len(head):]
	for {
		part, after, more := strings.Cut(rest, "*")
		if !more {
			return strings.HasSuffix(name, part)
		}
		i := strings.Index(name, part)
		if i < 0 {
			return false
		}
		name, rest = name[i+len(part):], after
	}
}

package main

import "strings"

// filter selects resources by name. If only is not empty, it selects the names
// that match a pattern in only, else the names that match no pattern in skip. A *
// in a pattern stands for any text.
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

// match reports whether name matches pattern. Unlike in path.Match, * matches
// slashes too, so /boot/* matches every mount point below /boot.
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

package main

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"observability-hub/lib/sysexits"
)

// Limits on what is read from a repository that somebody else can push to.
const (
	maxCommit  = 1 << 20
	maxTree    = 16 << 20
	maxHistory = 2_000_000 // commits that a search for an ancestor visits
)

// commit is what gitsync needs of a commit object.
type commit struct {
	id      string
	tree    string
	parents []string
	raw     []byte
}

// entry is one entry of a tree.
type entry struct {
	mode string // as git stores it: 100644, 100755, 120000, 160000, 40000
	name string
	id   string
}

func (e entry) isTree() bool    { return e.mode == "40000" }
func (e entry) isRegular() bool { return e.mode == "100644" || e.mode == "100755" }

// kind names what is not a regular file, for a refusal.
func (e entry) kind() string {
	switch e.mode {
	case "40000":
		return "a folder"
	case "120000":
		return "a symbolic link"
	case "160000":
		return "a submodule"
	case "100644", "100755":
		return "a file"
	}
	return "an entry of mode " + e.mode
}

// refusedPath is a path of a commit that gitsync does not take, and why.
func refusedPath(path, reason string) error {
	return sysexits.New(sysexits.DataErr, "commit_refused", fmt.Errorf("%q: %s", path, reason)).
		WithHint("nothing was written; mend the repository and push")
}

// commit reads the commit called id.
func (o *objects) commit(id string) (*commit, error) {
	kind, raw, err := o.read(id, maxCommit)
	if err != nil {
		return nil, fmt.Errorf("read commit: %w", err)
	}
	if kind != "commit" {
		return nil, fmt.Errorf("read commit %s: it is a %s", id, kind)
	}
	return parseCommit(id, raw)
}

// parseCommit reads the header of a commit: tree, then parents.
func parseCommit(id string, raw []byte) (*commit, error) {
	c := &commit{id: id, raw: raw}
	for line := range bytes.Lines(raw) {
		key, value, _ := strings.Cut(strings.TrimSuffix(string(line), "\n"), " ")
		if key != "tree" && key != "parent" {
			break
		}
		if !isHash(value) {
			return nil, fmt.Errorf("read commit %s: %s %q is not a hash", id, key, value)
		}
		if key == "tree" {
			c.tree = value
		} else {
			c.parents = append(c.parents, value)
		}
	}
	if c.tree == "" {
		return nil, fmt.Errorf("read commit %s: it has no tree", id)
	}
	return c, nil
}

// peel follows annotated tags to the commit that they name.
func (o *objects) peel(id string) (*commit, error) {
	for range 10 {
		kind, raw, err := o.read(id, maxCommit)
		switch {
		case err != nil:
			return nil, fmt.Errorf("read %s: %w", id, err)
		case kind == "commit":
			return parseCommit(id, raw)
		case kind != "tag":
			return nil, refusedPath(id, "names a "+kind+", not a commit")
		}
		line, _, _ := strings.Cut(string(raw), "\n")
		target, ok := strings.CutPrefix(line, "object ")
		if !ok || !isHash(target) {
			return nil, refusedPath(id, "a tag without an object")
		}
		id = target
	}
	return nil, refusedPath(id, "a tag of a tag of a tag, and so on")
}

// tree reads the entries of the tree called id.
func (o *objects) tree(id string) ([]entry, error) {
	kind, raw, err := o.read(id, maxTree)
	if err != nil {
		return nil, fmt.Errorf("read tree: %w", err)
	}
	if kind != "tree" {
		return nil, fmt.Errorf("read tree %s: it is a %s", id, kind)
	}
	entries, err := parseTree(raw)
	if err != nil {
		return nil, fmt.Errorf("read tree %s: %w", id, err)
	}
	return entries, nil
}

// parseTree reads git's form of a tree: mode, space, name, NUL, 20 bytes of hash.
func parseTree(raw []byte) ([]entry, error) {
	var entries []entry
	for len(raw) > 0 {
		mode, rest, ok := bytes.Cut(raw, []byte(" "))
		if !ok || len(mode) == 0 || len(mode) > 6 {
			return nil, errors.New("an entry without a mode")
		}
		name, rest, ok := bytes.Cut(rest, []byte{0})
		if !ok || len(rest) < 20 {
			return nil, errors.New("an entry that ends early")
		}
		entries = append(entries, entry{string(mode), string(name), hex.EncodeToString(rest[:20])})
		raw = rest[20:]
	}
	return entries, nil
}

// descends reports whether ancestor is from or in the history of from. It
// walks the commits themselves, whose hashes are checked, so that no graft,
// replacement or commit graph in the source can bend history.
func (o *objects) descends(from, ancestor string) (bool, error) {
	seen := map[string]bool{from: true}
	for queue := []string{from}; len(queue) > 0; queue = queue[1:] {
		if queue[0] == ancestor {
			return true, nil
		}
		c, err := o.commit(queue[0])
		if err != nil {
			return false, err
		}
		for _, p := range c.parents {
			if !seen[p] {
				seen[p] = true
				queue = append(queue, p)
			}
		}
		if len(seen) > maxHistory {
			return false, fmt.Errorf("history of %s: more than %d commits", from, maxHistory)
		}
	}
	return false, nil
}

// blob reads the file called id; path is for the message.
func (o *objects) blob(path, id string, limit int64) ([]byte, error) {
	kind, content, err := o.read(id, limit)
	if big, ok := errors.AsType[*tooBig](err); ok {
		return nil, refusedPath(path, big.Error())
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if kind != "blob" {
		return nil, refusedPath(path, "its object is a "+kind)
	}
	return content, nil
}

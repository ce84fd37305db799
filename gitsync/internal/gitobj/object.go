package gitobj

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"path"
	"strings"

	"observability-hub/lib/sysexits"
)

// Limits on objects of a repository that other people can push to.
const (
	maxCommit  = 1 << 20
	maxTree    = 16 << 20
	maxHistory = 2_000_000 // commits that a search for an ancestor visits
)

// Commit has the parts of a commit object that gitsync needs.
type Commit struct {
	ID   string
	Tree string // the tree to deploy: the commit's own tree, or one below it; see [Store.At]

	parents []string
	raw     []byte
}

// Signed reports whether the commit has a signature, which may be bad.
func (c *Commit) Signed() bool { return bytes.Contains(c.raw, []byte("\ngpgsig ")) }

// Trailer returns the value of a trailer of the commit message: a line "key: value" in
// its last paragraph, as git-interpret-trailers(1) reads it. It is empty if there is
// none.
func (c *Commit) Trailer(key string) string {
	_, message, _ := bytes.Cut(c.raw, []byte("\n\n"))
	lines := strings.Split(strings.TrimSpace(string(message)), "\n")
	for i := len(lines) - 1; i > 0 && strings.TrimSpace(lines[i]) != ""; i-- { // not the subject
		if name, value, ok := strings.Cut(lines[i], ":"); ok && strings.EqualFold(name, key) {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// Entry is one entry of a tree.
type Entry struct {
	Mode string // as git stores it: 100644, 100755, 120000, 160000, 40000
	Name string
	ID   string
}

// IsTree reports whether the entry is a directory.
func (e Entry) IsTree() bool { return e.Mode == "40000" }

// IsRegular reports whether the entry is a regular file.
func (e Entry) IsRegular() bool { return e.Mode == "100644" || e.Mode == "100755" }

// Kind returns the kind of the entry with its article, for an error message.
func (e Entry) Kind() string {
	switch e.Mode {
	case "40000":
		return "a directory"
	case "120000":
		return "a symbolic link"
	case "160000":
		return "a submodule, whose files are in another repository"
	case "100644", "100755":
		return "a file"
	}
	return "an entry of mode " + e.Mode
}

// Refuse returns the error for a path of a commit that gitsync does not accept. Its
// exit status is 65.
func Refuse(path, reason string) error {
	return sysexits.New(sysexits.DataErr, "commit_refused", fmt.Errorf("%q: %s", path, reason)).
		WithHint("nothing was written; correct the repository and push")
}

// Commit reads the commit called id.
func (s *Store) Commit(id string) (*Commit, error) {
	kind, raw, err := s.read(id, maxCommit)
	if err != nil {
		return nil, fmt.Errorf("read commit: %w", err)
	}
	if kind != "commit" {
		return nil, fmt.Errorf("read commit %s: the object is a %s", id, kind)
	}
	return parseCommit(id, raw)
}

// parseCommit parses the header of a commit: tree, then parents.
func parseCommit(id string, raw []byte) (*Commit, error) {
	c := &Commit{ID: id, raw: raw}
	for line := range bytes.Lines(raw) {
		key, value, _ := strings.Cut(strings.TrimSuffix(string(line), "\n"), " ")
		if key != "tree" && key != "parent" {
			break
		}
		if !IsHash(value) {
			return nil, fmt.Errorf("read commit %s: %s %q is not a hash", id, key, value)
		}
		if key == "tree" {
			c.Tree = value
		} else {
			c.parents = append(c.parents, value)
		}
	}
	if c.Tree == "" {
		return nil, fmt.Errorf("read commit %s: it has no tree", id)
	}
	return c, nil
}

// Peel follows annotated tags to the commit that they name.
func (s *Store) Peel(id string) (*Commit, error) {
	for range 10 {
		kind, raw, err := s.read(id, maxCommit)
		switch {
		case err != nil:
			return nil, fmt.Errorf("read %s: %w", id, err)
		case kind == "commit":
			return parseCommit(id, raw)
		case kind != "tag":
			return nil, Refuse(id, "it is a "+kind+", not a commit")
		}
		line, _, _ := strings.Cut(string(raw), "\n")
		target, ok := strings.CutPrefix(line, "object ")
		if !ok || !IsHash(target) {
			return nil, Refuse(id, "it is a tag without an object")
		}
		id = target
	}
	return nil, Refuse(id, "the chain of tags before it is too long")
}

// At returns the commit with the tree of the directory dir as its tree. dir is a
// clean relative path. An empty dir is the whole repository.
func (s *Store) At(c *Commit, dir string) (*Commit, error) {
	if dir == "" {
		return c, nil
	}
	below := *c
	at := ""
	for name := range strings.SplitSeq(dir, "/") {
		entries, err := s.Tree(below.Tree)
		if err != nil {
			return nil, err
		}
		at = path.Join(at, name)
		below.Tree = ""
		for _, e := range entries {
			if e.Name != name {
				continue
			}
			if !e.IsTree() {
				return nil, Refuse(at, "it is "+e.Kind()+", not the directory that --path names")
			}
			below.Tree = e.ID
		}
		if below.Tree == "" {
			return nil, Refuse(at, "commit "+c.ID+" has no such directory, but --path names it")
		}
	}
	return &below, nil
}

// Tree reads the entries of the tree called id.
func (s *Store) Tree(id string) ([]Entry, error) {
	kind, raw, err := s.read(id, maxTree)
	if err != nil {
		return nil, fmt.Errorf("read tree: %w", err)
	}
	if kind != "tree" {
		return nil, fmt.Errorf("read tree %s: the object is a %s", id, kind)
	}
	entries, err := parseTree(raw)
	if err != nil {
		return nil, fmt.Errorf("read tree %s: %w", id, err)
	}
	return entries, nil
}

// parseTree parses git's format of a tree: mode, space, name, NUL, 20 bytes of hash.
func parseTree(raw []byte) ([]Entry, error) {
	var entries []Entry
	for len(raw) > 0 {
		mode, rest, ok := bytes.Cut(raw, []byte(" "))
		if !ok || len(mode) == 0 || len(mode) > 6 {
			return nil, errors.New("an entry without a mode")
		}
		name, rest, ok := bytes.Cut(rest, []byte{0})
		if !ok || len(rest) < 20 {
			return nil, errors.New("an entry that ends early")
		}
		entries = append(entries, Entry{string(mode), string(name), hex.EncodeToString(rest[:20])})
		raw = rest[20:]
	}
	return entries, nil
}

// Descends reports whether ancestor is from itself or in the history of from. It
// reads the commits themselves, because grafts, replacements and commit graphs in
// the source could change git's answer.
func (s *Store) Descends(from, ancestor string) (bool, error) {
	seen := map[string]bool{from: true}
	for queue := []string{from}; len(queue) > 0; queue = queue[1:] {
		if queue[0] == ancestor {
			return true, nil
		}
		c, err := s.Commit(queue[0])
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

// Blob reads the file called id. It refuses a file of more than limit bytes. path is
// the file's name in errors.
func (s *Store) Blob(path, id string, limit int64) ([]byte, error) {
	kind, content, err := s.read(id, limit)
	if big, ok := errors.AsType[*tooBig](err); ok {
		return nil, Refuse(path, big.Error())
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if kind != "blob" {
		return nil, Refuse(path, "its object is a "+kind)
	}
	return content, nil
}

// IsLFSPointer reports whether a file is a Git LFS pointer: a few lines in place of
// a file that is not in the repository
// (https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md). The version is in the
// first line, also in pointers that are older than the specification.
func IsLFSPointer(content []byte) bool {
	if len(content) >= 1024 {
		return false
	}
	version := bytes.HasPrefix(content, []byte("version https://git-lfs.github.com/spec/")) ||
		bytes.HasPrefix(content, []byte("version https://hawser.github.com/spec/"))
	return version && bytes.Contains(content, []byte("\noid "))
}

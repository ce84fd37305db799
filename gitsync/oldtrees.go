package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"observability-hub/gitsync/internal/gitobj"
	"observability-hub/lib/diag"
)

// kept warns about a tree that is not removed.
func (p publisher) kept(tree string, why error) {
	p.diag.Warn("tree_kept", why.Error()+"; gitsync keeps this tree: remove it by hand if you do not need its data",
		diag.Field{Key: "tree", Value: tree})
}

// removeOld removes the oldest published trees if there are more than keep. It also
// finishes removals that were interrupted.
func (p publisher) removeOld(current string, rules []rule) {
	entries, err := os.ReadDir(p.dir)
	if err != nil {
		p.kept(p.dir, err)
		return
	}
	used := p.used(entries, rules)
	type tree struct {
		name string
		time int64
	}
	var trees []tree
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || !e.IsDir() {
			continue
		}
		if commit, ok := strings.CutPrefix(e.Name(), oldTree); ok && gitobj.IsHash(commit) {
			p.remove(e.Name(), commit)
		} else if gitobj.IsHash(e.Name()) && e.Name() != current && !used[e.Name()] {
			trees = append(trees, tree{e.Name(), info.ModTime().UnixNano()})
		}
	}
	slices.SortFunc(trees, func(a, b tree) int { return int(max(-1, min(1, b.time-a.time))) })
	for _, t := range trees[min(len(trees), p.keep-1):] {
		p.remove(t.name, t.name)
	}
}

// used returns the trees that on-change commands last ran in. A container may have
// mounted a directory of such a tree. The link of a rule that the commit no longer
// has counts until another command has run after it.
func (p publisher) used(entries []fs.DirEntry, rules []rule) map[string]bool {
	known := map[string]bool{}
	for _, r := range rules {
		known[r.key()] = true
	}
	var newest int64
	times := map[string]int64{}
	for _, e := range entries {
		key, ok := strings.CutPrefix(e.Name(), ranLink)
		info, err := e.Info()
		if !ok || err != nil || info.Mode()&fs.ModeSymlink == 0 {
			continue
		}
		times[key] = info.ModTime().UnixNano()
		if known[key] {
			newest = max(newest, times[key])
		}
	}
	used := map[string]bool{}
	for key, at := range times {
		link := filepath.Join(p.dir, ranLink+key)
		if !known[key] && at < newest {
			if err := os.Remove(link); err != nil {
				p.kept(link, err)
			}
			continue
		}
		if target, err := os.Readlink(link); err == nil {
			used[target] = true
		}
	}
	return used
}

// remove removes a tree that contains only what the commit put there. It renames the
// tree first, because an incomplete tree must not have the name of a commit.
func (p publisher) remove(name, commit string) {
	tree := filepath.Join(p.dir, name)
	id, err := p.origin(tree, commit, name == commit)
	if err != nil {
		p.kept(tree, err)
		return
	}
	gone := filepath.Join(p.dir, oldTree+commit)
	if tree != gone {
		if err := os.Rename(tree, gone); err != nil {
			p.kept(tree, err)
			return
		}
	}
	if err := p.unlink(id, gone); err != nil {
		p.kept(gone, err)
	}
}

// origin returns the tree object from which a published tree was written. It fails if
// the published tree contains anything else. If whole is true, it also fails if files
// are missing.
func (p publisher) origin(tree, commit string, whole bool) (string, error) {
	c, err := p.o.Commit(commit)
	if err != nil {
		return "", err
	}
	var first error
	for _, part := range p.parts {
		at, err := p.o.At(c, part)
		if err == nil {
			err = p.only(at.Tree, tree)
		}
		if err == nil && whole {
			err = p.complete(at.Tree, tree)
		}
		if err == nil {
			return at.Tree, nil
		}
		if first == nil {
			first = err
		}
	}
	return "", first
}

// only fails if a published tree contains anything that its tree object does not:
// another name, another kind of file, other content, or another file system.
func (p publisher) only(id, tree string) error {
	root, err := os.Lstat(tree)
	if err != nil {
		return err
	}
	return p.walk(id, tree, func(to string, e *gitobj.Entry) error {
		info, err := os.Lstat(to)
		switch {
		case err != nil:
			return err
		case e == nil || device(info) != device(root):
			return fmt.Errorf("%s is not part of the commit", to)
		case e.IsTree() && info.IsDir():
			return nil
		case !info.Mode().IsRegular() || !e.IsRegular():
			return fmt.Errorf("%s is not part of the commit", to)
		}
		content, err := os.ReadFile(to)
		if err == nil && gitobj.BlobID(content) != e.ID {
			err = fmt.Errorf("%s has changed", to)
		}
		return err
	})
}

// device returns the number of the file system that a file is on.
func device(info fs.FileInfo) uint64 {
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		return uint64(stat.Dev)
	}
	return 0
}

// walk calls visit for each file below a directory, with its entry in the tree
// object. The entry is nil if the tree object has no such file.
func (p publisher) walk(id, dir string, visit func(string, *gitobj.Entry) error) error {
	want, err := p.o.Tree(id)
	if err != nil {
		return err
	}
	entries := map[string]*gitobj.Entry{}
	for i := range want {
		entries[want[i].Name] = &want[i]
	}
	have, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, h := range have {
		e, at := entries[h.Name()], filepath.Join(dir, h.Name())
		if err := visit(at, e); err != nil {
			return err
		}
		if e != nil && e.IsTree() {
			if err := p.walk(e.ID, at, visit); err != nil {
				return err
			}
		}
	}
	return nil
}

// complete fails if a file or directory of the tree object is missing in a published
// tree.
func (p publisher) complete(id, dir string) error {
	entries, err := p.o.Tree(id)
	if err != nil {
		return err
	}
	for _, e := range entries {
		at := filepath.Join(dir, e.Name)
		info, err := os.Lstat(at)
		if err == nil && info.IsDir() != e.IsTree() {
			err = fmt.Errorf("%s is not %s", at, e.Kind())
		}
		if err == nil && e.IsTree() {
			err = p.complete(e.ID, at)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// unlink removes the files of a tree object and then their directories, which must
// be empty. A file that another program creates meanwhile therefore stays.
func (p publisher) unlink(id, dir string) error {
	entries, err := p.o.Tree(id)
	if err != nil {
		return err
	}
	if _, err := os.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil // an interrupted run removed it
	}
	if info, err := os.Lstat(dir); err == nil && info.IsDir() && info.Mode()&0o700 != 0o700 {
		_ = os.Chmod(dir, 0o700) // if this fails, the removal fails too
	}
	for _, e := range entries {
		at := filepath.Join(dir, e.Name)
		if e.IsTree() {
			err = p.unlink(e.ID, at)
		} else if err = os.Remove(at); errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		if err != nil {
			return err
		}
	}
	return syscallError("rmdir", dir, syscall.Rmdir(dir))
}

func syscallError(op, path string, err error) error {
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return &fs.PathError{Op: op, Path: path, Err: err}
}

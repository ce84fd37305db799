package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"observability-hub/gitsync/internal/gitobj"
	"observability-hub/lib/sysexits"
)

// Limits of a published tree.
const (
	maxBlob    = 64 << 20
	maxEntries = 500_000
	maxDepth   = 64
)

// currentLink is the link in the publish folder that names the newest tree.
const currentLink = "current"

// Names of what is not finished there.
const (
	newTree = ".gitsync-tree"
	newLink = ".gitsync-current"
)

// publish writes the whole tree of a commit as DIR/COMMIT and lets DIR/current
// point to it. Readers see the old tree or the new one, never half of one. The
// files are the blobs themselves: no attribute or filter has a say.
func publish(o *gitobj.Store, c *gitobj.Commit, dir string, keep int) error {
	unwritable := func(err error) error {
		if _, ok := errors.AsType[*sysexits.Error](err); ok {
			return err
		}
		if !errors.Is(err, syscall.ENOSPC) && !errors.Is(err, syscall.EDQUOT) && !isPathError(err) {
			return err
		}
		return sysexits.New(sysexits.CantCreate, "publish_failed", fmt.Errorf("publish: %w", err)).
			WithHint("give the user of gitsync pull a writable folder with room in it; current is as it was")
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return unwritable(err)
	}
	// Under the lock nobody else is at work here.
	for _, left := range []string{newTree, newLink} {
		if err := removeTree(filepath.Join(dir, left)); err != nil {
			return unwritable(err)
		}
	}
	tree := publishedTree(dir, c.ID)
	if _, err := os.Lstat(tree); errors.Is(err, fs.ErrNotExist) {
		fresh := filepath.Join(dir, newTree)
		w := treeWriter{o: o}
		err := w.write(c.Tree, fresh, "", 0)
		if err == nil {
			// Thousands of files are synced at once, before they get their name.
			syscall.Sync()
			step("publish")
			err = os.Rename(fresh, tree)
		}
		if err != nil {
			return errors.Join(unwritable(err), removeTree(fresh))
		}
	} else if err != nil {
		return unwritable(err)
	}
	step("publish")
	if err := point(dir, c.ID); err != nil {
		return unwritable(err)
	}
	step("publish")
	return unwritable(removeOld(dir, c.ID, keep))
}

func isPathError(err error) bool {
	_, p := errors.AsType[*fs.PathError](err)
	_, l := errors.AsType[*os.LinkError](err)
	return p || l
}

// point swaps the link current.
func point(dir, commit string) error {
	link := filepath.Join(dir, currentLink)
	if info, err := os.Lstat(link); err == nil && info.Mode()&fs.ModeSymlink == 0 {
		return &fs.PathError{Op: "replace", Path: link, Err: errors.New("it is there and no link")}
	}
	if target, err := os.Readlink(link); err == nil && target == commit {
		return nil
	}
	fresh := filepath.Join(dir, newLink)
	if err := os.Symlink(commit, fresh); err != nil {
		return err
	}
	if err := os.Rename(fresh, link); err != nil {
		return err
	}
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// removeOld removes the oldest published trees beyond keep.
func removeOld(dir, current string, keep int) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	type tree struct {
		name string
		time int64
	}
	var trees []tree
	for _, e := range entries {
		if info, err := e.Info(); err == nil && e.IsDir() && gitobj.IsHash(e.Name()) && e.Name() != current {
			trees = append(trees, tree{e.Name(), info.ModTime().UnixNano()})
		}
	}
	slices.SortFunc(trees, func(a, b tree) int { return int(max(-1, min(1, b.time-a.time))) })
	for _, t := range trees[min(len(trees), keep-1):] {
		// Renamed first: half a tree must not have a commit's name.
		gone := filepath.Join(dir, newTree)
		if err := os.Rename(filepath.Join(dir, t.name), gone); err != nil {
			return err
		}
		if err := removeTree(gone); err != nil {
			return err
		}
	}
	return nil
}

// removeTree removes what we published, also where a folder lost its w bit.
func removeTree(dir string) error {
	err := os.RemoveAll(dir)
	if err == nil {
		return nil
	}
	_ = filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if d != nil && d.IsDir() {
			_ = os.Chmod(p, 0o700)
		}
		return nil
	})
	return os.RemoveAll(dir)
}

// treeWriter writes a tree object as files.
type treeWriter struct {
	o       *gitobj.Store
	entries int
}

func (w *treeWriter) write(id, dir, source string, depth int) error {
	if depth > maxDepth {
		return gitobj.Refuse(source, fmt.Sprintf("more than %d folders deep", maxDepth))
	}
	entries, err := w.o.Tree(id)
	if err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	// The unit's UMask=0077 is for secrets; compose projects read these files.
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	for _, e := range entries {
		at := path.Join(source, e.Name)
		if reason := badFileName(e.Name); reason != "" {
			return gitobj.Refuse(source+"/"+e.Name, reason)
		}
		if w.entries++; w.entries > maxEntries {
			return gitobj.Refuse(at, fmt.Sprintf("more than %d files", maxEntries))
		}
		to := filepath.Join(dir, e.Name)
		switch {
		case e.IsTree():
			err = w.write(e.ID, to, at, depth+1)
		case e.IsRegular():
			err = w.file(e, to, at)
		default:
			err = gitobj.Refuse(at, "it is "+e.Kind())
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (w *treeWriter) file(e gitobj.Entry, to, source string) error {
	content, err := w.o.Blob(source, e.ID, maxBlob)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	mode := fs.FileMode(0o644)
	if e.Mode == "100755" {
		mode = 0o755
	}
	return errors.Join(err, f.Chmod(mode), f.Close())
}

// badFileName says what is wrong with a name in a published tree, which may
// have names of people: spaces, accents.
func badFileName(name string) string {
	if name == "" || name == "." || name == ".." {
		return "not a file name"
	}
	if len(name) > 255 {
		return "a name of more than 255 bytes"
	}
	if strings.EqualFold(name, ".git") {
		return "a repository in the repository"
	}
	for _, c := range []byte(name) {
		if c < ' ' || c == 0x7f {
			return "a control character in the name"
		}
		if c == '/' {
			return "a slash in the name"
		}
	}
	return ""
}

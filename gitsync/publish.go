package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"

	"observability-hub/gitsync/internal/gitobj"
	"observability-hub/lib/diag"
	"observability-hub/lib/durable"
	"observability-hub/lib/statedir"
	"observability-hub/lib/sysexits"
)

// Limits on a published tree.
const (
	maxBlob    = 64 << 20
	maxEntries = 500_000
	maxDepth   = 64
)

// currentLink is the link in the publish directory that names the newest tree.
const currentLink = "current"

// Names that gitsync uses in the publish directory, beside the trees.
const (
	newTree = ".gitsync-tree"    // prefix of a tree that is being written
	newLink = ".gitsync-current" // the link before it replaces current
	oldTree = ".gitsync-old-"    // prefix of a tree that is being removed, followed by its commit
	ranLink = ".gitsync-ran-"    // prefix of a link to the tree that an on-change command last ran in, followed by the key of its rule
)

// publisher writes trees of commits into a directory.
type publisher struct {
	o     *gitobj.Store
	dir   string
	keep  int      // number of trees to keep
	parts []string // values of --path that a tree may be from: of this pull first, then of earlier pulls
	moved bool     // --path has changed since the last pull
	diag  *diag.Logger
}

// publish writes the tree of a commit as DIR/COMMIT and makes DIR/current point to
// it. Readers see the old tree or the new tree, never a part of one. The files are
// exactly the blobs: no attribute or filter changes them. If the removal of older
// trees fails, it prints a warning.
func (p publisher) publish(c *gitobj.Commit, rules []rule) error {
	if err := p.write(c); err != nil {
		if _, ok := errors.AsType[*sysexits.Error](err); ok || !diskFull(err) && !isPathError(err) {
			return err
		}
		return sysexits.New(sysexits.CantCreate, "publish_failed", fmt.Errorf("publish: %w", err)).
			WithHint("the user of gitsync pull needs a writable --publish directory with free space; DIR/current is unchanged")
	}
	p.removeOld(c.ID, rules)
	return nil
}

func (p publisher) write(c *gitobj.Commit) error {
	if err := statedir.MkdirAll(p.dir, 0o755); err != nil {
		return err
	}
	// This run holds the lock, so no other run uses an unfinished tree.
	left, err := filepath.Glob(filepath.Join(escapeGlob(p.dir), newTree+"*"))
	if err != nil {
		return err
	}
	for _, l := range append(left, filepath.Join(p.dir, newLink)) {
		if err := removeTree(l); err != nil {
			p.kept(l, err)
		}
	}
	tree := publishedTree(p.dir, c.ID)
	info, err := os.Lstat(tree)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	case !info.IsDir():
		return &fs.PathError{Op: "write", Path: tree, Err: errors.New("it exists and is not a directory")}
	case p.complete(c.Tree, tree) == nil && (!p.moved || p.only(c.Tree, tree) == nil):
		step("publish")
		return p.point(c.ID)
	default:
		// The tree is from another --path, or files are missing in it.
		if err := os.Rename(tree, filepath.Join(p.dir, oldTree+c.ID)); err != nil {
			return err
		}
	}
	fresh, err := os.MkdirTemp(p.dir, newTree)
	if err != nil {
		return err
	}
	w := treeWriter{o: p.o}
	if err = w.write(c.Tree, fresh, "", 0); err == nil {
		err = p.give(fresh)
	}
	if err == nil {
		// One call syncs thousands of files, before the tree gets its name.
		syscall.Sync()
		step("publish")
		err = os.Rename(fresh, tree)
	}
	if err != nil {
		return errors.Join(err, removeTree(fresh))
	}
	if w.pointers > 0 {
		p.diag.Warn("lfs_pointers", fmt.Sprintf("%d files of the published tree are Git LFS pointers, not the files that they stand for; the first is %s", w.pointers, w.pointer),
			diag.Field{Key: "tree", Value: tree})
	}
	step("publish")
	return p.point(c.ID)
}

// give makes the owner of the publish directory the owner of a tree or link that
// root has written. That user must be able to remove it later.
func (p publisher) give(tree string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	return filepath.WalkDir(tree, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return statedir.Inherit(path, p.dir)
	})
}

func isPathError(err error) bool {
	_, p := errors.AsType[*fs.PathError](err)
	_, l := errors.AsType[*os.LinkError](err)
	return p || l
}

// escapeGlob quotes the characters that have a meaning for filepath.Glob.
func escapeGlob(dir string) string {
	return strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`).Replace(dir)
}

// point makes the link current point to the tree of a commit.
func (p publisher) point(commit string) error {
	link := filepath.Join(p.dir, currentLink)
	if info, err := os.Lstat(link); err == nil && info.Mode()&fs.ModeSymlink == 0 {
		return &fs.PathError{Op: "replace", Path: link, Err: errors.New("it exists and is not a link: move it away")}
	}
	if target, err := os.Readlink(link); err == nil && target == commit {
		return nil
	}
	fresh := filepath.Join(p.dir, newLink)
	if err := os.Symlink(commit, fresh); err != nil {
		return err
	}
	if err := p.give(fresh); err != nil {
		return err
	}
	return durable.Rename(fresh, link)
}

// removeTree removes an unfinished tree, even if it has read-only directories.
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
	o        *gitobj.Store
	entries  int
	pointers int    // files that are Git LFS pointers
	pointer  string // the first of them
}

func (w *treeWriter) write(id, dir, source string, depth int) error {
	if depth > maxDepth {
		return gitobj.Refuse(source, fmt.Sprintf("it is more than %d directories deep", maxDepth))
	}
	entries, err := w.o.Tree(id)
	if err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o755); err != nil && depth > 0 {
		return err // the top directory exists already
	}
	// The unit's UMask=0077 protects secrets, but compose projects read these files.
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	for _, e := range entries {
		at := path.Join(source, e.Name)
		if reason := badFileName(e.Name); reason != "" {
			return gitobj.Refuse(source+"/"+e.Name, reason)
		}
		if w.entries++; w.entries > maxEntries {
			return gitobj.Refuse(at, fmt.Sprintf("the tree has more than %d files", maxEntries))
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
	if gitobj.IsLFSPointer(content) {
		if w.pointers++; w.pointers == 1 {
			w.pointer = source
		}
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

// badFileName returns why a published tree cannot contain a name; empty if it can.
// Unlike names of deployed files, names in a tree may have spaces and accents.
func badFileName(name string) string {
	if name == "" || name == "." || name == ".." {
		return "it is not a file name"
	}
	if len(name) > 255 {
		return "its name is longer than 255 bytes"
	}
	if strings.EqualFold(name, ".git") {
		return "it is a repository in the repository"
	}
	for _, c := range []byte(name) {
		if c < ' ' || c == 0x7f {
			return "its name contains a control character"
		}
		if c == '/' {
			return "its name contains a slash"
		}
	}
	return ""
}

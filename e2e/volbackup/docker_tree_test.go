package volbackup

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// tree describes every file below a directory, by path. A description has everything that a backup must restore. Two trees
// are identical if and only if their descriptions are.
func tree(tb testing.TB, dir string) map[string]string {
	tb.Helper()
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		tb.Fatalf("open %s: %v", dir, err)
	}
	defer unix.Close(fd)
	w := treeWalk{tb: tb, files: map[string]string{}, links: map[uint64]string{}}
	w.file(fd, ".", ".")
	w.directory(fd, ".")
	return w.files
}

type treeWalk struct {
	tb    testing.TB
	files map[string]string
	links map[uint64]string // the first name of an inode
}

// directory describes the files below a directory. It walks by descriptors, because a path may be longer than the kernel
// accepts.
func (w *treeWalk) directory(fd int, path string) {
	w.tb.Helper()
	dir, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil {
		w.tb.Fatal(err)
	}
	names, err := dir.Readdirnames(-1)
	dir.Close()
	if err != nil {
		w.tb.Fatalf("read %s: %v", path, err)
	}
	slices.Sort(names)
	for _, name := range names {
		below := path + "/" + name
		if !w.file(fd, name, below) {
			continue
		}
		child, err := unix.Openat(fd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			w.tb.Fatalf("open %.80s: %v", below, err)
		}
		w.directory(child, below)
		unix.Close(child)
	}
}

// file describes one file and reports whether it is a directory. It ignores sockets, which no archive contains.
func (w *treeWalk) file(fd int, name, path string) bool {
	w.tb.Helper()
	var st unix.Stat_t
	if err := unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		w.tb.Fatalf("stat %.80s: %v", path, err)
	}
	kind := st.Mode & unix.S_IFMT
	if kind == unix.S_IFSOCK {
		return false
	}
	short := fmt.Sprintf("/proc/self/fd/%d/%s", fd, name)
	text := fmt.Sprintf("mode %o owner %d:%d mtime %d.%09d", st.Mode, st.Uid, st.Gid, st.Mtim.Sec, st.Mtim.Nsec)
	if kind != unix.S_IFDIR {
		if first, seen := w.links[st.Ino]; seen {
			text += fmt.Sprintf(" same as %q", first)
		} else {
			w.links[st.Ino] = path
		}
		text += fmt.Sprintf(" links %d", st.Nlink)
	}
	switch kind {
	case unix.S_IFBLK, unix.S_IFCHR:
		text += fmt.Sprintf(" device %d", st.Rdev)
	case unix.S_IFLNK:
		target, err := os.Readlink(short)
		if err != nil {
			w.tb.Fatal(err)
		}
		text += fmt.Sprintf(" to %q", target)
	case unix.S_IFREG:
		text += w.content(short, st.Size)
	}
	w.files[path] = text + w.attributes(short)
	return kind == unix.S_IFDIR
}

// content returns the size, a hash, and the positions of data and holes.
func (w *treeWalk) content(path string, size int64) string {
	w.tb.Helper()
	f, err := os.Open(path)
	if err != nil {
		w.tb.Fatal(err)
	}
	defer f.Close()
	text := fmt.Sprintf(" size %d", size)
	hash := sha256.New()
	for at := int64(0); at < size; {
		begin, err := unix.Seek(int(f.Fd()), at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			break // a hole at the end
		} else if err != nil {
			w.tb.Fatal(err)
		}
		end, err := unix.Seek(int(f.Fd()), begin, unix.SEEK_HOLE)
		if err != nil {
			w.tb.Fatal(err)
		}
		text += fmt.Sprintf(" data %d-%d", begin, end)
		if _, err := io.Copy(hash, io.NewSectionReader(f, begin, end-begin)); err != nil {
			w.tb.Fatal(err)
		}
		at = end
	}
	return text + fmt.Sprintf(" sha256 %x", hash.Sum(nil))
}

// attributes returns all extended attributes, including ACLs and capabilities.
func (w *treeWalk) attributes(path string) string {
	w.tb.Helper()
	names := make([]byte, 64<<10)
	n, err := unix.Llistxattr(path, names)
	if err != nil {
		w.tb.Fatalf("list attributes: %v", err)
	}
	found := map[string]string{}
	for name := range strings.SplitSeq(strings.TrimSuffix(string(names[:n]), "\x00"), "\x00") {
		if name == "" {
			continue
		}
		value := make([]byte, 64<<10)
		n, err := unix.Lgetxattr(path, name, value)
		if err != nil {
			w.tb.Fatalf("attribute %s: %v", name, err)
		}
		found[name] = fmt.Sprintf(" %s=%x", name, value[:n])
	}
	var text strings.Builder
	for _, name := range slices.Sorted(maps.Keys(found)) {
		text.WriteString(found[name])
	}
	return text.String()
}

// wantSameTree reports an error for every file in which two trees differ.
func wantSameTree(tb testing.TB, got, want map[string]string) {
	tb.Helper()
	for _, path := range slices.Sorted(maps.Keys(want)) {
		if got[path] != want[path] {
			tb.Errorf("%.100q:\n got %s\nwant %s", path, got[path], want[path])
		}
	}
	for _, path := range slices.Sorted(maps.Keys(got)) {
		if _, ok := want[path]; !ok {
			tb.Errorf("%.100q is not in the original: %s", path, got[path])
		}
	}
}

package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"
)

// Directories on the host that gitsync deploys to.
const (
	unitDir   = "/etc/systemd/system"
	presetDir = "/usr/local/lib/systemd/system-preset"
	// quadletDir is where podman's generator reads quadlets (podman-systemd.unit(5)).
	quadletDir = "/etc/containers/systemd"
)

// executablePath has the directories in which systemd looks for a program that
// ExecStart= gives without a path (systemd.service(5), "Command lines").
var executablePath = []string{"/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"}

// host is the file system that gitsync changes: that of the running system, or
// another root (--root), which no path can lead out of.
type host struct {
	root string // "/" for the running host
}

func (h host) offline() bool { return h.root != "/" }

// real returns the path of p, a path of the host, in this process's file system.
// For another root, symbolic links in the directories of p are followed as if that
// root were "/". The last component is not followed.
func (h host) real(p string) (string, error) {
	if !h.offline() {
		return p, nil
	}
	dir, err := h.resolve(path.Dir(p))
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, path.Base(p)), nil
}

// resolve follows all links of p below the root. Components that do not exist stay
// as they are written.
func (h host) resolve(p string) (string, error) {
	const maxLinks = 40 // the kernel's limit
	todo := strings.Split(path.Clean("/"+p), "/")
	at := "/" // resolved so far, as a path of the host
	for links := 0; len(todo) > 0; {
		name := todo[0]
		todo = todo[1:]
		switch name {
		case "", ".":
			continue
		case "..":
			at = path.Dir(at)
			continue
		}
		next := path.Join(at, name)
		target, err := os.Readlink(filepath.Join(h.root, next))
		if err != nil {
			at = next // not a link, or does not exist
			continue
		}
		if links++; links > maxLinks {
			return "", &fs.PathError{Op: "resolve", Path: p, Err: syscall.ELOOP}
		}
		if path.IsAbs(target) {
			at = "/"
		}
		todo = append(strings.Split(target, "/"), todo...)
	}
	return filepath.Join(h.root, at), nil
}

// fileState is the state of a path.
type fileState struct {
	kind string // "file", "link", "other", or "" if nothing exists there
	link string // the target of a link, as an absolute path
	mode fs.FileMode
	uid  uint32
	gid  uint32
	sum  string // sha256 of a file's content
	data []byte
}

// state reads the state of the host's path p.
func (h host) state(p string) (fileState, error) {
	r, err := h.real(p)
	if err != nil {
		return fileState{}, err
	}
	info, err := os.Lstat(r)
	if notThere(err) {
		return fileState{}, nil
	}
	if err != nil {
		return fileState{}, err
	}
	s := fileState{kind: "other", mode: info.Mode().Perm() | info.Mode()&(fs.ModeSetuid|fs.ModeSetgid|fs.ModeSticky)}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		s.uid, s.gid = st.Uid, st.Gid
	}
	switch {
	case info.Mode()&fs.ModeSymlink != 0:
		s.kind = "link"
		if s.link, err = os.Readlink(r); !path.IsAbs(s.link) {
			s.link = path.Join(path.Dir(p), s.link)
		}
	case info.Mode().IsRegular():
		s.kind = "file"
		if info.Size() > maxKept {
			// gitsync deploys no file of this size, so its content is not needed.
			s.sum = fmt.Sprintf("%d bytes", info.Size())
			break
		}
		if s.data, err = readRegular(r, maxKept); err == nil {
			s.sum = sum(s.data)
		}
	}
	return s, err
}

// readRegular reads a file that another user may have created. It follows no link
// in the last component, does not wait for a pipe, and fails if the file is longer
// than limit bytes.
func readRegular(name string, limit int64) ([]byte, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, errors.Join(err, fmt.Errorf("read %s: not a regular file", name))
	}
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("read %s: longer than %d bytes", name, limit)
	}
	return b, err
}

// sum returns the sha256 of a file's content, as sha256sum(1) prints it.
func sum(b []byte) string {
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:])
}

// notThere reports whether an error says that a file does not exist.
func notThere(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
}

package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"observability-hub/sysmetrics/internal/statfs"
)

// host is the place from which the kernel's files are read: /proc and /sys of
// this machine, or a copy from another machine.
type host struct {
	procRoot, sysRoot, osRelease string
	rootfs                       string // prefix of every mount point when it is asked
	ask                          func(context.Context, []string) []statfs.Answer
	askHere                      func(string) statfs.Answer // nil if the mounts in procRoot may not be those of this process
	buf                          []byte                     // reused by read; its content is valid until the next call
}

func newHost(procRoot, sysRoot, osRelease string) (*host, error) {
	if info, err := os.Stat(procRoot); err != nil {
		return nil, fmt.Errorf("--procfs: %w", err)
	} else if !info.IsDir() {
		return nil, fmt.Errorf("--procfs: %s is not a directory", procRoot)
	}
	return &host{procRoot: procRoot, sysRoot: sysRoot, osRelease: osRelease, ask: statfs.Ask, buf: make([]byte, 16<<10)}, nil
}

// read returns the content of a file below /proc. The content is valid until the
// next call. stat(2) does not know the size of these files, and one large
// read(2) returns consistent content.
func (h *host) read(name ...string) ([]byte, error) {
	return h.readPath(h.procRoot + "/" + strings.Join(name, "/"))
}

func (h *host) readPath(path string) ([]byte, error) {
	fd, err := syscall.Open(path, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	defer syscall.Close(fd)
	n := 0
	for {
		if n == len(h.buf) {
			h.buf = append(h.buf, make([]byte, len(h.buf))...)
		}
		m, err := syscall.Read(fd, h.buf[n:])
		switch {
		case err == syscall.EINTR:
			continue
		case err != nil:
			return nil, fmt.Errorf("read %s: %w", path, err)
		case m == 0:
			return h.buf[:n], nil
		}
		n += m
	}
}

// readLine returns the content of a one-line file as text.
func (h *host) readLine(path string) (string, error) {
	b, err := h.readPath(path)
	return string(bytes.TrimSpace(b)), err
}

func (h *host) bootID() (string, error) {
	return h.readName(filepath.Join(h.procRoot, "sys/kernel/random/boot_id"))
}

func (h *host) hostname() (string, error) {
	return h.readName(filepath.Join(h.procRoot, "sys/kernel/hostname"))
}

// machineID returns the content of machine-id(5), which is in the same directory
// as os-release. It returns "" if the file is missing or not valid.
func (h *host) machineID() string {
	id := h.line(filepath.Join(filepath.Dir(h.osRelease), "machine-id"))
	if len(id) != 32 || strings.Trim(id, "0123456789abcdef") != "" {
		return ""
	}
	return id
}

// readName returns the content of a file that holds a name. An empty name is an
// error.
func (h *host) readName(path string) (string, error) {
	name, err := h.readLine(path)
	if err == nil && (name == "" || len(name) > maxName) {
		err = fmt.Errorf("read %s: %d bytes are not a valid name", path, len(name))
	}
	return name, err
}

// os returns ID and VERSION_ID of os-release(5), for example "debian 12". A
// rolling distribution has no version. If the file is missing, os returns
// "linux", which is the default of ID.
func (h *host) os() string {
	id, version := "linux", ""
	b, err := h.readPath(h.osRelease)
	if err != nil {
		return id
	}
	for line := range strings.Lines(string(b)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		value = strings.Trim(value, `"'`)
		switch key {
		case "ID":
			id = value
		case "VERSION_ID":
			version = " " + value
		}
	}
	name := id + version
	return name[:min(len(name), maxName)]
}

// fields is the rest of a line of space-separated fields. Unlike [bytes.Fields]
// it allocates no slice.
type fields []byte

func (f *fields) next() ([]byte, error) {
	b := bytes.TrimLeft(*f, " \t")
	if len(b) == 0 {
		*f = nil
		return nil, io.ErrUnexpectedEOF
	}
	end := bytes.IndexAny(b, " \t")
	if end < 0 {
		end = len(b)
	}
	*f = b[end:]
	return b[:end], nil
}

// uint parses the next field.
func (f *fields) uint() (uint64, error) {
	b, err := f.next()
	if err != nil {
		return 0, err
	}
	return parseUint(b)
}

// parseUint is strconv.ParseUint for bytes, in base 10.
func parseUint(b []byte) (uint64, error) {
	var n uint64
	for _, c := range b {
		d := uint64(c - '0')
		if d > 9 || n > (1<<64-1)/10 || n*10 > 1<<64-1-d {
			return 0, fmt.Errorf("%q is not an unsigned number of 64 bits", b)
		}
		n = n*10 + d
	}
	if len(b) == 0 {
		return 0, fmt.Errorf("missing number")
	}
	return n, nil
}

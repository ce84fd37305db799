package main

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

const (
	tarBlock = 512
	// maxExtended bounds the body of a pax or GNU long-name header that is
	// looked into. Linux gives a name 4 KiB and all attributes of a file 64 KiB.
	maxExtended = 1 << 20
)

// tarCheck follows the structure of a tar stream as it passes: headers with
// right checksums, bodies in their full length, the two zero blocks at the end.
//
// GNU tar, busybox and Go's archive/tar all take a stream that was cut between
// two entries for a whole archive. Here only the end marker makes it whole.
// Formats: v7, ustar, pax (also GNU's sparse files, versions 0.0 to 1.0), GNU with
// long names and old sparse headers; POSIX.1-2017 pax(1), tar(5) of libarchive.
type tarCheck struct {
	Entries int64 // files, folders, links and so on; headers that only extend another do not count
	Bytes   int64 // of the stream

	block    [tarBlock]byte // what is there of a block that is looked into
	have     int
	skip     int64 // bytes of a body, padded, still to come
	extended int64 // bytes of an extended header's body, padded, still to come
	extLen   int64 // its length without padding
	ext      []byte
	sparse   bool // the next block continues an old GNU sparse header
	size     int64
	hasSize  bool // size is the pax size of the entry to come
	pending  bool // an extended header waits for its entry
	zeros    int  // zero blocks in a row
	err      error
}

// Write takes the next bytes of the stream. After an error it takes no more.
func (t *tarCheck) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 && t.err == nil {
		if t.skip > 0 && !t.sparse { // the blocks of a sparse header come before the body
			k := min(t.skip, int64(len(p)))
			t.skip, t.Bytes, p = t.skip-k, t.Bytes+k, p[k:]
			continue
		}
		k := copy(t.block[t.have:], p)
		t.have, t.Bytes, p = t.have+k, t.Bytes+int64(k), p[k:]
		if t.have < tarBlock {
			break
		}
		t.have = 0
		if err := t.take(t.block[:]); err != nil {
			t.err = fmt.Errorf("not a tar stream: byte %d: %w", t.Bytes-tarBlock, err)
		}
	}
	if t.err != nil {
		return 0, t.err
	}
	return n, nil
}

// Close says whether the stream was whole.
func (t *tarCheck) Close() error {
	switch {
	case t.err != nil:
		return t.err
	case t.Bytes == 0:
		return errors.New("the tar stream is empty")
	case t.zeros < 2:
		return fmt.Errorf("the tar stream ends early: after %d bytes and %d entries, without its end marker", t.Bytes, t.Entries)
	case t.have != 0:
		return fmt.Errorf("the tar stream ends early: its last block has %d bytes of %d", t.have, tarBlock)
	case t.Entries == 0:
		return errors.New("the tar stream holds no entry, not even a folder")
	}
	return nil
}

func (t *tarCheck) take(b []byte) error {
	switch {
	case t.extended > 0:
		return t.takeExtended(b)
	case t.sparse: // 21 entries of 24 bytes, then the flag that another block follows
		t.sparse = b[504] != 0
		return nil
	case allZero(b):
		if t.pending {
			return errors.New("the archive ends between an extended header and its entry")
		}
		t.zeros++
		return nil
	case t.zeros >= 2:
		return errors.New("data after the end marker")
	case t.zeros == 1:
		return errors.New("a single zero block between entries")
	}
	return t.takeHeader(b)
}

func (t *tarCheck) takeHeader(b []byte) error {
	if err := checkSum(b); err != nil {
		return err
	}
	size, err := tarNumber(b[124:136])
	if err != nil {
		return fmt.Errorf("size: %w", err)
	}
	kind := b[156]
	switch kind {
	case 'x', 'g', 'X', 'L', 'K':
		t.pending = kind != 'g'
		if size == 0 {
			return nil
		}
		if size > maxExtended && (kind == 'x' || kind == 'X') {
			return fmt.Errorf("an extended header of %d bytes", size)
		}
		if kind == 'x' || kind == 'X' {
			t.extended, t.extLen, t.ext = padded(size), size, t.ext[:0]
		} else {
			t.skip = padded(size)
		}
		return nil
	}
	t.Entries++
	t.pending = false
	if t.hasSize {
		size, t.hasSize = t.size, false
	}
	switch kind {
	case '1', '2', '3', '4', '5', '6':
		return nil // links, devices, folders and FIFOs have no body, whatever the size says
	case 'S':
		t.sparse = b[482] != 0
	}
	t.skip = padded(size)
	return nil
}

// takeExtended collects the body of a pax header and looks for the size in it.
// Of an old sparse header it would come before the extension blocks, but pax
// archives do not have those.
func (t *tarCheck) takeExtended(b []byte) error {
	t.ext = append(t.ext, b...)
	if t.extended -= tarBlock; t.extended > 0 {
		return nil
	}
	size, ok, err := paxSize(t.ext[:t.extLen])
	if err != nil {
		return err
	}
	if ok {
		t.size, t.hasSize = size, true
	}
	return nil
}

// paxSize returns the size record of a pax header: records are "LENGTH KEY=VALUE\n".
func paxSize(b []byte) (size int64, ok bool, err error) {
	for len(b) > 0 {
		digits, _, found := bytes.Cut(b[:min(len(b), 20)], []byte(" "))
		n, err := strconv.ParseInt(string(digits), 10, 32)
		if !found || err != nil || n <= int64(len(digits))+1 || n > int64(len(b)) || b[n-1] != '\n' {
			return 0, false, errors.New("a damaged extended header")
		}
		key, value, found := strings.Cut(string(b[len(digits)+1:n-1]), "=")
		if !found {
			return 0, false, errors.New("a damaged extended header")
		}
		if key == "size" {
			if size, err = strconv.ParseInt(value, 10, 64); err != nil || size < 0 || size > maxSize {
				return 0, false, fmt.Errorf("an extended header with the size %.20q", value)
			}
			ok = true
		}
		b = b[n:]
	}
	return size, ok, nil
}

// maxSize keeps sums of sizes within an int64.
const maxSize = 1 << 60

// tarNumber reads a number field: octal, or base 256 if the first bit is set.
func tarNumber(b []byte) (int64, error) {
	if b[0]&0x80 != 0 {
		if b[0] != 0x80 {
			return 0, errors.New("negative or too large")
		}
		var n int64
		for _, c := range b[1:] {
			if n > maxSize>>8 {
				return 0, errors.New("too large")
			}
			n = n<<8 | int64(c)
		}
		return n, nil
	}
	s := strings.Trim(string(b), " \x00")
	if s == "" {
		return 0, nil
	}
	n, err := strconv.ParseInt(s, 8, 64)
	if err != nil || n < 0 || n > maxSize {
		return 0, fmt.Errorf("%q is no octal number", s)
	}
	return n, nil
}

// checkSum compares a header with its checksum, whose own field counts as
// spaces. Old programs summed signed bytes.
func checkSum(b []byte) error {
	want, err := tarNumber(b[148:156])
	if err != nil {
		return fmt.Errorf("checksum: %w", err)
	}
	var unsigned, signed int64
	for i, c := range b {
		if i >= 148 && i < 156 {
			c = ' '
		}
		unsigned += int64(c)
		signed += int64(int8(c))
	}
	if want != unsigned && want != signed {
		return errors.New("the header's checksum is wrong")
	}
	return nil
}

func padded(n int64) int64 { return (n + tarBlock - 1) / tarBlock * tarBlock }

func allZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

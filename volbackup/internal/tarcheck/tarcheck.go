// Package tarcheck checks the structure of a tar stream, and detects a stream that was
// truncated at any byte.
package tarcheck

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

const (
	blockSize = 512
	// maxExtended limits the body of a pax or GNU long-name header that is read. On
	// Linux a name has at most 4 KiB, and the attributes of a file 64 KiB.
	maxExtended = 1 << 20
)

// Check checks the structure of a tar stream: headers with correct checksums, bodies
// of full length, the two zero blocks at the end. The zero value is ready to use.
//
// GNU tar, busybox and Go's archive/tar accept a stream that was truncated between two
// entries. Check rejects every stream without the end mark.
// Formats: v7, ustar, pax (including GNU's sparse files, versions 0.0 to 1.0), and GNU
// with long names and old sparse headers. Sources: POSIX.1-2017 pax(1), tar(5) of
// libarchive.
type Check struct {
	Entries int64 // number of files, directories, links and so on, without extended headers
	Bytes   int64 // of the stream
	// Outside is the first name, or target of a hard link, that leads out of the
	// directory in which the archive is unpacked, such as /etc/passwd or ../x. GNU tar
	// does not restore such an entry unchanged.
	Outside string

	block    [blockSize]byte // the first have bytes of a block that must be parsed
	have     int
	skip     int64 // remaining bytes of a body, with padding
	extended int64 // remaining bytes of an extended header's body, with padding
	extKind  byte  // its type flag
	extLen   int64 // its length without padding
	ext      []byte
	sparse   bool   // the next block continues an old GNU sparse header
	next     fields // the fields of the next entry from its extended headers
	pending  bool   // the entry of an extended header has not come yet
	zeros    int    // zero blocks in a row
	err      error
}

// fields holds the fields of an entry from its extended headers.
type fields struct {
	size       int64
	hasSize    bool
	name, link string
}

// Foreign is the error for a stream that has another known format than tar.
type Foreign struct {
	Format string // for example gzip
	Unpack string // the command that converts it to tar, for example zcat
}

func (f *Foreign) Error() string { return "the stream is " + f.Format + ", not tar" }

// ErrNoEndMark is the error for a stream that ends between two entries without the end
// mark. It was truncated there, or its producer does not write the mark.
var ErrNoEndMark = errors.New("the tar stream ends early, between two entries and without an end mark")

// ErrTrailing is the error for a stream that continues after its end mark, or after half
// of the mark, such as several archives in a row.
var ErrTrailing = errors.New("data after the end mark")

// foreign returns a *Foreign if b begins like a known format, else nil.
func foreign(b []byte) error {
	for _, f := range []struct{ begin, format, unpack string }{
		{"\x1f\x8b", "gzip", "zcat"},
		{"BZh", "bzip2", "bzcat"},
		{"\xfd7zXZ\x00", "xz", "xzcat"},
		{"\x28\xb5\x2f\xfd", "zstd", "zstdcat"},
		{"\x04\x22\x4d\x18", "lz4", "lz4cat"},
		{"LZIP", "lzip", "lzip -dc"},
		{"\x89LZO", "lzop", "lzop -dc"},
		{"\x5d\x00\x00", "lzma", "xzcat --format=lzma"},
		{"\x1f\x9d", "compress", "zcat"},
		{"age-encryption.org/", "encrypted with age", "age -d -i KEY"},
		{"-----BEGIN AGE ENCRYPTED FILE", "encrypted with age", "age -d -i KEY"},
		{"-----BEGIN PGP MESSAGE", "encrypted with PGP", "gpg -d"},
		{"Salted__", "encrypted with openssl", "openssl enc -d"},
		{"PK\x03\x04", "zip", "bsdtar -cf - @"},
		{"7z\xbc\xaf\x27\x1c", "7-Zip", "bsdtar -cf - @"},
		{"0707", "cpio", "bsdtar -cf - @"},
	} {
		if bytes.HasPrefix(b, []byte(f.begin)) {
			return &Foreign{f.format, f.unpack}
		}
	}
	return nil
}

// Write checks the next bytes of the stream. After an error it accepts no more bytes.
func (t *Check) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 && t.err == nil {
		if t.skip > 0 && !t.sparse { // the blocks of a sparse header come before the body
			k := min(t.skip, int64(len(p)))
			t.skip, t.Bytes, p = t.skip-k, t.Bytes+k, p[k:]
			continue
		}
		k := copy(t.block[t.have:], p)
		t.have, t.Bytes, p = t.have+k, t.Bytes+int64(k), p[k:]
		if t.have < blockSize {
			break
		}
		t.have = 0
		if err := t.take(t.block[:]); err != nil {
			t.err = fmt.Errorf("not a tar stream: byte %d: %w", t.Bytes-blockSize, err)
			if other := foreign(t.block[:]); other != nil && t.Bytes == blockSize {
				t.err = other
			}
		}
	}
	if t.err != nil {
		return 0, t.err
	}
	return n, nil
}

// Close returns nil if the stream was a complete archive.
func (t *Check) Close() error {
	switch {
	case t.err != nil:
		return t.err
	case t.Bytes == 0:
		return errors.New("the tar stream is empty")
	case t.Bytes < blockSize && foreign(t.block[:t.have]) != nil:
		return foreign(t.block[:t.have])
	case t.zeros < 2 && t.between():
		return fmt.Errorf("%w: after %d bytes and %d entries", ErrNoEndMark, t.Bytes, t.Entries)
	case t.zeros < 2:
		return fmt.Errorf("the tar stream ends early: after %d bytes and %d entries, without an end mark", t.Bytes, t.Entries)
	case t.have != 0:
		return fmt.Errorf("the tar stream ends early: its last block has %d bytes of %d", t.have, blockSize)
	case t.Entries == 0:
		return errors.New("the tar stream has no entries, not even a directory")
	}
	return nil
}

// between reports whether the stream has ended after a complete entry.
func (t *Check) between() bool {
	return t.Entries > 0 && t.have == 0 && t.skip == 0 && t.extended == 0 && !t.sparse && !t.pending
}

func (t *Check) take(b []byte) error {
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
		return ErrTrailing
	case t.zeros == 1:
		return fmt.Errorf("a single zero block between entries: %w", ErrTrailing)
	}
	return t.takeHeader(b)
}

func (t *Check) takeHeader(b []byte) error {
	if err := checkSum(b); err != nil {
		return err
	}
	size, err := number(b[124:136])
	if err != nil {
		return fmt.Errorf("size: %w", err)
	}
	kind := b[156]
	switch kind {
	case 'x', 'g', 'X', 'L', 'K':
		t.pending = kind != 'g'
		switch {
		case size == 0:
		case kind == 'g' || size > maxExtended && (kind == 'L' || kind == 'K'):
			t.skip = padded(size)
		case size > maxExtended:
			return fmt.Errorf("extended header too large: %d bytes", size)
		default:
			t.extKind, t.extended, t.extLen, t.ext = kind, padded(size), size, t.ext[:0]
		}
		return nil
	}
	t.Entries++
	t.pending = false
	next := t.next
	t.next = fields{}
	if next.hasSize {
		size = next.size
	}
	if t.Outside == "" {
		t.Outside = outside(b, kind, next)
	}
	switch kind {
	case '1', '2', '3', '4', '5', '6':
		return nil // links, devices, directories and FIFOs have no body, whatever the size says
	case 'S':
		t.sparse = b[482] != 0
	}
	t.skip = padded(size)
	return nil
}

// outside returns the name, or the target of a hard link, if it leads out of the
// directory in which the archive is unpacked, else "". Symbolic links may lead out.
func outside(b []byte, kind byte, next fields) string {
	name, link := next.name, next.link
	if name == "" {
		name = text(b[:100])
		if prefix := text(b[345:500]); prefix != "" && string(b[257:263]) == "ustar\x00" {
			name = prefix + "/" + name
		}
	}
	if leadsOut(name) {
		return name
	}
	if link == "" {
		link = text(b[157:257])
	}
	if kind == '1' && leadsOut(link) {
		return link
	}
	return ""
}

func leadsOut(name string) bool {
	return strings.HasPrefix(name, "/") || strings.Contains(name, "..") && slices.Contains(strings.Split(name, "/"), "..")
}

// text returns the text of a field, which ends at its first zero byte.
func text(b []byte) string {
	b, _, _ = bytes.Cut(b, []byte{0})
	return string(b)
}

// takeExtended collects the body of an extended header. The extension blocks of an old
// GNU sparse header never occur here, because pax archives do not have them.
func (t *Check) takeExtended(b []byte) error {
	t.ext = append(t.ext, b...)
	if t.extended -= blockSize; t.extended > 0 {
		return nil
	}
	body := t.ext[:t.extLen]
	switch t.extKind {
	case 'L':
		t.next.name = text(body)
	case 'K':
		t.next.link = text(body)
	default:
		return t.next.pax(body)
	}
	return nil
}

// pax reads the records of a pax header: "LENGTH KEY=VALUE\n".
func (f *fields) pax(b []byte) error {
	for len(b) > 0 {
		digits, _, found := bytes.Cut(b[:min(len(b), 20)], []byte(" "))
		n, err := strconv.ParseInt(string(digits), 10, 32)
		if !found || err != nil || n <= int64(len(digits))+1 || n > int64(len(b)) || b[n-1] != '\n' {
			return errors.New("damaged extended header")
		}
		key, value, found := strings.Cut(string(b[len(digits)+1:n-1]), "=")
		if !found {
			return errors.New("damaged extended header")
		}
		switch key {
		case "size":
			if f.size, err = strconv.ParseInt(value, 10, 64); err != nil || f.size < 0 || f.size > maxSize {
				return fmt.Errorf("extended header with the invalid size %.20q", value)
			}
			f.hasSize = true
		case "path", "GNU.sparse.name": // GNU tar writes the second one after the first; the last one counts
			f.name = value
		case "linkpath":
			f.link = value
		}
		b = b[n:]
	}
	return nil
}

// maxSize keeps sums of sizes within an int64.
const maxSize = 1 << 60

// number reads a field: octal, or base 256 if the first bit is set.
func number(b []byte) (int64, error) {
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
		return 0, fmt.Errorf("%q is not an octal number", s)
	}
	return n, nil
}

// checkSum verifies the checksum of a header. The bytes of the checksum field count as
// spaces. Old programs summed signed bytes.
func checkSum(b []byte) error {
	want, err := number(b[148:156])
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
		return errors.New("wrong header checksum")
	}
	return nil
}

func padded(n int64) int64 { return (n + blockSize - 1) / blockSize * blockSize }

func allZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

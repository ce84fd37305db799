package tarcheck

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// checkTar checks a stream, in pieces of n bytes.
func checkTar(stream []byte, n int) (*Check, error) {
	var c Check
	for len(stream) > 0 {
		k := min(n, len(stream))
		if _, err := c.Write(stream[:k]); err != nil {
			return &c, err
		}
		stream = stream[k:]
	}
	return &c, c.Close()
}

// goTar returns an archive of Go's archive/tar, which ends with 1024 zero bytes.
func goTar(t testing.TB, headers ...*tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.CopyN(w, rand.NewChaCha8([32]byte{1}), h.Size); err != nil && h.Size > 0 {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// odd returns a directory with files for which GNU tar writes each kind of header.
func odd(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	put := func(name string, content string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	put("plain", "hello\n")
	put("empty", "")
	put("block", strings.Repeat("x", 512))
	put("new\nline", "x")
	put("-dash", "x")
	put("\xff\xfe", "x")
	put(strings.Repeat("n", 255), "x")
	put(strings.Repeat(strings.Repeat("d", 100)+"/", 10)+"deep", "x")
	if err := os.Link(filepath.Join(dir, "plain"), filepath.Join(dir, "hard")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(strings.Repeat("s", 300), filepath.Join(dir, "soft")); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(dir, "sparse"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for i := range int64(100) { // more holes than fit into one header
		if _, err := f.WriteAt([]byte("data"), i<<20); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func gnuTar(t testing.TB, dir string, args ...string) []byte {
	t.Helper()
	out, err := exec.Command("tar", append(args, "--create", "--file=-", "--directory="+dir, ".")...).Output()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestCheckAcceptsCompleteArchives(t *testing.T) {
	dir := odd(t)
	for _, args := range [][]string{
		{"--format=posix"},
		{"--format=posix", "--sparse"},
		{"--format=posix", "--sparse", "--sparse-version=0.0"},
		{"--format=posix", "--sparse", "--sparse-version=0.1"},
		{"--format=posix", "--xattrs", "--acls", "--sparse", "--pax-option=delete=atime,delete=ctime"},
		{"--format=gnu"},
		{"--format=gnu", "--sparse"},
		{"--format=gnu", "--blocking-factor=1"},
		{"--format=oldgnu", "--sparse"},
	} {
		stream := gnuTar(t, dir, args...)
		want := tarCount(t, stream)
		for _, n := range []int{1 << 20, 10240, 511, 7} {
			c, err := checkTar(stream, n)
			if err != nil || c.Entries != want || c.Bytes != int64(len(stream)) {
				t.Errorf("%v in pieces of %d: %d entries, %d bytes, %v; want %d, %d", args, n, c.Entries, c.Bytes, err, want, len(stream))
			}
		}
	}
	stream := goTar(t, &tar.Header{Name: "a", Size: 1000}, &tar.Header{Name: strings.Repeat("long", 100), Size: 1})
	if c, err := checkTar(stream, 100); err != nil || c.Entries != 2 {
		t.Errorf("archive/tar: %d entries, %v", c.Entries, err)
	}
}

// tarCount returns the number of entries that GNU tar lists for an archive.
func tarCount(t testing.TB, stream []byte) int64 {
	t.Helper()
	cmd := exec.Command("tar", "--list", "--file=-", "--quoting-style=escape")
	cmd.Stdin = bytes.NewReader(stream)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return int64(bytes.Count(out, []byte("\n")))
}

// A stream that ends before the end of the two zero blocks is rejected, and so is one
// that does not end at the end of a block.
func TestCheckRejectsTruncatedStreams(t *testing.T) {
	for _, stream := range [][]byte{
		gnuTar(t, odd(t), "--format=posix", "--sparse"),
		gnuTar(t, odd(t), "--format=gnu", "--sparse"),
		goTar(t, &tar.Header{Name: "a", Size: 1000}, &tar.Header{Name: "b", Size: 513}),
	} {
		end := len(stream)
		for end >= 1024 && allZero(stream[end-512:end]) {
			end -= 512
		}
		end += 1024
		for cut := 0; cut < len(stream); cut++ {
			if cut%512 != 0 && cut%61 != 0 {
				continue
			}
			_, err := checkTar(stream[:cut], 1<<20)
			if whole := cut >= end && cut%512 == 0; (err == nil) != whole {
				t.Fatalf("truncated at %d of %d, end mark complete at %d: %v", cut, len(stream), end, err)
			}
		}
	}
}

func TestCheckRejectsBadStreams(t *testing.T) {
	good := goTar(t, &tar.Header{Name: "a", Size: 1000}, &tar.Header{Name: "b", Size: 513})
	change := func(at int, c byte) []byte {
		b := bytes.Clone(good)
		b[at] = c
		return b
	}
	pax := goTar(t, &tar.Header{Name: strings.Repeat("long", 100), Format: tar.FormatPAX})
	zeros := make([]byte, 512)
	for name, stream := range map[string][]byte{
		"nothing":                  nil,
		"no entry":                 make([]byte, 10240),
		"text":                     bytes.Repeat([]byte("this is not tar\n"), 1000),
		"a changed name":           change(0, 'c'),
		"an invalid size":          change(130, 'x'),
		"a checksum's first digit": change(148, '1'),
		"an invalid checksum":      change(150, 'x'),
		"a compressed archive":     []byte("\x28\xb5\x2f\xfd" + strings.Repeat("z", 2000)),
		"one zero block inside":    append(append(bytes.Clone(good[:1536]), zeros...), good[1536:]...),
		"two archives":             append(bytes.Clone(good), good...),
		"an extended header alone": append(bytes.Clone(pax[:1024]), make([]byte, 1024)...),
		"a damaged pax record":     bytes.Replace(pax, []byte(" path="), []byte("9path="), 1),
	} {
		if c, err := checkTar(stream, 4096); err == nil {
			t.Errorf("%s: accepted with %d entries", name, c.Entries)
		}
	}
}

func TestPax(t *testing.T) {
	for _, c := range []struct {
		body string
		size int64
		ok   bool
		bad  bool
	}{
		{"", 0, false, false},
		{"12 size=1234\n", 0, false, true},
		{"13 size=1234\n", 1234, true, false},
		{"13 path=size\n13 size=1234\n", 1234, true, false},
		{"11 a=\nb=\nc\n", 0, false, false},
		{"11 size=-1\n", 0, false, true},
		{"33 size=9999999999999999999999999\n", 0, false, true},
		{"0 size=1\n", 0, false, true},
		{"99 size=1\n", 0, false, true},
		{"x size=1\n", 0, false, true},
		{"8 nokey\n", 0, false, true},
	} {
		var f fields
		err := f.pax([]byte(c.body))
		if f.size != c.size && err == nil || f.hasSize != c.ok && err == nil || (err != nil) != c.bad {
			t.Errorf("pax(%q): %+v, %v", c.body, f, err)
		}
	}
}

// The error for a stream in another format names the format and the command that
// converts it to tar.
func TestForeign(t *testing.T) {
	for begin, format := range map[string]string{
		"\x1f\x8b\x08": "gzip", "BZh9": "bzip2", "\xfd7zXZ\x00": "xz", "\x28\xb5\x2f\xfd": "zstd", "PK\x03\x04": "zip",
		"age-encryption.org/v1\n": "encrypted with age", "-----BEGIN AGE ENCRYPTED FILE-----": "encrypted with age",
	} {
		for _, n := range []int{0, 500, 5000} {
			_, err := checkTar([]byte(begin+strings.Repeat("z", n)), 300)
			var f *Foreign
			if !errors.As(err, &f) || f.Format != format || f.Unpack == "" {
				t.Errorf("%q and %d bytes: %v; want %s", begin, n, err, format)
			}
		}
	}
	// A file name may begin like the magic bytes of a format.
	if _, err := checkTar(goTar(t, &tar.Header{Name: "BZh9", Size: 10}), 4096); err != nil {
		t.Error(err)
	}
}

// The error for a stream without an end mark differs from that for a stream that ends
// inside an entry.
func TestNoEndMark(t *testing.T) {
	stream := goTar(t, &tar.Header{Name: "a", Size: 1000}, &tar.Header{Name: strings.Repeat("long", 100), Size: 1})
	for cut, want := range map[int]bool{512: false, 1536: true, 2048: false, 2560: false, 3072: false, 3584: true, 4096: true, 4000: false} {
		if _, err := checkTar(stream[:cut], 4096); err == nil || errors.Is(err, ErrNoEndMark) != want {
			t.Errorf("truncated at %d: %v; want ErrNoEndMark: %v", cut, err, want)
		}
	}
}

// Names that lead out of the directory are found in every header format.
func TestOutside(t *testing.T) {
	long := strings.Repeat("long/", 60)
	for _, c := range []struct {
		header tar.Header
		want   string
	}{
		{tar.Header{Name: "./a"}, ""},
		{tar.Header{Name: "a..b/..c"}, ""},
		{tar.Header{Name: "/a"}, "/a"},
		{tar.Header{Name: "../a"}, "../a"},
		{tar.Header{Name: "a/../../b"}, "a/../../b"},
		{tar.Header{Name: "a/.."}, "a/.."},
		{tar.Header{Name: "/" + long + "a", Format: tar.FormatPAX}, "/" + long + "a"},
		{tar.Header{Name: "/" + long + "a", Format: tar.FormatGNU}, "/" + long + "a"},
		{tar.Header{Name: "/" + strings.Repeat("u", 90) + "/" + strings.Repeat("v", 90), Format: tar.FormatUSTAR}, "/" + strings.Repeat("u", 90) + "/" + strings.Repeat("v", 90)},
		{tar.Header{Name: long + "a", Format: tar.FormatPAX}, ""},
		{tar.Header{Name: "a", Linkname: "/b", Typeflag: tar.TypeSymlink}, ""},
		{tar.Header{Name: "a", Linkname: "/b", Typeflag: tar.TypeLink}, "/b"},
		{tar.Header{Name: "a", Linkname: "/" + long, Typeflag: tar.TypeLink, Format: tar.FormatPAX}, "/" + long},
		{tar.Header{Name: "a", Linkname: "/" + long, Typeflag: tar.TypeLink, Format: tar.FormatGNU}, "/" + long},
	} {
		check, err := checkTar(goTar(t, &tar.Header{Name: "first"}, &c.header, &tar.Header{Name: "last"}), 4096)
		if err != nil || check.Outside != c.want || check.Entries != 3 {
			t.Errorf("%.20q, link %.20q: outside %q, %v; want %q", c.header.Name, c.header.Linkname, check.Outside, err, c.want)
		}
	}
}

// FuzzCheck checks that no input causes a panic, and that the result does not depend on
// the size of the pieces.
func FuzzCheck(f *testing.F) {
	f.Add(goTar(f, &tar.Header{Name: "a", Size: 1000}), uint16(100))
	f.Add(goTar(f, &tar.Header{Name: strings.Repeat("long", 100), Size: 3}), uint16(512))
	f.Add(make([]byte, 2048), uint16(1))
	f.Fuzz(func(t *testing.T, stream []byte, n uint16) {
		whole, errWhole := checkTar(stream, max(1, len(stream)))
		parts, errParts := checkTar(stream, max(1, int(n)))
		if fmt.Sprint(errWhole) != fmt.Sprint(errParts) || errWhole == nil && whole.Entries != parts.Entries {
			t.Errorf("in one piece: %v; in pieces of %d: %v", errWhole, n, errParts)
		}
	})
}

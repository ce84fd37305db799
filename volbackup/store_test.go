package main

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"observability-hub/lib/sysexits"
	"observability-hub/volbackup/internal/repository"
)

// stream is a source in memory.
type stream struct {
	data  []byte
	err   error // of finish
	waits bool
	tree  string // of finish
}

func (s stream) open(_ context.Context, _ string, spool *os.File) (io.Reader, error) {
	if spool != nil {
		_, err := spool.Write(s.data)
		return nil, err
	}
	return bytes.NewReader(s.data), nil
}
func (s stream) finish() (ending, error) { return ending{repository.Consistent, s.tree}, s.err }
func (s stream) running() bool           { return false }
func (s stream) waited() bool            { return s.waits }
func (s stream) reads() string           { return "" }

func newStore(t *testing.T) *store {
	t.Helper()
	r, err := repository.New(filepath.Join(t.TempDir(), "repo"))
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Claim(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Release(); err != nil {
			t.Error(err)
		}
	})
	return &store{Repository: r, staging: r.Root}
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

// big returns an archive of one file of n bytes. From the offset from on, every 4,096th
// byte differs from that of big(t, n, n).
func big(t *testing.T, n, from int64) []byte {
	t.Helper()
	b := goTar(t, &tar.Header{Name: "a", Size: n})
	for i := 512 + from; i < 512+n; i += 4096 {
		b[i] ^= 1
	}
	return b
}

// An empty stream is accepted only if the source returns the tree of the last archive,
// and if the volume does not have to be read for another reason.
func TestPutSameTree(t *testing.T) {
	data := big(t, blockSize, 0)
	for _, test := range []struct {
		name      string
		stored    string // tree of the first archive
		reread    bool
		recipient bool   // a recipient is added after the first archive
		found     string // tree that the source returns
		status    int
	}{
		{"same tree", "a", false, false, "a", sysexits.OK},
		{"another tree", "a", false, false, "b", sysexits.DataErr},
		{"source returns no tree", "a", false, false, "", sysexits.DataErr},
		{"archive has no tree", "", false, false, "a", sysexits.DataErr},
		{"no tree at all", "", false, false, "", sysexits.DataErr},
		{"--reread", "a", true, false, "a", sysexits.DataErr},
		{"another recipient", "a", false, true, "a", sysexits.DataErr},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newStore(t)
			if _, err := s.put(t.Context(), &repository.Manifest{Volume: "v"}, stream{data: data, tree: test.stored}); err != nil {
				t.Fatal(err)
			}
			s.reread = test.reread
			if test.recipient {
				key, err := age.GenerateX25519Identity()
				if err != nil {
					t.Fatal(err)
				}
				s.recipients, s.names = []age.Recipient{key.Recipient()}, []string{key.Recipient().String()}
			}
			m := &repository.Manifest{Volume: "v"}
			unchanged, err := s.put(t.Context(), m, stream{tree: test.found})
			if sysexits.Code(err) != test.status || unchanged != (test.status == sysexits.OK) {
				t.Fatalf("unchanged %v, %v; want status %d", unchanged, err, test.status)
			}
			if err == nil && (m.Tree != "a" || m.Bytes != int64(len(data)) || m.LinkOf == "") {
				t.Errorf("the manifest has tree %q, %d bytes, link of %q", m.Tree, m.Bytes, m.LinkOf)
			}
			if got := content(t, s); !bytes.Equal(got, data) {
				t.Errorf("the newest archive has other content")
			}
		})
	}
}

// content returns the stream of the newest archive.
func content(t *testing.T, s *store, identities ...age.Identity) []byte {
	t.Helper()
	m, err := s.Find("v", "")
	if err != nil {
		t.Fatal(err)
	}
	f, err := s.Open(t.Context(), m)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b bytes.Buffer
	if _, err := pour(t.Context(), f, m, identities, &b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// files returns the names in the volume's directory.
func files(t *testing.T, s *store) string {
	t.Helper()
	entries, err := os.ReadDir(s.Dir("v"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return strings.Join(names, " ")
}

// An archive contains the stream that was put, however long its common beginning with
// the last archive is, encrypted or not, staged or not.
func TestPutAfterPut(t *testing.T) {
	key, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	const n = 4*blockSize + 12345
	for _, waits := range []bool{false, true} {
		for _, encrypted := range []bool{false, true} {
			s := newStore(t)
			if encrypted {
				s.recipients, s.names = []age.Recipient{key.Recipient()}, []string{key.Recipient().String()}
			}
			var last []byte
			put := func(name string, data []byte, same bool) {
				t.Helper()
				m := &repository.Manifest{Volume: "v"}
				unchanged, err := s.put(t.Context(), m, stream{data: data, waits: waits})
				if err != nil || unchanged != same {
					t.Fatalf("%s: unchanged %v, %v", name, unchanged, err)
				}
				if got := content(t, s, key); !bytes.Equal(got, data) {
					t.Fatalf("%s: the archive has %d other bytes than the stream", name, len(got))
				}
				last = data
			}
			put("first", big(t, n, n), false)
			put("same", last, true)
			put("same again", last, true)
			for _, from := range []int64{0, blockSize - 512, 3*blockSize + 7, n - 1} {
				put("differs", big(t, n, from), false)
				put("same", last, true)
				put("first again", big(t, n, n), false)
			}
			put("shorter", big(t, 2*blockSize-512, n), false)
			put("longer", big(t, n+blockSize, n+blockSize), false)
		}
	}
}

func TestPutLinks(t *testing.T) {
	s := newStore(t)
	data := big(t, 100, 100)
	for range 2 {
		if _, err := s.put(t.Context(), &repository.Manifest{Volume: "v"}, stream{data: data}); err != nil {
			t.Fatal(err)
		}
	}
	all, err := s.Archives("v")
	if err != nil || len(all) != 2 {
		t.Fatalf("%d archives, %v", len(all), err)
	}
	a, errA := os.Stat(s.Path(all[0].Manifest))
	b, errB := os.Stat(s.Path(all[1].Manifest))
	if errA != nil || errB != nil || !os.SameFile(a, b) || all[1].LinkOf != all[0].ID {
		t.Errorf("not the same file: %v %v, link of %q", errA, errB, all[1].LinkOf)
	}
}

// A new archive is not a link to a damaged one.
func TestPutAfterDamage(t *testing.T) {
	s := newStore(t)
	data := big(t, 3*blockSize, 3*blockSize)
	if _, err := s.put(t.Context(), &repository.Manifest{Volume: "v"}, stream{data: data, tree: "a"}); err != nil {
		t.Fatal(err)
	}
	all, err := s.Archives("v")
	if err != nil {
		t.Fatal(err)
	}
	flip(t, s.Path(all[0].Manifest), 1000)
	if _, err := s.put(t.Context(), &repository.Manifest{Volume: "v"}, stream{tree: "a"}); !errors.Is(err, errBaseDamaged) {
		t.Fatalf("put of an empty stream with the same tree: %v; want errBaseDamaged", err)
	}
	unchanged, err := s.put(t.Context(), &repository.Manifest{Volume: "v"}, stream{data: data})
	if err != nil || unchanged {
		t.Fatalf("unchanged %v, %v", unchanged, err)
	}
	if got := content(t, s); !bytes.Equal(got, data) {
		t.Error("the archive has other content than the stream")
	}
	if all, err = s.Archives("v"); err != nil || len(all) != 2 || all[0].Damaged == "" || all[1].Damaged != "" {
		t.Errorf("%v %v", all, err)
	}
}

func flip(t *testing.T, path string, at int64) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[at%int64(len(b))] ^= 0x10
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// A rejected stream leaves no file behind, with or without an older archive.
func TestPutRefuses(t *testing.T) {
	good := big(t, 5*blockSize, 5*blockSize)
	random := rand.New(rand.NewPCG(1, 2))
	sources := map[string]stream{"status": {data: good, err: errors.New("exit status 2")}, "empty": {}}
	for range 30 {
		cut := random.IntN(len(good) - 1024)
		sources["cut"] = stream{data: good[:cut]}
		s := newStore(t)
		for name, src := range sources {
			_, err := s.put(t.Context(), &repository.Manifest{Volume: "v"}, src)
			if err == nil || name == "cut" && sysexits.Code(err) != sysexits.DataErr {
				t.Errorf("%s at %d: %v", name, cut, err)
			}
			if left := files(t, s); left != "" {
				t.Fatalf("%s at %d: left %s", name, cut, left)
			}
		}
		if _, err := s.put(t.Context(), &repository.Manifest{Volume: "v"}, stream{data: good}); err != nil {
			t.Fatal(err)
		}
		before := files(t, s)
		for name, src := range sources {
			if _, err := s.put(t.Context(), &repository.Manifest{Volume: "v"}, src); err == nil {
				t.Errorf("%s at %d: accepted", name, cut)
			}
			if left := files(t, s); left != before {
				t.Fatalf("%s at %d: %s; was %s", name, cut, left, before)
			}
		}
	}
}

// Files of a killed run are published if they are complete, else removed.
func TestRepair(t *testing.T) {
	s := newStore(t)
	for _, n := range []int64{100, 200, 300} {
		if _, err := s.put(t.Context(), &repository.Manifest{Volume: "v"}, stream{data: big(t, n, n)}); err != nil {
			t.Fatal(err)
		}
	}
	all, err := s.Archives("v")
	if err != nil {
		t.Fatal(err)
	}
	before := strings.Fields(files(t, s))
	move := func(from, to string) {
		t.Helper()
		if err := os.Rename(filepath.Join(s.Dir("v"), from), filepath.Join(s.Dir("v"), to)); err != nil {
			t.Fatal(err)
		}
	}
	// Killed between the renames of archive and manifest; during a removal; during a write.
	move(all[2].ID+".json", ".tmp-"+all[2].ID+".json")
	move(all[0].ID+".json", ".tmp-"+all[0].ID+".json"+".gone")
	for _, name := range []string{"20260101T000000.000Z" + ".tar.zst", "20260101T000000.000Z" + ".json", ".prefixes"} {
		if err := os.WriteFile(filepath.Join(s.Dir("v"), ".tmp-"+name), []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Repair(); err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, name := range before {
		if !strings.HasPrefix(name, all[0].ID) {
			want = append(want, name)
		}
	}
	if got := files(t, s); got != strings.Join(want, " ") {
		t.Errorf("left %s; want %s", got, want)
	}
}

// run removes expired archives after the new archive is verified, and keeps all archives
// of the last 24 hours.
func TestRetire(t *testing.T) {
	s, now := newStore(t), time.Now()
	var made *repository.Manifest
	for i, age := range []time.Duration{72 * time.Hour, 48 * time.Hour, 30 * time.Hour, 20 * time.Hour, 0} {
		made = &repository.Manifest{Volume: "v"}
		if _, err := s.put(t.Context(), made, stream{data: big(t, int64(i)+1, 0)}); err != nil {
			t.Fatal(err)
		}
		made.Time = now.Add(-age)
		if err := s.Update(made); err != nil {
			t.Fatal(err)
		}
	}
	removed, err := s.retire(repository.Retention{KeepDaily: 1}, made, now)
	all, errAll := s.Archives("v")
	if err != nil || errAll != nil || removed != 3 || len(all) != 2 {
		t.Errorf("%d removed, %d left, %v %v; want 3 and 2", removed, len(all), err, errAll)
	}
}

package volbackup

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// small mounts a file system of size bytes.
func small(tb testing.TB, dir string, size int) {
	tb.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		tb.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", size)); err != nil {
		tb.Fatalf("mount a tmpfs: %v (these tests need root)", err)
	}
	tb.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			tb.Error(err)
		}
	})
}

func used(tb testing.TB, dir string) uint64 {
	tb.Helper()
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		tb.Fatal(err)
	}
	return (st.Blocks - st.Bfree) * uint64(st.Bsize)
}

// If the repository becomes full at any point of a run, the run exits with status 73. The
// old archive is unchanged, and the unfinished files are removed.
func TestFullRepository(t *testing.T) {
	const page = 4096
	w := newWorld(t)
	small(t, w.repo, 1<<20)
	w.fill("v", 20_000, 1)
	w.want(0, "run", "v")
	failed, done := 0, 0
	for room := 0; room < 40*page; room += page {
		// Another file leaves only that much room.
		rest := 1<<20 - int(used(t, w.repo)) - room
		if err := os.WriteFile(filepath.Join(w.repo, "else"), make([]byte, rest), 0o600); err != nil {
			t.Fatal(err)
		}
		before := used(t, w.repo)
		w.fill("v", 100_000, uint64(room))
		got := w.try("run", "v")
		switch got.status {
		case 73:
			failed++
			if after := used(t, w.repo); after != before || len(w.leftovers()) > 0 {
				t.Fatalf("%d bytes of room: %d bytes more are used than before, left %q", room, after-before, w.leftovers())
			}
			if !strings.Contains(got.stderr, `"hint":"make room`) {
				t.Errorf("no hint to make room: %s", got.stderr)
			}
		case 0:
			done++
		default:
			t.Fatalf("%d bytes of room: status %d: %s", room, got.status, got.stderr)
		}
		if err := os.Remove(filepath.Join(w.repo, "else")); err != nil {
			t.Fatal(err)
		}
		w.want(0, "verify", "--deep")
		if got.status == 0 {
			w.want(0, "prune", "v", "--keep-daily", "1")
		}
	}
	if failed < 10 || done < 5 {
		t.Errorf("%d runs failed, %d succeeded; want at least 10 and 5", failed, done)
	}
}

// If the staging directory is full, the run exits with status 73 and the old archive is
// unchanged. A full /tmp has no effect.
func TestFullStaging(t *testing.T) {
	w := newWorld(t)
	staging := filepath.Join(w.dir, "staging")
	small(t, staging, 1<<20)
	w.fill("v", 1000, 1)
	if err := os.WriteFile(filepath.Join(w.volumes, "v.containers"), []byte(`["db"]`), 0o644); err != nil {
		t.Fatal(err)
	}
	w.want(0, "run", "v", "--staging", staging)
	w.fill("v", 200<<20, 2)
	got := w.want(73, "run", "v", "--staging", staging)
	if !strings.Contains(got.stderr, `"msg":"staging_unwritable"`) || used(t, staging) != 0 || len(w.archives("v")) != 1 {
		t.Errorf("%s\nstaging holds %d bytes, %d archives", got.stderr, used(t, staging), len(w.archives("v")))
	}
	w.want(0, "verify", "--deep")

	w.env = append(w.env, "TMPDIR="+staging)
	if err := os.WriteFile(filepath.Join(staging, "else"), make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	w.fill("v", 20<<20, 3)
	w.want(0, "run", "v")
}

// If there is less room than the last backup needed, the run fails before the export begins.
func TestNoRoom(t *testing.T) {
	w := newWorld(t)
	small(t, w.repo, 1<<20)
	w.fill("v", 300_000, 1)
	w.want(0, "run", "v")
	if err := os.WriteFile(filepath.Join(w.repo, "else"), make([]byte, 600_000), 0o600); err != nil {
		t.Fatal(err)
	}
	w.env = append(w.env, "LOG="+filepath.Join(w.dir, "log"))
	got := w.want(73, "run", "v")
	log, err := os.ReadFile(filepath.Join(w.dir, "log"))
	if err != nil || strings.Contains(string(log), "export") || !strings.Contains(got.stderr, `"msg":"no_room"`) {
		t.Errorf("calls of manage_volume.sh: %q, %v: %s", log, err, got.stderr)
	}
}

package statfs

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestAsk(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "a b\t\\c\xff")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	points := []string{"/", "/no/such", file, "/proc", "nul\x00"}
	answers := Ask(t.Context(), points[:4])
	for i, a := range answers {
		if (a.Err != nil) != (i == 1) {
			t.Errorf("%q: %v", points[i], a.Err)
		}
	}
	if u := answers[0].Usage; u.Total == 0 || u.Free > u.Total || u.File || !strings.Contains(u.Device, ":") {
		t.Errorf("/ = %+v", u)
	}
	if !answers[2].Usage.File {
		t.Errorf("%q is not recognized as a file", file)
	}
	if answers[3].Usage.Total != 0 {
		t.Errorf("/proc has blocks: %+v", answers[3].Usage)
	}
	if a := Ask(t.Context(), points); a[0].Err == nil {
		t.Error("a path with a NUL is accepted")
	}
	if a := Ask(t.Context(), nil); len(a) != 0 {
		t.Errorf("no points give %v", a)
	}
}

// An interrupted run ends at once and leaves no children.
func TestAskInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	start := time.Now()
	if a := Ask(ctx, []string{"/"}); a[0].Err != context.Canceled {
		t.Errorf("Ask = %+v; want it canceled", a)
	}
	if took := time.Since(start); took > patience {
		t.Errorf("took %v", took)
	}
	if _, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); err != syscall.ECHILD {
		t.Errorf("a child is left: %v", err)
	}
}

func TestUsageOf(t *testing.T) {
	minus := int64(-5)
	for _, tc := range []struct {
		name string
		st   syscall.Statfs_t
		want Usage
	}{
		{"plain", syscall.Statfs_t{Bsize: 1, Frsize: 4096, Blocks: 10, Bfree: 5, Bavail: 4, Files: 9, Ffree: 8},
			Usage{Total: 40960, Free: 20480, Available: 16384, Inodes: 9, InodesFree: 8}},
		{"no f_frsize", syscall.Statfs_t{Bsize: 512, Blocks: 10}, Usage{Total: 5120}},
		// A UFS, or a full ext4 that uses its reserve.
		{"below zero", syscall.Statfs_t{Frsize: 1, Blocks: 10, Bfree: 1, Bavail: uint64(minus)}, Usage{Total: 10, Free: 1}},
		{"all below zero", syscall.Statfs_t{Frsize: 1, Blocks: 10, Bfree: uint64(minus), Bavail: uint64(minus), Files: 3, Ffree: uint64(minus)}, Usage{Total: 10, Inodes: 3}},
		{"more free than there is", syscall.Statfs_t{Frsize: 1, Blocks: 10, Bfree: 12, Bavail: 11}, Usage{Total: 10, Free: 10, Available: 10}},
	} {
		if got := usageOf(&tc.st); got != tc.want {
			t.Errorf("%s: usageOf = %+v; want %+v", tc.name, got, tc.want)
		}
	}
}

func BenchmarkAsk(b *testing.B) {
	for b.Loop() {
		Ask(b.Context(), []string{"/", "/tmp", "/proc"})
	}
}

// AskHere gives the answer of Ask.
func TestAskHere(t *testing.T) {
	for _, point := range []string{"/", "/proc", "/no/such", "nul\x00"} {
		want, got := Ask(t.Context(), []string{point})[0], AskHere(point)
		if (got.Err == nil) != (want.Err == nil) || got.Usage.Total != want.Usage.Total || got.Usage.Device != want.Usage.Device || got.Usage.File != want.Usage.File {
			t.Errorf("%q: AskHere = %+v; Ask = %+v", point, got, want)
		}
	}
}

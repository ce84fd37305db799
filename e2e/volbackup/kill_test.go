package volbackup

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"observability-hub/e2e/torture"
)

// killed checks the repository after a kill at any point, before and after the next run.
func (w *world) killed(when string) {
	w.tb.Helper()
	w.whole(when)
	w.want(0, "verify", "--deep", "kept")
	// The next run must succeed. The volumes are unchanged, because only backups were killed.
	if got := w.try("run"); got.status != 0 {
		w.tb.Fatalf("%s: the next run: status %d: %s", when, got.status, got.stderr)
	}
	w.whole(when)
	w.want(0, "verify", "--deep")
	for _, left := range w.leftovers() {
		w.tb.Fatalf("%s: left %s", when, left)
	}
}

// TestKillAtEveryStep kills volbackup at every call that changes the repository: in a
// first backup, in an unchanged one, in a changed one, and during prune.
func TestKillAtEveryStep(t *testing.T) {
	// The number of calls grows with the number of archives, so the number of steps is fixed.
	kills, steps := 0, 10
	if torture.Full {
		steps = 60
	}
	for _, call := range []string{"openat", "fsync", "renameat", "unlinkat", "linkat", "mkdirat"} {
		w := newWorld(t)
		w.fill("kept", 10_000, 1)
		w.fill("v", 50_000, 1)
		w.want(0, "run", "kept")
		for n := 1; n <= steps; n++ {
			// New content, unchanged, new content again, and every fourth time a prune.
			args := []string{"run"}
			switch n % 4 {
			case 1:
				w.fill("v", 50_000, uint64(n))
			case 2:
			case 3:
				w.fill("v", 50_001, uint64(n))
			case 0:
				args = []string{"prune", "--keep-daily", "1", "--keep-weekly", "0", "--keep-monthly", "0"}
			}
			inject := fmt.Sprintf("inject=%s:signal=SIGKILL:when=%d", call, n)
			got := w.finish(w.command(append([]string{"strace", "-f", "-qq", "-e", "signal=none", "-e", "trace=" + call, "-e", inject, "-o", "/dev/null", w.binary}, args...)...))
			if got.status == 0 && n%4 != 0 && n > 8 {
				break
			}
			switch got.status {
			case 0:
			case 128 + int(syscall.SIGKILL):
				kills++
			default:
				t.Fatalf("%s: status %d: %s", inject, got.status, got.stderr)
			}
			w.killed(fmt.Sprintf("killed at %s %d of %v", call, n, args))
		}
	}
	if kills < 20 {
		t.Errorf("%d kills; want at least 20", kills)
	}
	t.Logf("killed %d times", kills)
}

// TestKillAtRandom kills volbackup at random times.
func TestKillAtRandom(t *testing.T) {
	w, random := newWorld(t), torture.Random(t, 0)
	w.fill("kept", 10_000, 1)
	w.want(0, "run")
	rounds := 20
	if torture.Full {
		rounds = 300
	}
	// A run that stores takes about that long; one that finds nothing new is shorter.
	kills := torture.NewKills(random, 250*time.Millisecond)
	for kills.More(rounds) {
		round := fmt.Sprintf("round %d", kills.Tried())
		for _, v := range []string{"a", "b"} {
			if random.IntN(2) == 0 {
				w.fill(v, 1+random.IntN(12<<20), random.Uint64())
			}
		}
		cmd := w.command(w.binary, "run")
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(kills.After())
		victim := cmd.Process.Pid
		if random.IntN(2) == 0 {
			victim = -victim // the whole group
		}
		if err := syscall.Kill(victim, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // the status is checked below
		status := cmd.ProcessState.Sys().(syscall.WaitStatus)
		kills.Add(status.Signaled())
		if !status.Signaled() && status.ExitStatus() != 0 {
			t.Fatalf("%s: exit status %d", round, status.ExitStatus())
		}
		w.killed(round)
		// Keep the repository small.
		w.want(0, "prune", "--keep-daily", "1", "--keep-weekly", "0", "--keep-monthly", "0")
	}
	if found, err := filepath.Glob(filepath.Join(w.repo, "[^.]*")); err != nil || len(found) != 3 {
		t.Errorf("%q, %v", found, err)
	}
	if _, err := os.Stat(filepath.Join(w.repo, "kept")); err != nil {
		t.Error(err)
	}
	kills.Check(t)
	t.Logf("killed %d of %d runs", kills.Hit(), kills.Tried())
}

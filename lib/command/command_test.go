package command

import (
	"context"
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestOutput(t *testing.T) {
	for _, tc := range []struct {
		name, script, stdout, message string
		status                        int
	}{
		{"output", "echo out; echo err >&2", "out\n", "", 0},
		{"failure", "echo out; echo first >&2; echo last >&2; exit 7", "out\n", "last", 7},
		{"silent failure", "exit 1", "", "exit status 1", 1},
		{"killed", "kill -KILL $$", "", "killed", 128 + 9},
		{"no stdin", "cat", "", "", 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			out, err := Cmd{Args: []string{"sh", "-c", tc.script}}.Output(context.Background())
			if string(out) != tc.stdout || Status(err) != tc.status {
				t.Errorf("Output = %q, %v (status %d); want %q, status %d", out, err, Status(err), tc.stdout, tc.status)
			}
			if err != nil && !strings.Contains(err.Error(), tc.message) {
				t.Errorf("error %q; want %q in it", err, tc.message)
			}
		})
	}
}

func TestOutputNotFound(t *testing.T) {
	_, err := Cmd{Args: []string{"no-such-program"}}.Output(context.Background())
	if err == nil || !strings.Contains(err.Error(), "no-such-program") || Status(err) != -1 {
		t.Errorf("error %v, status %d; want one that names the program, and -1", err, Status(err))
	}
}

func TestOutputIsBounded(t *testing.T) {
	out, err := Cmd{Args: []string{"head", "-c", "3000000", "/dev/zero"}}.Output(context.Background())
	if len(out) != maxOutput || err != nil {
		t.Errorf("%d bytes, %v; want %d", len(out), err, maxOutput)
	}
}

// At the deadline the whole group is killed: the shell and the sleep that it started.
func TestDeadlineKillsTheGroup(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	start := time.Now()
	out, err := Cmd{Args: []string{"sh", "-c", "sleep 60 & echo $!; wait"}}.Output(ctx)
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v; want the deadline", err)
	}
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("took %v", took)
	}
	pid := strings.TrimSpace(string(out))
	if pid == "" {
		t.Fatal("the output before the deadline is lost")
	}
	for deadline := time.Now().Add(10 * time.Second); ; {
		stat, err := os.ReadFile("/proc/" + pid + "/stat")
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) || strings.Contains(string(stat), ") Z ") {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the grandchild %s still runs: %s", pid, stat)
		}
	}
}

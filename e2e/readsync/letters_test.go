package readsync

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"observability-hub/e2e/mongowire"
)

// stage is a running load, to which the test sends records.
type stage struct {
	*exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
	err bytes.Buffer
}

func (h *hub) load(args ...string) *stage {
	h.Helper()
	s := &stage{Cmd: h.command(append([]string{"load", "--max-rejects", "9"}, args...)...)}
	s.Stderr = &s.err
	var err error
	if s.in, err = s.StdinPipe(); err != nil {
		h.Fatal(err)
	}
	out, err := s.StdoutPipe()
	if err != nil {
		h.Fatal(err)
	}
	s.out = bufio.NewReader(out)
	if err := s.Start(); err != nil {
		h.Fatal(err)
	}
	return s
}

// give sends a record that cannot become a row, and waits until load reports that it is rejected.
func (s *stage) give(h *hub, n int) {
	h.Helper()
	s.send(h, n)
	line, err := s.out.ReadString('\n')
	if err != nil || !strings.Contains(line, `"outcome":"rejected"`) {
		h.Fatalf("%v: %s\n%s", err, line, &s.err)
	}
}

func (s *stage) send(h *hub, n int) {
	h.Helper()
	if _, err := fmt.Fprintf(s.in, `{"mongo_id":"{\"$numberInt\":\"%d\"}","source":"\u0000"}`+"\n", n); err != nil {
		h.Fatal(err)
	}
}

func (s *stage) end(h *hub, n int) {
	h.Helper()
	fmt.Fprintf(s.in, `{"_eof":true,"n":%d}`+"\n", n)
	s.in.Close()
	_, _ = io.Copy(io.Discard, s.out)
	_ = s.Wait()
	if status := exitStatus(s.ProcessState); status != exitPartial {
		h.Errorf("load: exit status %d; want %d\n%s", status, exitPartial, &s.err)
	}
}

// awaitOpen waits until a process has opened a file.
func awaitOpen(tb testing.TB, pid int, path string) {
	tb.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		fds, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
		for _, fd := range fds {
			if to, err := os.Readlink(fd); err == nil && to == path {
				return
			}
		}
	}
	tb.Fatalf("process %d does not open %s", pid, path)
}

// TestSharedDeadLetters lets processes with separate state directories write to one dead letter file at the same time. No letter is
// lost.
func TestSharedDeadLetters(t *testing.T) {
	t.Parallel()
	setUp := func(t *testing.T) (one, other *hub, path string) {
		one = newHub(t, mongowire.Config{})
		other = &hub{}
		*other = *one
		other.state += "-of-another"
		if err := os.MkdirAll(one.state, 0o700); err != nil {
			t.Fatal(err)
		}
		return one, other, filepath.Join(one.state, "dead-letters.jsonl")
	}
	ids := func(h *hub) (n int) { return len(h.letters()) }
	t.Run("two loads", func(t *testing.T) {
		t.Parallel()
		h, other, path := setUp(t)
		first, second := h.load("--dead-letters", path), other.load("--dead-letters", path)
		first.give(h, 1)
		second.send(h, 2)
		awaitOpen(t, second.Process.Pid, path)
		first.give(h, 3)
		first.end(h, 2)
		second.end(h, 1)
		if n := ids(h); n != 3 {
			t.Errorf("%d dead letters; want 3", n)
		}
	})
	t.Run("load and retry", func(t *testing.T) {
		t.Parallel()
		h, other, path := setUp(t)
		load := h.load()
		load.give(h, 1)
		retry := other.command("retry", path)
		if err := retry.Start(); err != nil {
			t.Fatal(err)
		}
		awaitOpen(t, retry.Process.Pid, path)
		load.give(h, 2)
		load.end(h, 2)
		if _ = retry.Wait(); exitStatus(retry.ProcessState) != exitPartial {
			t.Errorf("retry: exit status %d; want %d", exitStatus(retry.ProcessState), exitPartial)
		}
		if n := ids(h); n != 2 {
			t.Errorf("%d dead letters; want 2", n)
		}
	})
}

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"observability-hub/lib/diag"
	"observability-hub/lib/sysexits"
	"observability-hub/volbackup/internal/repository"
)

// The report of a program that failed repeats its last words and its hint, and no arguments.
func TestProducerFails(t *testing.T) {
	for script, want := range map[string][2]string{
		"echo disk is gone >&2; exit 4": {"sh: exit status 4: disk is gone", "run the command by hand to see its messages"},
		`echo '{"level":"ERROR","msg":"gone","error":"no disk","hint":"buy one"}' >&2; exit 4`: {"sh: exit status 4: no disk", "buy one"},
		"exit 4": {"sh: exit status 4", "run the command by hand to see its messages"},
	} {
		p := &producer{args: []string{"sh", "-c", script, "secret"}}
		out, err := p.open(t.Context(), "", nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, out); err != nil {
			t.Fatal(err)
		}
		_, err = p.finish()
		e, ok := errors.AsType[*sysexits.Error](err)
		if !ok || e.Error() != want[0] || e.Hint != want[1] {
			t.Errorf("%s: %v; want %q", script, err, want)
		}
	}
}

// What a program that succeeded calls an error is a warning, with its hint.
func TestProducerWarns(t *testing.T) {
	for hint, want := range map[string]string{"": "container one is down", "start it": "container one is down (start it)"} {
		var out bytes.Buffer
		s := &said{Diag: &diag.Logger{W: &out, Now: time.Now}}
		fmt.Fprintf(s, `{"level":"ERROR","msg":"not_resumed","error":"container one is down","hint":%q}`+"\n", hint)
		s.passOn()
		if !strings.Contains(out.String(), `"`+want+`"`) {
			t.Errorf("hint %q: %s; want %q", hint, &out, want)
		}
	}
}

// The downtime of a backup is what manage_volume.sh says. It is not known if a container may still be down.
func TestProducerDowntime(t *testing.T) {
	for script, want := range map[string]struct {
		seconds float64
		known   bool
	}{
		`true`:   {0, true},
		`exit 2`: {0, true}, // no container was down
		`printf '{"level":"DEBUG","msg":"containers_up","detail":"x","downtime_s":1.25}' >&2`:              {1.25, true},
		`echo '{"level":"DEBUG","msg":"containers_up","detail":"x","downtime_s":1.25}' >&2; exit 2`:        {1.25, true},
		`echo '{"level":"DEBUG","msg":"containers_up","detail":"x","downtime_s":1.25}' >&2; kill -TERM $$`: {1.25, true},
		`kill -KILL $$`: {0, false},
		`echo '{"level":"ERROR","msg":"not_resumed","error":"x"}' >&2`:                   {0, false},
		`echo '{"level":"WARN","msg":"still_resuming","detail":"x"}' >&2; kill -TERM $$`: {0, false},
	} {
		var out bytes.Buffer
		p := &producer{args: []string{"sh", "-c", script}, said: said{Diag: &diag.Logger{W: &out, Now: time.Now}}}
		if _, err := p.open(t.Context(), "", nil); err != nil {
			t.Fatal(err)
		}
		seconds, known := p.downtime()
		p.close()
		if seconds != want.seconds && known || known != want.known {
			t.Errorf("%s: %v, %v; want %v", script, seconds, known, want)
		}
		if strings.Contains(out.String(), "containers_up") {
			t.Errorf("%s: the message is passed on: %s", script, &out)
		}
	}
}

// The program keeps running when the thread that called open ends, as threads of the
// compressor do. Pdeathsig would be sent if that thread had started the program.
func TestProducerOutlivesThread(t *testing.T) {
	gate := filepath.Join(t.TempDir(), "gate")
	if err := syscall.Mkfifo(gate, 0o600); err != nil {
		t.Fatal(err)
	}
	p := &producer{args: []string{"sh", "-c", `cat "$0"`, gate}}
	var out io.Reader
	var err error
	thread := make(chan int, 1)
	var start func()
	start = func() {
		runtime.LockOSThread() // never unlocked, so the thread ends with the goroutine
		if syscall.Gettid() == syscall.Getpid() {
			// The first thread never ends. Keep it locked, so that another goroutine gets another thread.
			defer runtime.UnlockOSThread()
			go start()
			<-t.Context().Done()
			return
		}
		out, err = p.open(t.Context(), "", nil)
		thread <- syscall.Gettid()
	}
	go start()
	task := fmt.Sprint("/proc/self/task/", <-thread)
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		if _, err := os.Stat(task); err != nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the thread did not end")
		}
	}
	if err := os.WriteFile(gate, []byte("content"), 0); err != nil { // waits for a reader
		t.Fatal(err)
	}
	got, err := io.ReadAll(out)
	if err != nil || string(got) != "content" {
		t.Errorf("the stream is %q, %v", got, err)
	}
	if end, err := p.finish(); err != nil || end.consistency != repository.Consistent {
		t.Errorf("the program ended with %v, %v", end, err)
	}
}

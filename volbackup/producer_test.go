package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"observability-hub/volbackup/internal/repository"
)

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

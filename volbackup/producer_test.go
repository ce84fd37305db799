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

// The program lives on when the thread that asked for it ends, as the threads of
// the compressor do: the kernel would take that for our death.
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
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		if syscall.Gettid() == syscall.Getpid() {
			// The first thread does not end. While it is ours, another is taken.
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
			t.Fatal("the thread does not end")
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

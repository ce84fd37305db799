package postgres

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"
)

// freePort returns a free TCP port below the kernel's range for outgoing connections. An outgoing connection could otherwise take the
// port while the server is stopped.
func freePort() (int, error) {
	for range 1000 {
		var b [2]byte
		_, _ = rand.Read(b[:]) // never fails
		port := 20000 + (int(b[0])<<8|int(b[1]))%12000
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err == nil {
			return port, l.Close()
		}
	}
	return 0, errors.New("no free TCP port between 20000 and 32000")
}

// childrenOf returns the processes whose parent is pid.
func childrenOf(pid int) ([]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var children []int
	for _, e := range entries {
		child, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if _, parent, ok := processState(child); ok && parent == pid {
			children = append(children, child)
		}
	}
	return children, nil
}

// processState returns the state letter and the parent of a process, from proc(5)'s stat. The command name in it may contain any
// character.
func processState(pid int) (state string, parent int, ok bool) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", 0, false
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 2 {
		return "", 0, false
	}
	parent, err = strconv.Atoi(fields[1])
	return fields[0], parent, err == nil
}

// awaitDeath polls until a process has ended that is not a child of this process, for which wait(2) cannot be used. A zombie counts
// as ended, because it has released its resources.
func awaitDeath(pid int) error {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		if state, _, ok := processState(pid); !ok || state == "Z" || state == "X" {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("process %d still runs %s after SIGKILL", pid, startTimeout)
		case <-tick.C:
		}
	}
}

func removeIfExists(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// lasting runs functions on a thread that exists until the process ends. The kernel sends Pdeathsig when the *thread* that
// started a child ends (prctl(2)), and Go may end threads at any time.
var lasting = sync.OnceValue(func() chan<- func() {
	work := make(chan func())
	go func() {
		runtime.LockOSThread()
		for f := range work {
			f()
		}
	}()
	return work
})

func startFromLastingThread(cmd *exec.Cmd) error {
	result := make(chan error, 1)
	lasting() <- func() { result <- cmd.Start() }
	return <-result
}

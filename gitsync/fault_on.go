//go:build faults

package main

import (
	"fmt"
	"os"
	"strconv"
	"sync/atomic"
	"syscall"
)

var steps atomic.Int64

// step kills the process at the boundary whose number, counted from 1, is in
// GITSYNC_FAULT_AT. It appends the number and name of each boundary to the file
// GITSYNC_FAULT_LOG.
func step(name string) {
	n := steps.Add(1)
	if path := os.Getenv("GITSYNC_FAULT_LOG"); path != "" {
		if f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600); err == nil {
			fmt.Fprintln(f, n, name)
			f.Close()
		}
	}
	if at, err := strconv.ParseInt(os.Getenv("GITSYNC_FAULT_AT"), 10, 64); err == nil && n == at {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	}
}

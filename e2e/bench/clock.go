package main

import (
	"syscall"
	"unsafe"
)

// clockGettime is clock_gettime(2), which package syscall lacks.
func clockGettime(clock uintptr, ts *syscall.Timespec) error {
	if _, _, errno := syscall.Syscall(syscall.SYS_CLOCK_GETTIME, clock, uintptr(unsafe.Pointer(ts)), 0); errno != 0 {
		return errno
	}
	return nil
}

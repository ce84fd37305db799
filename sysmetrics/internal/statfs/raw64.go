//go:build !(386 || arm || mips || mipsle)

package statfs

import (
	"syscall"
	"unsafe"
)

//go:nosplit
//go:norace
func rawStatfs(path uintptr, st *syscall.Statfs_t) syscall.Errno {
	_, _, errno := syscall.RawSyscall(syscall.SYS_STATFS, path, uintptr(unsafe.Pointer(st)), 0)
	return errno
}

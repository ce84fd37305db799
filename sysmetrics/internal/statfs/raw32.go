//go:build 386 || arm || mips || mipsle

package statfs

import (
	"syscall"
	"unsafe"
)

//go:nosplit
//go:norace
func rawStatfs(path uintptr, st *syscall.Statfs_t) syscall.Errno {
	_, _, errno := syscall.RawSyscall(syscall.SYS_STATFS64, path, unsafe.Sizeof(*st), uintptr(unsafe.Pointer(st)))
	return errno
}

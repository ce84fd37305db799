package statfs

import (
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// child is all data that the forked process needs. It is allocated before the
// fork, because the Go runtime does not run in the child and cannot allocate.
type child struct {
	paths []*byte
	index []uint32
	fd    uintptr
	reply reply
}

// start forks a process that asks the mounts of a group and writes replies to w.
//
// It is a bare fork(2) without an exec, because an exec would cost as much as the
// rest of the run. The child has the memory of the parent, but only the thread
// that called fork. So Go's scheduler, allocator and signal handlers must not run
// in the child. The child makes only system calls, from a function that never
// grows its stack, with all signals blocked.
func start(points []string, group []int, w int) (pid int, err error) {
	c := &child{fd: uintptr(w)}
	for _, i := range group {
		path, err := syscall.BytePtrFromString(points[i])
		if err != nil {
			return 0, err
		}
		c.paths, c.index = append(c.paths, path), append(c.index, uint32(i))
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var all, before unix.Sigset_t
	for i := range all.Val {
		all.Val[i] = ^all.Val[i]
	}
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, &all, &before); err != nil {
		return 0, err
	}
	id, errno := fork(c)
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, &before, nil); err != nil {
		return 0, err
	}
	if errno != 0 {
		return 0, errno
	}
	return int(id), nil
}

// fork returns in the parent only. Before the child asks a mount, it closes the
// descriptors that it inherited. Among them are stdout and the lock of the state
// directory, which a child that hangs must not keep open.
//
//go:nosplit
//go:norace
//go:noinline
func fork(c *child) (pid uintptr, errno syscall.Errno) {
	pid, _, errno = syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
	if errno != 0 || pid != 0 {
		return pid, errno
	}
	syscall.RawSyscall6(syscall.SYS_PRCTL, syscall.PR_SET_PDEATHSIG, uintptr(syscall.SIGKILL), 0, 0, 0, 0)
	_, _, errno = syscall.RawSyscall(unix.SYS_CLOSE_RANGE, c.fd+1, 1<<31-1, 0)
	last := c.fd // descriptors below this are closed one by one
	if errno != 0 {
		last = 1 << 10 // before Linux 5.9
	}
	for fd := uintptr(0); fd < last; fd++ {
		if fd != c.fd {
			syscall.RawSyscall(syscall.SYS_CLOSE, fd, 0, 0)
		}
	}
	for i := 0; i < len(c.paths); i++ {
		c.reply.index = c.index[i]
		c.reply.fill(uintptr(unsafe.Pointer(c.paths[i])))
		syscall.RawSyscall(syscall.SYS_WRITE, c.fd, uintptr(unsafe.Pointer(&c.reply)), unsafe.Sizeof(c.reply))
	}
	for {
		syscall.RawSyscall(syscall.SYS_EXIT_GROUP, 0, 0, 0)
	}
}

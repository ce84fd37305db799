// Package statfs asks mounts for their usage in child processes that can be
// abandoned, so that a mount that never answers cannot block the caller.
package statfs

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Usage is the space and the inodes of a file system, from statfs(2), and the
// device and type of file at the mount point, from statx(2).
type Usage struct {
	Total, Free, Available uint64 // bytes; Free includes the space that is reserved for root
	Inodes, InodesFree     uint64 // both 0 if the number of inodes is not fixed
	Magic                  int64  // type of the file system (linux/magic.h)
	Device                 string // st_dev as major:minor; "" before Linux 4.11
	File                   bool   // a file is mounted, not a directory
}

// Answer is the usage of one mount, or the error of asking it.
type Answer struct {
	Usage Usage
	Err   error
}

// ErrHung says that a mount did not answer in time.
var ErrHung = errors.New("statfs: no answer")

const (
	// Deadline is the maximum time for all mounts together.
	Deadline = 2 * time.Second
	// patience is how long ask waits for the next answer.
	patience = Deadline / 2
	// maxChildren is the maximum number of processes that ask at the same time.
	maxChildren = 32
)

// Ask returns an answer for each of points. First one process asks all of them
// in order, so a healthy host needs one fork. If a mount does not answer, further
// processes ask the mounts after it in parallel. A process that is stuck in the
// kernel is left to init.
func Ask(ctx context.Context, points []string) []Answer {
	answers := make([]Answer, len(points))
	left := make([]int, len(points))
	for i := range left {
		left[i] = i
	}
	left = ask(ctx, points, [][]int{left}, time.Time{}, answers)
	if len(left) > 0 && ctx.Err() == nil && answers[left[0]].Err == ErrHung {
		left = left[1:]
	}
	if len(left) > 0 && ctx.Err() == nil {
		groups := make([][]int, min(len(left), maxChildren))
		for n, i := range left {
			groups[n%len(groups)] = append(groups[n%len(groups)], i)
		}
		ask(ctx, points, groups, time.Now().Add(patience), answers)
	}
	return answers
}

// AskHere asks a mount without a child process. It is for file systems that
// answer from memory: the caller waits as long as the mount does not answer.
func AskHere(point string) Answer {
	path, err := syscall.BytePtrFromString(point)
	if err != nil {
		return Answer{Err: fmt.Errorf("statfs: %w", err)}
	}
	var r reply
	r.fill(uintptr(unsafe.Pointer(path)))
	runtime.KeepAlive(path)
	return r.answer()
}

// ask starts a process for each group and collects their answers. It stops when
// all have answered, at the deadline or, if deadline is zero, when no answer
// came for as long as patience. It returns the indexes without an answer.
func ask(ctx context.Context, points []string, groups [][]int, deadline time.Time, answers []Answer) (left []int) {
	for _, group := range groups {
		left = append(left, group...)
	}
	slices.Sort(left)
	fail := func(err error) []int {
		for _, i := range left {
			answers[i].Err = err
		}
		return left
	}
	if len(left) == 0 {
		return nil
	}
	var pipe [2]int
	if err := syscall.Pipe2(pipe[:], syscall.O_CLOEXEC); err != nil {
		return fail(fmt.Errorf("statfs: pipe: %w", err))
	}
	r, w := pipe[0], pipe[1]
	defer syscall.Close(r)
	var children []int
	for _, group := range groups {
		pid, err := start(points, group, w)
		if err != nil {
			syscall.Close(w)
			end(children, false)
			return fail(fmt.Errorf("statfs: fork: %w", err))
		}
		children = append(children, pid)
	}
	syscall.Close(w)
	err := collect(ctx, r, deadline, func(r *reply) {
		answers[r.index] = r.answer()
		left = slices.DeleteFunc(left, func(i int) bool { return i == int(r.index) })
	})
	end(children, err == nil)
	if err == nil {
		err = errors.New("statfs: the child process ended early")
	}
	return fail(err)
}

// collect calls each for each reply, until the last child has closed its end of
// the pipe. It waits with poll(2), because Go's own poller would be started only
// for this.
func collect(ctx context.Context, pipe int, deadline time.Time, each func(*reply)) error {
	for {
		wait := patience
		if !deadline.IsZero() {
			wait = max(0, time.Until(deadline))
		}
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(pipe), Events: unix.POLLIN}}, int(wait.Milliseconds()))
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err == syscall.EINTR:
			continue
		case err != nil:
			return fmt.Errorf("statfs: poll: %w", err)
		case n == 0:
			return ErrHung
		}
		var r reply
		if n, _ := syscall.Read(pipe, unsafe.Slice((*byte)(unsafe.Pointer(&r)), unsafe.Sizeof(r))); n < int(unsafe.Sizeof(r)) {
			return nil
		}
		each(&r)
	}
}

// end reaps the children. Unless done is true it kills them first. A child that
// does not die within the grace period is left to init.
func end(children []int, done bool) {
	const grace = 100 * time.Millisecond
	flags := 0
	if !done {
		flags = syscall.WNOHANG
		for _, pid := range children {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	until := time.Now().Add(grace)
	for _, pid := range children {
		for {
			n, err := syscall.Wait4(pid, nil, flags, nil)
			if err == syscall.EINTR {
				continue
			}
			if n != 0 || err != nil || time.Now().After(until) {
				break
			}
			time.Sleep(time.Millisecond)
		}
	}
}

// reply is what a child writes for one mount. It is shorter than PIPE_BUF, so
// write(2) to the pipe is atomic.
type reply struct {
	index    uint32
	statErr  uintptr
	statxErr uintptr
	st       syscall.Statfs_t
	stx      unix.Statx_t
}

// fill asks the mount at a path for all that a reply holds but its index. It may
// run in the forked process.
//
//go:nosplit
//go:norace
func (r *reply) fill(path uintptr) {
	_, _, errno := syscall.RawSyscall6(unix.SYS_STATX, ^uintptr(99), path, unix.AT_NO_AUTOMOUNT|unix.AT_STATX_DONT_SYNC,
		unix.STATX_TYPE|unix.STATX_MODE, uintptr(unsafe.Pointer(&r.stx)), 0)
	r.statxErr = uintptr(errno)
	r.statErr = uintptr(rawStatfs(path, &r.st))
}

func (r *reply) answer() Answer {
	if r.statErr != 0 {
		return Answer{Err: fmt.Errorf("statfs: %w", syscall.Errno(r.statErr))}
	}
	u := usageOf(&r.st)
	if r.statxErr == 0 {
		u.Device = fmt.Sprintf("%d:%d", r.stx.Dev_major, r.stx.Dev_minor)
		u.File = r.stx.Mode&unix.S_IFMT != unix.S_IFDIR
	}
	return Answer{Usage: u}
}

// usageOf converts the kernel's numbers. UFS reports a negative number of free
// blocks when its reserve is in use. As an unsigned number that is more blocks
// than there are.
func usageOf(st *syscall.Statfs_t) Usage {
	size := uint64(st.Frsize)
	if size == 0 {
		size = uint64(st.Bsize)
	}
	within := func(part, whole uint64) uint64 {
		if int64(part) < 0 {
			return 0
		}
		return min(part, whole)
	}
	return Usage{
		Total: st.Blocks * size, Free: within(st.Bfree, st.Blocks) * size, Available: within(st.Bavail, st.Blocks) * size,
		Inodes: st.Files, InodesFree: within(st.Ffree, st.Files), Magic: int64(st.Type),
	}
}

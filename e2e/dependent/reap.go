package dependent

import (
	"errors"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// ReapArgument is the first argument with which a program calls itself to run a command in Reap.
const ReapArgument = "-reap"

// Reap runs a command and collects the processes that it leaves behind, as PID 1 of a host does. PID 1 of a container may
// not do that, and restic takes a lock for live as long as the process of the lock has not been waited for. It changes this
// process, so the caller must exit with the exit status that it returns.
func Reap(argv []string) (status int) {
	const subreaper = 36 // PR_SET_CHILD_SUBREAPER of prctl(2)
	if _, _, errno := syscall.Syscall(syscall.SYS_PRCTL, subreaper, 1, 0); errno != 0 {
		return 125
	}
	path, err := exec.LookPath(argv[0])
	if err != nil {
		return 125
	}
	child, err := os.StartProcess(path, argv, &os.ProcAttr{Env: os.Environ(), Files: []*os.File{os.Stdin, os.Stdout, os.Stderr}})
	if err != nil {
		return 125
	}
	status = 125
	options, deadline := 0, time.Time{}
	for {
		var ended syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &ended, options, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil: // no children are left
			return status
		case pid == child.Pid:
			if status = ended.ExitStatus(); ended.Signaled() {
				status = 128 + int(ended.Signal())
			}
			options, deadline = syscall.WNOHANG, time.Now().Add(3*time.Second)
		case pid == 0: // the others still run
			if time.Now().After(deadline) {
				return status
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
}

// Package dependent starts commands that get a signal when the test process ends, however it ends.
package dependent

import (
	"os/exec"
	"runtime"
	"syscall"
)

// Start starts a command that gets SIGTERM when this process ends, even by SIGKILL. finished is closed after the command has
// ended and was waited for. The result is in the command's files.
func Start(cmd *exec.Cmd) (finished <-chan struct{}, err error) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	started, ended := make(chan error), make(chan struct{})
	go func() {
		// The kernel sends the signal when the thread ends, so the thread waits for the command.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
			close(ended)
		}
	}()
	return ended, <-started
}

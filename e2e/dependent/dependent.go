// Package dependent starts commands that learn of it when the test process ends, in whatever way.
package dependent

import (
	"os/exec"
	"runtime"
	"syscall"
)

// Start starts a command that gets SIGTERM when this process ends, SIGKILL included. finished is closed when the command
// has ended and was waited for; how it ended is for its files to tell.
func Start(cmd *exec.Cmd) (finished <-chan struct{}, err error) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	started, ended := make(chan error), make(chan struct{})
	go func() {
		// The signal comes when the thread ends, so the thread waits for the command.
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

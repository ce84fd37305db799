// Package command runs other programs: in a process group of their own, with
// a deadline that holds even for one that cannot be killed.
package command

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// grace is how long a killed program may take to be gone. One that sits in an
// uninterruptible system call (state D, as on a dead mount) outlives SIGKILL:
// it is then left to init, so that the caller can go on.
const grace = 200 * time.Millisecond

// lastWords is how long the streams may stay open behind a program that ended by
// itself: what it wrote may still have to be read, on a machine that is busy.
const lastWords = 10 * time.Second

// maxOutput bounds what is kept of each stream.
const maxOutput = 1 << 20

// ErrStuck says that a program was killed and did not go away.
var ErrStuck = errors.New("killed, but stuck in the kernel")

// Cmd is a program to run.
type Cmd struct {
	Args []string // the program, looked up in PATH if it has no slash, and its arguments
	Env  []string // its whole environment; nil is this process's own
	Dir  string

	// Dependent makes the kernel kill the program when this process dies, so
	// that a run after a SIGKILL finds nobody at work in its files. What the
	// program started itself ends by losing its pipes.
	Dependent bool

	// Credential is the user that the program runs as, if this process is root
	// and runs it on another user's files.
	Credential *syscall.Credential
}

// Output runs the program without stdin and returns its stdout (at most
// 1 MiB), also when it fails. It ends when the program does or when ctx is
// done, whichever is first; then the whole process group is killed. The error
// names the program and, if it said anything, the last line of its stderr.
func (c Cmd) Output(ctx context.Context) ([]byte, error) {
	stdout, stderr, err := c.Run(ctx)
	return stdout, c.explain(err, stderr)
}

// Run is like [Cmd.Output] for a caller that explains a failure itself: it
// returns both streams, and an error without what the program said.
func (c Cmd) Run(ctx context.Context) (out, messages []byte, err error) {
	var stdout, stderr limited
	cmd := exec.Command(c.Args[0], c.Args[1:]...)
	cmd.Env, cmd.Dir = c.Env, c.Dir
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: c.Credential}
	if c.Dependent {
		cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	}
	// A grandchild that keeps the pipes open must not keep Wait waiting for ever.
	cmd.WaitDelay = lastWords
	started, done := make(chan error, 1), make(chan error, 1)
	go func() {
		if c.Dependent {
			// The kernel sends Pdeathsig when the thread ends that started the program.
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
		}
		err := cmd.Start()
		started <- err
		if err == nil {
			done <- cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		return nil, nil, fmt.Errorf("start: %w", err)
	}
	select {
	case err := <-done:
		return stdout.bytes(), stderr.bytes(), err
	case <-ctx.Done():
	}
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	select {
	case <-done:
		return stdout.bytes(), stderr.bytes(), context.Cause(ctx)
	case <-time.After(2 * grace):
		return stdout.bytes(), stderr.bytes(), ErrStuck
	}
}

func (c Cmd) explain(err error, stderr []byte) error {
	if err == nil {
		return nil
	}
	lines := strings.Split(strings.TrimSpace(string(stderr)), "\n")
	if last := lines[len(lines)-1]; last != "" {
		return fmt.Errorf("%s: %w: %s", c.Args[0], err, last)
	}
	return fmt.Errorf("%s: %w", c.Args[0], err)
}

// Status returns the exit status that err of [Cmd.Output] stands for: 0 for
// nil, 128+n for a program killed by signal n, -1 if it did not exit at all.
func Status(err error) int {
	if err == nil {
		return 0
	}
	exit, ok := errors.AsType[*exec.ExitError](err)
	if !ok {
		return -1
	}
	if ws, ok := exit.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return exit.ExitCode()
}

// Self returns the path of the running binary, for a tool that starts itself.
// It stays right when the file has been replaced meanwhile.
func Self() string { return "/proc/self/exe" }

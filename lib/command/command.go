// Package command runs other programs, each in its own process group. It keeps a
// deadline even if the program cannot be killed.
package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// grace is half of the time that a killed program has to end. A program in an
// uninterruptible system call (state D, as on a dead mount) does not end. It is
// then left to init, so that the caller can continue.
const grace = 200 * time.Millisecond

// lastWords is how long the streams may stay open after a program has ended. On a
// busy machine its output may still have to be read.
const lastWords = 10 * time.Second

// maxOutput is the maximum number of bytes that are kept of each stream.
const maxOutput = 1 << 20

// ErrStuck says that a program was killed but did not end.
var ErrStuck = errors.New("killed, but stuck in the kernel")

// Cmd is a program to run.
type Cmd struct {
	Args []string // the program, looked up in PATH if it has no slash, and its arguments
	Env  []string // its complete environment; nil means the environment of this process
	Dir  string

	// Dependent makes the kernel kill the program when this process dies. So if
	// this process gets SIGKILL, the program does not go on changing files during
	// the next run. Processes that the program started end when their pipes close.
	Dependent bool

	// Credential is the user as which the program runs, if this process is root
	// and the program uses another user's files.
	Credential *syscall.Credential

	// Watch gets the program's stderr while it runs, if it is not nil.
	Watch io.Writer
}

// Output runs the program without stdin and returns its stdout (at most 1 MiB),
// even if the program fails. Output returns when the program ends. If ctx is done
// before that, Output kills the whole process group. The error has the name of
// the program and the last line of its stderr, if there is one.
func (c Cmd) Output(ctx context.Context) ([]byte, error) {
	stdout, stderr, err := c.Run(ctx)
	return stdout, c.explain(err, stderr)
}

// Run is like [Cmd.Output], for a caller that explains a failure itself: it
// returns both streams, and its error does not contain the program's stderr.
func (c Cmd) Run(ctx context.Context) (out, messages []byte, err error) {
	var stdout, stderr limited
	cmd := exec.Command(c.Args[0], c.Args[1:]...)
	cmd.Env, cmd.Dir = c.Env, c.Dir
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if c.Watch != nil {
		cmd.Stderr = io.MultiWriter(&stderr, c.Watch)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: c.Credential}
	if c.Dependent {
		cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	}
	// Without this, Wait would block as long as a grandchild keeps the pipes open.
	cmd.WaitDelay = lastWords
	started, done := make(chan error, 1), make(chan error, 1)
	go func() {
		if c.Dependent {
			// The kernel sends Pdeathsig when the thread that started the program ends.
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

// Status returns the exit status for an error of [Cmd.Output]: 0 for nil, 128+n
// for a program that signal n killed, -1 if the program did not start or did not
// end.
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

// Self returns the path of the running binary, for a tool that starts itself. The
// path is valid even if the file has been replaced.
func Self() string { return "/proc/self/exe" }

package cli

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// killedBy is the error of a run that a signal ended.
type killedBy struct{ syscall.Signal }

func (k killedBy) Error() string { return "ended by " + k.Signal.String() }

// interruptible is the context key that marks a context that signals cancel.
type interruptible struct{}

// stopWithin is the maximum time in which a command must finish or undo its step
// after a signal. After that time the signal ends the process.
const stopWithin = 4 * time.Second

// Interruptible calls work with a context that SIGINT and SIGTERM cancel. If a
// signal came and work failed, Interruptible returns an error for which [Main]
// raises the signal again, so that the tool's parent process sees that the signal
// ended the tool. Main runs each command with Interruptible unless the command is
// [Immediate]. In a nested call Interruptible only calls work.
func Interruptible(ctx context.Context, work func(context.Context) error) error {
	if ctx.Value(interruptible{}) != nil {
		return work(ctx)
	}
	ctx, cancel := context.WithCancelCause(context.WithValue(ctx, interruptible{}, true))
	defer cancel(nil)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	go func() {
		s, ok := (<-signals).(syscall.Signal)
		if !ok {
			return
		}
		cancel(killedBy{s})
		time.Sleep(stopWithin)
		raise(s)
	}()
	err := work(ctx)
	if died, ok := context.Cause(ctx).(killedBy); ok && err != nil {
		return died
	}
	return err
}

// Uninterrupted calls work with SIGINT and SIGTERM ignored, so that work leaves no
// incomplete file. It is for the last, short step of a command that is
// [Immediate]. Catching the signals instead would take two more threads.
func Uninterrupted(work func() error) error {
	signal.Ignore(syscall.SIGINT, syscall.SIGTERM)
	defer signal.Reset(syscall.SIGINT, syscall.SIGTERM)
	return work()
}

// raise ends the process with the signal s, even if the process catches s.
func raise(s syscall.Signal) {
	signal.Reset()
	_ = syscall.Kill(os.Getpid(), s)
	select {} // until the signal arrives
}

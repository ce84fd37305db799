package cli

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// killedBy is the end of a run that a signal cut short.
type killedBy struct{ syscall.Signal }

func (k killedBy) Error() string { return "ended by " + k.Signal.String() }

// interruptible is the key of a context that a signal cancels.
type interruptible struct{}

// stopWithin is how long a signalled command may take to finish or undo its
// step. One that still waits for a peer then dies like any other program.
const stopWithin = 4 * time.Second

// Interruptible calls work with a context that SIGINT and SIGTERM cancel. If
// one of them came and work failed, the error is that of a process which the
// signal ended: [Main] raises it again, so that the caller sees the tool die of
// it. [Main] runs each command in here unless it is [Immediate]; within another
// call it only calls work.
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

// Uninterrupted calls work, of a moment and the last of a command that is
// [Immediate], with SIGINT and SIGTERM ignored, so that it leaves no
// half-written file behind. Catching the signals instead takes two threads more.
func Uninterrupted(work func() error) error {
	signal.Ignore(syscall.SIGINT, syscall.SIGTERM)
	defer signal.Reset(syscall.SIGINT, syscall.SIGTERM)
	return work()
}

// raise ends the process by s, whatever was caught before.
func raise(s syscall.Signal) {
	signal.Reset()
	_ = syscall.Kill(os.Getpid(), s)
	select {} // the signal is on its way
}

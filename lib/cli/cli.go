// Package cli is the command line that the four tools have in common: kong
// with the toolkit's exit statuses, diagnostics, environment variables,
// version and help.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/alecthomas/kong"

	"observability-hub/lib/diag"
	"observability-hub/lib/journal"
	"observability-hub/lib/sysexits"
)

// Version is set at build time by -ldflags -X: a repository without a go.mod
// at its root gets no version from the Go tool.
var Version = "devel"

// App describes a tool.
type App struct {
	Name        string // the command; in upper case the prefix of its environment variables
	Service     string // the unit family, the service of every record
	Description string // one paragraph, the head of --help
	Examples    string // runnable command lines, the end of --help
}

// Env is what a command works with.
type Env struct {
	App
	Stdin  io.Reader
	Stdout *Stdout
	Diag   *diag.Logger
}

// Grammar is a tool's command line: a struct of flags and commands for kong.
// Each command has a method Run(context.Context, *Env) error.
type Grammar any

// VersionFlag is the --version that every grammar embeds.
type VersionFlag struct {
	Version kong.VersionFlag `help:"Print the version and exit."`
}

// Main parses args, runs the command that they name and returns the exit
// status. SIGINT and SIGTERM cancel the command's context; after it has
// returned the signal is raised again, so that the caller sees the tool die of
// it. SIGPIPE is left alone: a filter whose reader is gone dies quietly.
func Main(app App, grammar Grammar, args []string, stdin io.Reader, stdout, stderr *os.File) int {
	env := &Env{
		App:    app,
		Stdin:  stdin,
		Stdout: &Stdout{f: stdout},
		Diag:   diag.New(app.Name, app.Service, stderr),
	}
	err := run(env, grammar, args, stderr)
	if err == nil {
		err = env.Stdout.err
	}
	var died killedBy
	if errors.As(err, &died) {
		raise(died.Signal)
	}
	if err != nil {
		env.Diag.Error(err)
	}
	return sysexits.Code(err)
}

// killedBy is the end of a run that a signal cut short.
type killedBy struct{ syscall.Signal }

func (k killedBy) Error() string { return "ended by " + k.Signal.String() }

// exited is how kong's --help and --version leave the parser.
type exited int

func run(env *Env, grammar Grammar, args []string, stderr io.Writer) (err error) {
	defer func() {
		switch r := recover().(type) {
		case nil:
		case exited:
			err = nil
		default:
			panic(r)
		}
	}()
	parser, err := kong.New(grammar,
		kong.Name(env.Name),
		kong.Description(env.Description),
		kong.DefaultEnvars(strings.ToUpper(env.Name)),
		kong.Vars{"version": env.Name + " " + Version},
		kong.Writers(env.Stdout, stderr),
		kong.Exit(func(code int) { panic(exited(code)) }),
		kong.Help(help(env)),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 100}),
	)
	if err != nil {
		return fmt.Errorf("command line: %w", err)
	}
	call, err := parser.Parse(args)
	if err != nil {
		return sysexits.New(sysexits.Usage, "usage", err).WithHint(env.Name + " --help lists the commands and flags")
	}

	ctx, stop := signalContext()
	defer stop()
	call.BindTo(ctx, (*context.Context)(nil))
	err = call.Run(env)
	if died, ok := context.Cause(ctx).(killedBy); ok && err != nil {
		return died
	}
	return err
}

// stopWithin is how long a signalled command may take to finish or undo its
// step. One that still waits for a peer then dies like any other program.
const stopWithin = 4 * time.Second

// signalContext returns a context that SIGINT and SIGTERM cancel, with the
// signal as its cause.
func signalContext() (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(context.Background())
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
	return ctx, func() { cancel(nil) }
}

// raise ends the process by s, whatever was caught before.
func raise(s syscall.Signal) {
	signal.Reset()
	_ = syscall.Kill(os.Getpid(), s)
	select {} // the signal is on its way
}

func help(env *Env) kong.HelpPrinter {
	return func(options kong.HelpOptions, ctx *kong.Context) error {
		if err := kong.DefaultHelpPrinter(options, ctx); err != nil {
			return err
		}
		_, err := fmt.Fprintf(ctx.Stdout, "\nExamples:\n%s", env.Examples)
		return err
	}
}

// Stdout is the stream of records. Each Write is one write(2); the first
// failure is kept, so that output lost to a full disk fails the run even
// where nobody looked at the error.
type Stdout struct {
	f   *os.File
	err error
}

func (s *Stdout) Write(p []byte) (int, error) {
	n, err := s.f.Write(p)
	if err != nil {
		err = sysexits.New(sysexits.CantCreate, "output_failed", fmt.Errorf("write stdout: %w", err))
		if s.err == nil {
			s.err = err
		}
	}
	return n, err
}

// Record writes lines that package record made, with the priority of level
// if stdout is the journal's stream.
func (s *Stdout) Record(level string, lines []byte) error {
	if prefix := journal.Prefix(level); prefix != "" && journal.Connected(s.f) {
		lines = append([]byte(prefix), lines...)
	}
	_, err := s.Write(lines)
	return err
}

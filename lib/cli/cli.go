// Package cli is the command line of the four tools. It adds the toolkit's exit
// statuses, diagnostics, environment variables, version and help to kong.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/alecthomas/kong"

	"observability-hub/lib/credential"
	"observability-hub/lib/diag"
	"observability-hub/lib/sysexits"
)

// Version is set at build time with -ldflags -X, because the Go tool sets no
// version in a repository without a go.mod at its root.
var Version = "devel"

// App describes a tool.
type App struct {
	Name        string // the command; in upper case it is the prefix of the environment variables
	Service     string // the unit family, which is the service field of every record
	Description string // one paragraph, at the start of --help
	Examples    string // runnable command lines, at the end of --help
	Commands    []Command
	Flags       string // the help of each flag: a line with its name, spaces and a text for kong, in which ${default} is its default
}

// Command is one command of a tool.
type Command struct {
	Name    string
	Help    string
	Default bool // run if no command is named
	Hidden  bool // not shown in --help
	// Unit is another unit whose environment file the command reads after that of the
	// family, if root runs it by hand. It is empty if there is no such unit.
	Unit string
	// Grammar is a pointer to a struct of flags for kong. It has a method
	// Run(context.Context, *Env) error. A signal cancels the context. If Grammar
	// or a struct in it has a method Validate() error, kong calls it after parsing.
	Grammar any
}

// Env is the environment of a command: its app and its streams.
type Env struct {
	App
	Stdin  io.Reader
	Stdout *Stdout
	Diag   *diag.Logger
}

// Main parses args, runs the command that they name and returns the exit status.
// It does not handle SIGPIPE, so that a filter dies quietly after its reader has
// ended.
func Main(app App, args []string, stdin io.Reader, stdout, stderr *os.File) int {
	env := &Env{
		App:    app,
		Stdin:  stdin,
		Stdout: &Stdout{f: stdout},
		Diag:   diag.New(app.Name, app.Service, stderr),
	}
	err := run(env, args, stderr)
	if err == nil {
		err = env.Stdout.err
	}
	if died, ok := errors.AsType[killedBy](err); ok {
		raise(died.Signal)
	}
	if err != nil {
		env.Diag.Error(unseen(err))
		retry(sysexits.Code(err))
	}
	return sysexits.Code(err)
}

// unseen adds to the hint of bad configuration that this user cannot see the settings
// of the units.
func unseen(err error) error {
	e, ok := errors.AsType[*sysexits.Error](err)
	hint := credential.Unseen()
	if !ok || e.Code != sysexits.Config || hint == "" {
		return err
	}
	if e.Hint != "" {
		hint = e.Hint + "; " + hint
	}
	e.Hint = hint
	return err
}

// exited is the panic with which kong's --help and --version leave the parser.
type exited int

func run(env *Env, args []string, stderr io.Writer) (err error) {
	defer func() {
		switch r := recover().(type) {
		case nil:
		case exited:
			err = nil
		default:
			panic(r)
		}
	}()
	if len(args) == 2 && args[0] == completionFlag {
		return writeCompletion(env, args[1], stderr)
	}
	call, err := parse(env, args, stderr)
	if err != nil {
		return err
	}
	ctx := diag.Into(context.Background(), env.Diag)
	work := func(ctx context.Context) error {
		call.BindTo(ctx, (*context.Context)(nil))
		if node := call.Selected(); node != nil {
			env.Stdout.show(node.Target.Addr().Interface())
		}
		err := call.Run(env)
		if shown := env.Stdout.close(); err == nil {
			err = shown
		}
		return err
	}
	if immediate(call) {
		return work(ctx)
	}
	return Interruptible(ctx, work)
}

// Immediate is implemented by a command for which Main may not call
// [Interruptible]. If Immediate returns true, a signal may end the command at any
// point, because it waits for nothing and has nothing to finish, or the command
// calls Interruptible itself. Main calls Interruptible for every other command,
// which takes two more threads.
type Immediate interface{ Immediate() bool }

// immediate reports whether the called command is [Immediate] or hidden.
func immediate(call *kong.Context) bool {
	node := call.Selected()
	if node == nil {
		return true
	}
	command, ok := node.Target.Addr().Interface().(Immediate)
	return node.Hidden || ok && command.Immediate()
}

// parse parses args with kong. In a small run, building kong's model takes longer
// than everything else. So parse passes only the called command to kong, and help
// texts only if they are to be shown.
func parse(env *Env, args []string, stderr io.Writer) (*kong.Context, error) {
	commands, helpful := env.called(args)
	if !helpful && !slices.Contains(args, "--version") {
		units := []string{env.Service}
		if len(commands) == 1 && commands[0].Unit != "" {
			units = append(units, commands[0].Unit)
		}
		if err := credential.AsUnit(units...); err != nil {
			return nil, err
		}
	}
	parser, err := newParser(env, commands, helpful, stderr)
	if err != nil {
		return nil, err
	}
	call, err := parser.Parse(args)
	if _, ok := errors.AsType[*sysexits.Error](err); ok {
		return nil, err // writing --help failed
	}
	if err != nil {
		return nil, sysexits.New(sysexits.Usage, "usage", err).WithHint(env.Name + " --help lists the commands and flags")
	}
	return call, nil
}

// newParser builds kong's model of the commands, with their help texts if helpful.
func newParser(env *Env, commands []Command, helpful bool, stderr io.Writer) (*kong.Kong, error) {
	base := &struct {
		Version versionFlag `help:"Print the version and exit."`
	}{}
	options := []kong.Option{
		kong.Name(env.Name),
		kong.Description(env.Description),
		kong.Writers(env.Stdout, stderr),
		kong.Exit(func(code int) { panic(exited(code)) }),
		kong.Resolvers(environment(env.Name)),
		durations,
	}
	if helpful {
		options = append(options, kong.Help(help(env)),
			kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 100}),
			kong.PostBuild(eachFlag(env.describe)))
	} else {
		options = append(options, kong.PostBuild(eachFlag(func(f *kong.Flag) { f.Help, f.PlaceHolder = "", "" })))
	}
	for _, c := range commands {
		var tags []string
		if c.Default {
			tags = append(tags, `default:"withargs"`)
		}
		if c.Hidden {
			tags = append(tags, `hidden:""`)
		}
		options = append(options, kong.DynamicCommand(c.Name, c.Help, "", c.Grammar, tags...))
	}
	parser, err := kong.New(base, options...)
	if err != nil {
		return nil, fmt.Errorf("command line: %w", err)
	}
	return parser, nil
}

// describe sets the help of a flag from App.Flags, if it is there, and adds the
// name of the flag's environment variable.
func (a App) describe(f *kong.Flag) {
	if f.Name == "help" || f.Name == "version" {
		return
	}
	for line := range strings.Lines(a.Flags) {
		if name, text, _ := strings.Cut(line, " "); name == f.Name {
			f.Help = strings.TrimSpace(text)
		}
	}
	f.Help += " ($$" + variable(a.Name, f) + ")"
}

// called returns the commands that kong needs to parse args, and whether kong
// prints help. If it is not clear which command is called, or for help, called
// returns all commands.
func (a App) called(args []string) (commands []Command, help bool) {
	for _, arg := range args {
		if arg == "--" {
			break
		}
		help = help || arg == "-h" || arg == "--help"
	}
	if help {
		return a.Commands, true
	}
	for _, c := range a.Commands {
		if len(args) > 0 && args[0] == c.Name || c.Default && (len(args) == 0 || strings.HasPrefix(args[0], "-")) {
			return []Command{c}, false
		}
	}
	// args begins with a word that names no command. kong would read it as an
	// argument of the default command; without a default it proposes a command.
	commands = slices.Clone(a.Commands)
	for i := range commands {
		commands[i].Default = false
	}
	return commands, false
}

// versionFlag prints the version as soon as kong finds the flag.
type versionFlag bool

// BeforeReset is called by kong if the flag was given.
func (versionFlag) BeforeReset(k *kong.Kong) error {
	_, err := fmt.Fprintln(k.Stdout, k.Model.Name, Version)
	k.Exit(0)
	return err
}

// environment sets a flag from its environment variable, if the flag was not given
// and the variable is not empty.
func environment(prefix string) kong.Resolver {
	return kong.ResolverFunc(func(_ *kong.Context, _ *kong.Path, f *kong.Flag) (any, error) {
		if f.Name == "help" || f.Name == "version" {
			return nil, nil
		}
		if v := os.Getenv(variable(prefix, f)); v != "" {
			return v, nil
		}
		return nil, nil
	})
}

// variable returns the name of a flag's environment variable, such as
// SYSMETRICS_STATE_DIR.
func variable(prefix string, f *kong.Flag) string {
	return strings.ToUpper(prefix + "_" + strings.ReplaceAll(f.Name, "-", "_"))
}

// eachFlag calls do for every flag of the model.
func eachFlag(do func(*kong.Flag)) func(*kong.Kong) error {
	return func(k *kong.Kong) error {
		return kong.Visit(k.Model.Node, func(n kong.Visitable, next kong.Next) error {
			if f, ok := n.(*kong.Flag); ok {
				do(f)
			}
			return next(nil)
		})
	}
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

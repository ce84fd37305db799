package cli

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"observability-hub/lib/record"
	"observability-hub/lib/sysexits"
)

// asTool makes the test binary run the tool of these tests with real streams, in a
// process that signals can end.
const asTool = "CLI_TEST_AS_TOOL"

func TestMain(m *testing.M) {
	if os.Getenv(asTool) != "" {
		os.Exit(Main(tool(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

// tool is a tool with one command of each sort.
func tool() App {
	return App{
		Name: "tool", Service: "a-service", Description: "Greet, and wait.",
		Flags:    "times     How often: ${default}.\nother     Nothing.\n",
		Examples: "  tool --to-whom world | jq .greeting\n",
		Commands: []Command{
			{Name: "greet", Help: "Print a greeting (the default).", Default: true, Grammar: &greet{}},
			{Name: "wait", Help: "Wait for a signal.", Grammar: &wait{}},
			{Name: "inner", Help: "Not for people.", Hidden: true, Grammar: &inner{}},
		},
	}
}

type greet struct {
	ToWhom   string `default:"you" help:"Who is greeted (${default})."`
	Times    int    `default:"1"`
	Careless bool   `help:"Do not look at write errors."`
	Fail     bool   `help:"Fail after the greeting."`
}

func (g *greet) Run(_ context.Context, env *Env) error {
	for range g.Times {
		l := record.New(time.Unix(0, 0), record.Info, "greeting", env.Service)
		l.String("to", g.ToWhom)
		if err := env.Stdout.Record(record.Info, l.End()); err != nil && !g.Careless {
			return err
		}
	}
	if g.Fail {
		return sysexits.New(sysexits.TempFail, "locked", errors.New("held by another")).WithHint("wait for it")
	}
	return nil
}

type wait struct {
	How string `arg:"" help:"What to do about a signal."`
}

func (w *wait) Run(ctx context.Context, env *Env) error {
	ready := func() { fmt.Fprintln(env.Stdout, "ready") }
	work := func(ctx context.Context) error {
		ready()
		<-ctx.Done()
		return context.Cause(ctx)
	}
	switch w.How {
	case "obey":
		return work(ctx)
	case "nested": // like obey
		return Interruptible(ctx, work)
	case "at-once":
		ready()
		_, err := io.Copy(io.Discard, env.Stdin)
		return err
	case "finish": // finishes its step after the signal, and succeeds
		_ = work(ctx)
		return nil
	case "hang":
		ready()
		_, err := io.Copy(io.Discard, env.Stdin) // the test keeps it open
		return err
	case "guarded": // until stdin is closed
		return Uninterrupted(func() error {
			ready()
			_, err := io.Copy(io.Discard, env.Stdin)
			return err
		})
	}
	return errors.New("unknown way")
}

// Immediate is true for the commands that do not use Interruptible.
func (w *wait) Immediate() bool { return w.How == "at-once" || w.How == "guarded" }

type inner struct{}

func (*inner) Run(context.Context, *Env) error { return nil }

// start starts the tool as a process.
func start(t *testing.T, stdout io.Writer, env []string, args ...string) (*exec.Cmd, *bytes.Buffer) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, args...)
	cmd.Env = append([]string{asTool + "=1", "GOCOVERDIR=" + t.TempDir()}, env...)
	var stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = stdout, &stderr
	return cmd, &stderr
}

// runTool runs the tool to its end.
func runTool(t *testing.T, stdout io.Writer, env []string, args ...string) (status int, stderr string) {
	t.Helper()
	cmd, diagnostics := start(t, stdout, env, args...)
	err := cmd.Run()
	if _, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), diagnostics.String()
}

func TestRuns(t *testing.T) {
	const greeting = `{"time":"1970-01-01T00:00:00.000Z","level":"INFO","msg":"greeting","service":"a-service","to":"%s"}` + "\n"
	for _, tc := range []struct {
		name   string
		env    []string
		args   []string
		to     string // the name that is greeted, "" for no record
		status int
		event  string // msg of the diagnostic
		says   string // in it
	}{
		{"default command", nil, nil, "you", 0, "", ""},
		{"default command with a flag", nil, []string{"--to-whom", "me"}, "me", 0, "", ""},
		{"named command", nil, []string{"greet", "--to-whom=me"}, "me", 0, "", ""},
		{"hidden command", nil, []string{"inner"}, "", 0, "", ""},
		{"environment", []string{"TOOL_TO_WHOM=them"}, nil, "them", 0, "", ""},
		{"flag before environment", []string{"TOOL_TO_WHOM=them"}, []string{"--to-whom=me"}, "me", 0, "", ""},
		{"empty variable is unset", []string{"TOOL_TO_WHOM=", "TOOL_TIMES="}, nil, "you", 0, "", ""},
		{"help cannot be set by a variable", []string{"TOOL_HELP=true", "TOOL_VERSION=true"}, nil, "you", 0, "", ""},
		{"bad variable", []string{"TOOL_TIMES=often"}, nil, "", sysexits.Usage, "usage", "often"},
		{"unknown flag", nil, []string{"--nonsense"}, "", sysexits.Usage, "usage", "--nonsense"},
		{"unknown flag of a command", nil, []string{"greet", "--nonsense"}, "", sysexits.Usage, "usage", "--nonsense"},
		{"unknown command", nil, []string{"nonsense"}, "", sysexits.Usage, "usage", "nonsense"},
		{"misspelt command", nil, []string{"wiat", "obey"}, "", sysexits.Usage, "usage", `did you mean "wait"?`},
		{"misspelt default command", nil, []string{"gret"}, "", sysexits.Usage, "usage", `did you mean "greet"?`},
		{"missing argument", nil, []string{"wait"}, "", sysexits.Usage, "usage", "<how>"},
		{"one argument too many", nil, []string{"greet", "x"}, "", sysexits.Usage, "usage", "x"},
		{"bad value", nil, []string{"--times=often"}, "", sysexits.Usage, "usage", "often"},
		{"failure", nil, []string{"--fail"}, "you", sysexits.TempFail, "locked", "held by another"},
		{"plain failure", nil, []string{"wait", "nonsense"}, "", sysexits.Failed, "failed", "unknown way"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var stdout bytes.Buffer
			status, stderr := runTool(t, &stdout, tc.env, tc.args...)
			want := ""
			if tc.to != "" {
				want = fmt.Sprintf(greeting, tc.to)
			}
			if status != tc.status || stdout.String() != want {
				t.Errorf("tool %q = %d, stdout %q, stderr %q; want %d, %q", tc.args, status, stdout.String(), stderr, tc.status, want)
			}
			if tc.event == "" {
				if stderr != "" {
					t.Errorf("stderr %q; want none", stderr)
				}
				return
			}
			var d struct{ Level, Msg, Service, Error, Hint string }
			if err := json.Unmarshal([]byte(stderr), &d); err != nil || d.Level != "ERROR" || d.Msg != tc.event || d.Service != "a-service" {
				t.Errorf("stderr %q, %v; want one ERROR line %q", stderr, err, tc.event)
			}
			if !strings.Contains(d.Error, tc.says) {
				t.Errorf("error %q; want %q in it", d.Error, tc.says)
			}
			if tc.status == sysexits.Usage && !strings.Contains(d.Hint, "tool --help") {
				t.Errorf("hint %q; want one that names --help", d.Hint)
			}
		})
	}
}

func TestHelp(t *testing.T) {
	commands := []string{"greet", "Print a greeting (the default).", "wait"}
	flags := []string{"--to-whom", "Who is greeted (you). ($TOOL_TO_WHOM)", "How often: 1. ($TOOL_TIMES)"}
	for _, tc := range []struct{ args, says []string }{
		{[]string{"--help"}, commands}, {[]string{"-h"}, commands}, {[]string{"--to-whom=x", "--help"}, commands},
		{[]string{"greet", "--help"}, flags}, {[]string{"greet", "-h"}, flags},
	} {
		args := tc.args
		var stdout bytes.Buffer
		status, stderr := runTool(t, &stdout, nil, args...)
		out := stdout.String()
		if status != 0 || stderr != "" {
			t.Errorf("tool %q = %d, stderr %q; want 0", args, status, stderr)
		}
		if !strings.HasSuffix(out, "\nExamples:\n  tool --to-whom world | jq .greeting\n") {
			t.Errorf("tool %q does not end in the examples:\n%s", args, out)
		}
		for _, want := range tc.says {
			if !strings.Contains(out, want) {
				t.Errorf("tool %q does not say %q:\n%s", args, want, out)
			}
		}
		for _, not := range []string{"TOOL_HELP", "TOOL_VERSION", "inner", "Not for people"} {
			if strings.Contains(out, not) {
				t.Errorf("tool %q says %q:\n%s", args, not, out)
			}
		}
	}
}

func TestVersion(t *testing.T) {
	for _, args := range [][]string{{"--version"}, {"greet", "--version"}, {"wait", "--version"}} {
		var stdout bytes.Buffer
		if status, stderr := runTool(t, &stdout, nil, args...); status != 0 || stdout.String() != "tool devel\n" || stderr != "" {
			t.Errorf("tool %q = %d, %q, stderr %q; want the version", args, status, stdout.String(), stderr)
		}
	}
}

// A full disk fails the run, even if the command ignores the error.
func TestFullOutput(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	for _, args := range [][]string{nil, {"--careless"}, {"--careless", "--times=3"}, {"--help"}, {"--version"}} {
		status, stderr := runTool(t, full, nil, args...)
		if status != sysexits.CantCreate || !strings.Contains(stderr, "no space left on device") || strings.Count(stderr, "\n") != 1 {
			t.Errorf("tool %q >/dev/full = %d, stderr %q; want 73 and one line that says why", args, status, stderr)
		}
	}
}

// A filter whose reader has ended dies of SIGPIPE and prints nothing.
func TestBrokenPipe(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	cmd, stderr := start(t, w, nil)
	_ = cmd.Run()
	w.Close()
	if ws := cmd.ProcessState.Sys().(syscall.WaitStatus); !ws.Signaled() || ws.Signal() != syscall.SIGPIPE || stderr.Len() > 0 {
		t.Errorf("tool | true = %v, stderr %q; want death of SIGPIPE and no output", cmd.ProcessState, stderr)
	}
}

// signalled starts the tool, sends it a signal once it is ready, then closes
// its stdin if the case says so, and returns how it ended.
func signalled(t *testing.T, s syscall.Signal, how string, closeStdin bool) (state *os.ProcessState, stderr string, took time.Duration) {
	t.Helper()
	cmd, diagnostics := start(t, nil, nil, "wait", how)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(stdout).ReadString('\n'); line != "ready\n" {
		t.Fatalf("%s: %q, %v, stderr %s", how, line, err, diagnostics)
	}
	begin := time.Now()
	if err := cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
	if closeStdin {
		stdin.Close()
	}
	_ = cmd.Wait()
	stdin.Close()
	return cmd.ProcessState, diagnostics.String(), time.Since(begin)
}

func TestSignals(t *testing.T) {
	for _, tc := range []struct {
		how        string
		signal     syscall.Signal
		closeStdin bool
		killed     bool // the tool dies of the signal; else it exits 0
		atLeast    time.Duration
	}{
		{"obey", syscall.SIGTERM, false, true, 0},
		{"obey", syscall.SIGINT, false, true, 0},
		{"nested", syscall.SIGTERM, false, true, 0},
		{"at-once", syscall.SIGTERM, false, true, 0},
		{"finish", syscall.SIGTERM, false, false, 0},
		{"hang", syscall.SIGTERM, false, true, stopWithin},
		{"guarded", syscall.SIGTERM, true, false, 0},
	} {
		t.Run(fmt.Sprint(tc.how, " ", tc.signal), func(t *testing.T) {
			t.Parallel()
			state, stderr, took := signalled(t, tc.signal, tc.how, tc.closeStdin)
			ws := state.Sys().(syscall.WaitStatus)
			if tc.killed && (!ws.Signaled() || ws.Signal() != tc.signal) || !tc.killed && state.ExitCode() != 0 {
				t.Errorf("%v ended the tool as %v; want death of it: %v", tc.signal, state, tc.killed)
			}
			if stderr != "" {
				t.Errorf("stderr %q; want none: the caller sees the signal", stderr)
			}
			if took > 5*time.Second+tc.atLeast/10 || took < tc.atLeast || tc.how == "at-once" && took > stopWithin/2 {
				t.Errorf("took %v; want at least %v and at most 5 s", took, tc.atLeast)
			}
		})
	}
}

func TestCalled(t *testing.T) {
	all := []string{"greet", "wait", "inner"}
	for _, tc := range []struct {
		args []string
		want []string
		help bool
	}{
		{nil, []string{"greet"}, false},
		{[]string{"greet"}, []string{"greet"}, false},
		{[]string{"wait", "obey"}, []string{"wait"}, false},
		{[]string{"inner"}, []string{"inner"}, false},
		{[]string{"--times=2"}, []string{"greet"}, false},
		{[]string{"--to-whom", "wait"}, []string{"greet"}, false},
		{[]string{"wait", "--", "--help"}, []string{"wait"}, false},
		{[]string{"--", "wait"}, []string{"greet"}, false},
		{[]string{"nonsense"}, all, false},
		{[]string{""}, all, false},
		{[]string{"wait", "--help"}, all, true},
		{[]string{"-h"}, all, true},
		{[]string{"nonsense", "--help"}, all, true},
	} {
		commands, help := tool().called(tc.args)
		var names []string
		for _, c := range commands {
			names = append(names, c.Name)
		}
		if !slices.Equal(names, tc.want) || help != tc.help {
			t.Errorf("called(%q) = %q, %v; want %q, %v", tc.args, names, help, tc.want, tc.help)
		}
	}
}

// Only lines to the journal have the priority prefix of their level.
func TestRecordPriority(t *testing.T) {
	f, err := os.CreateTemp(t.TempDir(), "stream")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var st syscall.Stat_t
	if err := syscall.Fstat(int(f.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	s := &Stdout{f: f}
	for _, journal := range []string{"", fmt.Sprintf("%d:%d", st.Dev, st.Ino)} {
		t.Setenv("JOURNAL_STREAM", journal)
		for _, level := range []string{record.Info, record.Warn} {
			if err := s.Record(level, []byte("{}\n")); err != nil {
				t.Fatal(err)
			}
		}
	}
	if got, err := os.ReadFile(f.Name()); string(got) != "{}\n{}\n{}\n<4>{}\n" || err != nil {
		t.Errorf("stream = %q, %v", got, err)
	}
}

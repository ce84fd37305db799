package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"observability-hub/e2e/workspace"
)

// Exit statuses that the tests expect, from sysexits(3) and the toolkit's own.
const (
	exitPartial     = 11
	exitDataErr     = 65
	exitUnavailable = 69
	exitCantCreate  = 73
	exitTryLater    = 75
	exitConfig      = 78
)

// tool runs one of the binaries with its own state directory, and with an environment that does not depend on that of the test.
type tool struct {
	tb    testing.TB
	path  string
	state string
	env   []string
}

func sysmetrics(tb testing.TB, env ...string) *tool {
	tb.Helper()
	path, err := workspace.Binary("sysmetrics")
	if err != nil {
		tb.Fatal(err)
	}
	return &tool{tb: tb, path: path, state: filepath.Join(tb.TempDir(), "state"), env: env}
}

// with returns the same tool with the same state in another environment.
func (t *tool) with(env ...string) *tool {
	other := *t
	other.env = env
	return &other
}

// command prepares one run without starting it.
func (t *tool) command(stdin string, args ...string) *exec.Cmd {
	cmd := exec.Command(t.path, args...)
	cmd.Dir = t.tb.TempDir()
	cmd.Env = append([]string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=" + cmd.Dir, "SYSMETRICS_STATE_DIR=" + t.state}, t.env...)
	cmd.Stdin = strings.NewReader(stdin)
	return cmd
}

// besideUnits returns a command as another user runs it by hand, with a state directory called own, on a host on which the
// unit has the state directory called unit.
func besideUnits(tb testing.TB, cmd *exec.Cmd, unit, own string) *exec.Cmd {
	tb.Helper()
	const script = `
mount -t tmpfs tmpfs /var/lib
mkdir -p "/var/lib/$0" /var/lib/home/"$1"
chown -R 1 /var/lib/home
shift
exec env XDG_STATE_HOME=/var/lib/home setpriv --reuid 1 --clear-groups --inh-caps +dac_read_search --ambient-caps +dac_read_search "$@"`
	args := append([]string{"--mount", "sh", "-ec", script, unit, own, cmd.Path}, cmd.Args[1:]...)
	other := exec.Command("unshare", args...)
	other.Dir, other.Env, other.Stdin = cmd.Dir, cmd.Env, cmd.Stdin
	return other
}

// run runs the tool to its end.
func (t *tool) run(stdin string, args ...string) outcome {
	t.tb.Helper()
	return finish(t.tb, t.command(stdin, args...))
}

// want runs the tool and fails the test if it has another exit status.
func (t *tool) want(status int, stdin string, args ...string) outcome {
	t.tb.Helper()
	got := t.run(stdin, args...)
	if got.status != status {
		t.tb.Fatalf("sysmetrics %s: exit status %d; want %d\nstdout: %s\nstderr: %s", strings.Join(args, " "), got.status, status, got.stdout, got.stderr)
	}
	return got
}

// outcome is the result of a run.
type outcome struct {
	status         int // as in a shell: 128 + the signal
	stdout, stderr string
	took           time.Duration
}

func finish(tb testing.TB, cmd *exec.Cmd) outcome {
	tb.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	began := time.Now()
	err := cmd.Run()
	got := outcome{stdout: stdout.String(), stderr: stderr.String(), took: time.Since(began)}
	var exited *exec.ExitError
	if err != nil && !errors.As(err, &exited) {
		tb.Fatal(err)
	}
	got.status = exitStatus(cmd.ProcessState)
	return got
}

func exitStatus(state *os.ProcessState) int {
	if ws, ok := state.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return state.ExitCode()
}

// flushed is the record that a flush prints.
type flushed struct {
	Msg, Service                                     string
	Inserted, Duplicates, Rejected, Spooled, Dropped int
}

// flushed decodes the one record of a flush.
func (o outcome) flushed(tb testing.TB) flushed {
	tb.Helper()
	var f flushed
	if strings.Count(o.stdout, "\n") != 1 {
		tb.Fatalf("stdout holds %d lines; want one flushed record\nstdout: %s\nstderr: %s", strings.Count(o.stdout, "\n"), o.stdout, o.stderr)
	}
	if err := json.Unmarshal([]byte(o.stdout), &f); err != nil {
		tb.Fatalf("%v: %s", err, o.stdout)
	}
	if f.Msg != "flushed" {
		tb.Fatalf("msg = %q; want flushed: %s", f.Msg, o.stdout)
	}
	return f
}

// line is one record in a spool, a stream or a row.
type line struct {
	Time       time.Time       `json:"time"`
	Msg        string          `json:"msg,omitempty"`
	Host       *string         `json:"host"`
	OS         string          `json:"os"`
	MetricType string          `json:"metric_type"`
	Payload    json.RawMessage `json:"payload"`
}

// spooled returns the complete lines of a file in the state directory. It leaves out an incomplete last line, which was never safe.
func (t *tool) spooled(name string) []line {
	t.tb.Helper()
	content, err := os.ReadFile(filepath.Join(t.state, name))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	} else if err != nil {
		t.tb.Fatal(err)
	}
	return parseLines(t.tb, content)
}

func parseLines(tb testing.TB, content []byte) []line {
	tb.Helper()
	var all []line
	for text := range bytes.Lines(content) {
		if !bytes.HasSuffix(text, []byte("\n")) {
			break
		}
		var l line
		if err := json.Unmarshal(text, &l); err != nil {
			tb.Fatalf("%v in %q", err, text)
		}
		all = append(all, l)
	}
	return all
}

// records returns n samples of a host as sysmetrics prints them, with one line of each type for each minute.
func records(host string, n int) string {
	var b strings.Builder
	for i := range n {
		at := sampleTime(i).Format("2006-01-02T15:04:05.000Z")
		for _, r := range []struct{ kind, payload string }{
			{"cpu", fmt.Sprintf(`{"usage":%d.5,"package_temp":41,"core_temps":{"core_0":40}}`, i%100)},
			{"memory", `{"total":8000,"available":5000,"used":3000,"used_percent":37.5}`},
			{"disk", `{"/":{"total":1000,"used":400,"free":600,"used_percent":40}}`},
			{"network", fmt.Sprintf(`{"eth0":{"rx_bytes":%d,"tx_bytes":7}}`, 1000+i)},
		} {
			fmt.Fprintf(&b, `{"time":%q,"level":"INFO","msg":"sample","service":"system-metrics","host":%q,"os":"debian 12","metric_type":%q,"payload":%s}`+"\n", at, host, r.kind, r.payload)
		}
	}
	return b.String()
}

// traced makes a prepared command run under strace.
func traced(tb testing.TB, cmd *exec.Cmd, args ...string) {
	tb.Helper()
	strace, err := exec.LookPath("strace")
	if err != nil {
		tb.Fatalf("this test traces system calls: %v: install the package strace", err)
	}
	cmd.Args = append(append([]string{strace}, args...), append([]string{"--", cmd.Path}, cmd.Args[1:]...)...)
	cmd.Path = strace
}

package main

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// asTool is a variable that makes the test binary run the tool. Tests then have a
// separate process with real streams, to which they can send signals.
const asTool = "READSYNC_TEST_AS_TOOL"

func TestMain(m *testing.M) {
	if os.Getenv(asTool) != "" {
		main()
	}
	os.Exit(m.Run())
}

// process is a running tool.
type process struct {
	*testing.T
	cmd  *exec.Cmd
	dir  string
	done chan struct{}
}

// startTool starts the tool. setUp, if it is not nil, can change the command first.
func startTool(t *testing.T, setUp func(*exec.Cmd), args ...string) *process {
	t.Helper()
	p := &process{T: t, cmd: exec.Command("/proc/self/exe", args...), dir: t.TempDir(), done: make(chan struct{})}
	p.cmd.Env = []string{asTool + "=1", "HOME=" + p.dir, "PATH=" + os.Getenv("PATH")}
	for name, stream := range map[string]*io.Writer{"stdout": &p.cmd.Stdout, "stderr": &p.cmd.Stderr} {
		f, err := os.Create(filepath.Join(p.dir, name))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close() // the process has its own descriptor
		*stream = f
	}
	if setUp != nil {
		setUp(p.cmd)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = p.cmd.Wait() // wait checks the status
		close(p.done)
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill() // fails if it has ended
		<-p.done
	})
	return p
}

func (p *process) signal(s syscall.Signal) {
	p.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.Fatal(err)
	}
}

// wait returns the exit status in the form of a shell: 128 + n if signal n ended the tool.
func (p *process) wait() int {
	p.Helper()
	select {
	case <-p.done:
	case <-time.After(time.Minute):
		p.Fatalf("the tool does not end\n%s%s", p.stdout(), p.stderr())
	}
	if ws, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return p.cmd.ProcessState.ExitCode()
}

func (p *process) stdout() string { return p.read("stdout") }
func (p *process) stderr() string { return p.read("stderr") }

func (p *process) read(name string) string {
	p.Helper()
	b, err := os.ReadFile(filepath.Join(p.dir, name))
	if err != nil {
		p.Fatal(err)
	}
	return string(b)
}

// await polls until a condition is met.
func await(t *testing.T, what string, met func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !met(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited a minute for %s", what)
		}
	}
}

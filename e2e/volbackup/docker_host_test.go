package volbackup

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"observability-hub/e2e/docker"
	"observability-hub/e2e/workspace"
)

// dockerHost is a Docker daemon, with manage_volume.sh and volbackup in PATH, and a repository.
type dockerHost struct {
	*docker.Daemon
	dir  string // state/, repo/ and bin/
	repo string
	env  []string
}

func newDockerHost(tb testing.TB) *dockerHost {
	tb.Helper()
	binary, err := workspace.Binary("volbackup")
	if err != nil {
		tb.Fatal(err)
	}
	root, err := workspace.Root()
	if err != nil {
		tb.Fatal(err)
	}
	h := &dockerHost{Daemon: docker.Run(tb), dir: tb.TempDir()}
	h.repo = filepath.Join(h.dir, "repo")
	bin := filepath.Join(h.dir, "bin")
	for _, dir := range []string{bin, h.repo, filepath.Join(h.dir, "state")} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			tb.Fatal(err)
		}
	}
	for name, target := range map[string]string{"volbackup": binary, "manage_volume.sh": filepath.Join(root, "scripts", "manage_volume.sh")} {
		if err := os.Symlink(target, filepath.Join(bin, name)); err != nil {
			tb.Fatal(err)
		}
	}
	h.env = []string{"PATH=" + bin + ":" + os.Getenv("PATH"), "HOME=" + h.dir, h.Env(), "STATE_DIRECTORY=" + filepath.Join(h.dir, "state"), "VOLBACKUP_REPO=" + h.repo}
	return h
}

// shell returns a command line of bash with the option pipefail.
func (h *dockerHost) shell(line string) *exec.Cmd {
	cmd := exec.Command("bash", "-o", "pipefail", "-c", line)
	cmd.Dir = h.dir
	cmd.Env = h.env
	return cmd
}

// try runs a command line and returns its exit status and output. The status is 128 and more for a signal.
func (h *dockerHost) try(tb testing.TB, line string) (status int, stdout, stderr string) {
	tb.Helper()
	var out, errs bytes.Buffer
	cmd := h.shell(line)
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exited *exec.ExitError
	if err != nil && !errors.As(err, &exited) {
		tb.Fatal(err)
	}
	if ws, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return 128 + int(ws.Signal()), out.String(), errs.String()
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

// must runs a command line and returns its stdout. It fails the test unless the exit status is 0.
func (h *dockerHost) must(tb testing.TB, line string) string {
	tb.Helper()
	status, stdout, stderr := h.try(tb, line)
	if status != 0 {
		tb.Fatalf("%s: exit status %d\nstdout: %s\nstderr: %s", line, status, stdout, stderr)
	}
	return stdout
}

// container starts a container that ends on SIGTERM. The options are those of docker run.
func (h *dockerHost) container(tb testing.TB, name string, options ...string) {
	tb.Helper()
	args := append([]string{"run", "--detach", "--network", "none", "--name", name}, options...)
	h.Docker(tb, append(args, docker.Image, "sh", "-c", "trap exit TERM; sleep 10000 & wait")...)
}

// containers returns the state of every container, by name.
func (h *dockerHost) containers(tb testing.TB) map[string]string {
	tb.Helper()
	states := map[string]string{}
	for _, line := range strings.Fields(h.Docker(tb, "ps", "--all", "--format", "{{.Names}}={{.State}}")) {
		name, state, _ := strings.Cut(line, "=")
		states[name] = state
	}
	return states
}

// Package docker runs temporary Docker daemons for tests. Each has its own socket, data and containers.
//
//	d := docker.Run(t)
//	d.Docker(t, "volume", "create", "grafana_data")
//	d.Docker(t, "run", "--detach", "--volume", "grafana_data:/data", docker.Image, "sleep", "1000")
//	cmd.Env = append(cmd.Env, d.Env())
//
// There is one image, [Image], with a static busybox. No image is pulled, and containers have no network. The package needs
// root, and docker.io and busybox-static from Debian. It does not use the host's own daemon. A daemon never outlives its
// test: however the test process ends, even by SIGKILL, the kernel ends the daemon and its containers, and removes its mounts.
package docker

import (
	"bytes"
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"observability-hub/e2e/dependent"
)

// Image is the name of the only image: busybox, whose programs are in PATH.
const Image = "busybox"

//go:embed daemon.sh
var daemonScript []byte

// startTimeout is the maximum time for starting a daemon.
const startTimeout = time.Minute

// Daemon is a running Docker daemon.
type Daemon struct {
	Dir string // contains all files of the daemon

	supervisor *os.Process
	finished   <-chan struct{} // closed when the supervisor has ended
}

// Run starts a daemon that is stopped at the end of the test.
func Run(tb testing.TB) *Daemon {
	tb.Helper()
	d, err := New()
	if err != nil {
		tb.Fatalf("start a Docker daemon: %v", err)
	}
	tb.Cleanup(func() {
		if tb.Failed() {
			tb.Logf("the daemon's log:\n%s", d.logTail())
		}
		d.Close()
	})
	return d
}

// New starts a daemon. The caller must close it.
func New() (*Daemon, error) {
	// The path of a socket must be short, so it is not in TMPDIR.
	dir, err := os.MkdirTemp("/tmp", "hub-docker-")
	if err != nil {
		return nil, err
	}
	script := filepath.Join(dir, "daemon.sh")
	if err := os.WriteFile(script, daemonScript, 0o644); err != nil {
		return nil, err
	}
	// Users other than root can reach the socket through their group.
	if err := os.Chmod(dir, 0o755); err != nil {
		return nil, err
	}
	cmd := exec.Command("bash", script, dir)
	finished, err := dependent.Start(cmd)
	if err != nil {
		return nil, err
	}
	d := &Daemon{Dir: dir, supervisor: cmd.Process, finished: finished}
	if err := d.awaitSocket(); err != nil {
		err = fmt.Errorf("%w\n%s", err, d.logTail())
		d.Close()
		return nil, err
	}
	return d, nil
}

func (d *Daemon) awaitSocket() error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(startTimeout)
	for {
		if _, err := os.Stat(filepath.Join(d.Dir, "d.sock")); err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-d.finished:
			return fmt.Errorf("the daemon ended before it answered")
		case <-deadline:
			return fmt.Errorf("the daemon does not answer after %v", startTimeout)
		}
	}
}

// Close ends the daemon and all its containers, and removes its files. Closing twice is not an error.
func (d *Daemon) Close() {
	_ = d.supervisor.Signal(syscall.SIGTERM) // it may have ended by itself
	<-d.finished
	_ = os.Remove(d.Dir + ".log")
}

// Host returns the daemon's address.
func (d *Daemon) Host() string { return "unix://" + filepath.Join(d.Dir, "d.sock") }

// Env returns the variable with which a docker client uses the daemon.
func (d *Daemon) Env() string { return "DOCKER_HOST=" + d.Host() }

// Volume returns the directory of a volume.
func (d *Daemon) Volume(name string) string {
	return filepath.Join(d.Dir, "data", "volumes", name, "_data")
}

// Command prepares a call of the docker client.
func (d *Daemon) Command(args ...string) *exec.Cmd {
	cmd := exec.Command("docker", args...)
	cmd.Env = append(os.Environ(), d.Env())
	return cmd
}

// Docker calls the docker client and returns its stdout without the last newline. It fails the test if the call fails.
func (d *Daemon) Docker(tb testing.TB, args ...string) string {
	tb.Helper()
	cmd := d.Command(args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		tb.Fatalf("docker %s: %v\n%s", strings.Join(args, " "), err, &stderr)
	}
	return strings.TrimSuffix(string(out), "\n")
}

// Import makes an image from the content of a directory.
func (d *Daemon) Import(tb testing.TB, dir, name string, changes ...string) {
	tb.Helper()
	args := []string{"import"}
	for _, change := range changes {
		args = append(args, "--change", change)
	}
	cmd := d.Command(append(args, "-", name)...)
	tar := exec.Command("tar", "-C", dir, "-c", ".")
	pipe, err := tar.StdoutPipe()
	if err != nil {
		tb.Fatal(err)
	}
	cmd.Stdin = pipe
	if err := tar.Start(); err != nil {
		tb.Fatal(err)
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		tb.Fatalf("docker import: %v\n%s", err, out)
	}
	if err := tar.Wait(); err != nil {
		tb.Fatalf("tar: %v", err)
	}
}

// State returns the state of a container: running, paused, exited, created or restarting; "gone" if it does not exist.
func (d *Daemon) State(tb testing.TB, container string) string {
	tb.Helper()
	out, err := d.Command("inspect", "--type", "container", "--format", "{{.State.Status}}", container).Output()
	if err != nil {
		return "gone"
	}
	return strings.TrimSpace(string(out))
}

// logTail returns the end of the daemon's log, for the message of a failed test.
func (d *Daemon) logTail() string {
	log, err := os.ReadFile(filepath.Join(d.Dir, "log"))
	if err != nil {
		if log, err = os.ReadFile(d.Dir + ".log"); err != nil {
			return err.Error()
		}
	}
	lines := bytes.SplitAfter(log, []byte("\n"))
	return string(bytes.Join(lines[max(0, len(lines)-40):], nil))
}

// Package docker runs throw-away Docker daemons for tests, each with a socket, data and containers of its own.
//
//	d := docker.Run(t)
//	d.Docker(t, "volume", "create", "grafana_data")
//	d.Docker(t, "run", "--detach", "--volume", "grafana_data:/data", docker.Image, "sleep", "1000")
//	cmd.Env = append(cmd.Env, d.Env())
//
// There is one image, [Image], with a static busybox; nothing is pulled, and containers have no network. It needs root,
// and docker.io and busybox-static from Debian. A host's own daemon is not touched. A daemon never outlives its test:
// however the test process ends, SIGKILL included, the kernel takes the daemon, its containers and mounts with it.
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

// Image is the name of the one image: busybox, whose programs are in PATH.
const Image = "busybox"

//go:embed daemon.sh
var daemonScript []byte

// startTimeout bounds the wait for a daemon.
const startTimeout = time.Minute

// Daemon is a running Docker daemon.
type Daemon struct {
	Dir string // holds everything that the daemon has

	supervisor *os.Process
	finished   <-chan struct{} // closed when the supervisor has ended
}

// Run starts a daemon that lives as long as the test.
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

// New starts a daemon; the caller owes it a Close.
func New() (*Daemon, error) {
	// A socket's path must be short, so not in TMPDIR.
	dir, err := os.MkdirTemp("/tmp", "hub-docker-")
	if err != nil {
		return nil, err
	}
	script := filepath.Join(dir, "daemon.sh")
	if err := os.WriteFile(script, daemonScript, 0o644); err != nil {
		return nil, err
	}
	// Users other than root may reach the socket, by their group.
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

// Close ends the daemon with all its containers and removes what it had. Closing twice is no error.
func (d *Daemon) Close() {
	_ = d.supervisor.Signal(syscall.SIGTERM) // it may have ended by itself
	<-d.finished
	_ = os.Remove(d.Dir + ".log")
}

// Host is the daemon's address.
func (d *Daemon) Host() string { return "unix://" + filepath.Join(d.Dir, "d.sock") }

// Env is the variable that leads a docker client to the daemon.
func (d *Daemon) Env() string { return "DOCKER_HOST=" + d.Host() }

// Volume is the folder of a volume.
func (d *Daemon) Volume(name string) string {
	return filepath.Join(d.Dir, "data", "volumes", name, "_data")
}

// Command prepares a call of the docker client.
func (d *Daemon) Command(args ...string) *exec.Cmd {
	cmd := exec.Command("docker", args...)
	cmd.Env = append(os.Environ(), d.Env())
	return cmd
}

// Docker calls the docker client, fails the test if that fails, and gives its stdout without the last newline.
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

// Import makes an image of a folder's content.
func (d *Daemon) Import(tb testing.TB, folder, name string, changes ...string) {
	tb.Helper()
	args := []string{"import"}
	for _, change := range changes {
		args = append(args, "--change", change)
	}
	cmd := d.Command(append(args, "-", name)...)
	tar := exec.Command("tar", "-C", folder, "-c", ".")
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

// State is a container's: running, paused, exited, created, restarting; "gone" if there is none of that name.
func (d *Daemon) State(tb testing.TB, container string) string {
	tb.Helper()
	out, err := d.Command("inspect", "--type", "container", "--format", "{{.State.Status}}", container).Output()
	if err != nil {
		return "gone"
	}
	return strings.TrimSpace(string(out))
}

// logTail is the end of the daemon's log, for the message of a failed test.
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

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"observability-hub/e2e/dependent"
	"observability-hub/e2e/docker"
	"observability-hub/e2e/workspace"
)

// host is a machine with its own name, Docker daemon, state, cache and home directory.
type host struct {
	*docker.Daemon
	name, dir string
	env       []string
}

func newHost(work, name string) (*host, error) {
	h := &host{name: name, dir: filepath.Join(work, name)}
	binary, err := workspace.Binary("volbackup")
	if err != nil {
		return nil, err
	}
	root, err := workspace.Root()
	if err != nil {
		return nil, err
	}
	bin := filepath.Join(h.dir, "bin")
	for _, dir := range []string{bin, filepath.Join(h.dir, "state"), filepath.Join(h.dir, "tmp")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, err
		}
	}
	// restic has no variable for the options of ssh.
	ssh := fmt.Sprintf("#!/bin/sh\nexec /usr/bin/ssh -F %s \"$@\"\n", filepath.Join(work, "sftp", "client"))
	if err := os.WriteFile(filepath.Join(bin, "ssh"), []byte(ssh), 0o755); err != nil {
		return nil, err
	}
	for link, target := range map[string]string{"volbackup": binary, "manage_volume.sh": filepath.Join(root, "scripts", "manage_volume.sh")} {
		if err := os.Symlink(target, filepath.Join(bin, link)); err != nil {
			return nil, err
		}
	}
	if h.Daemon, err = docker.New(); err != nil {
		return nil, err
	}
	h.env = []string{"PATH=" + bin + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=" + h.dir, "TMPDIR=" + filepath.Join(h.dir, "tmp"), "LC_ALL=C.UTF-8", h.Env(),
		"STATE_DIRECTORY=" + filepath.Join(h.dir, "state"), "RESTIC_CACHE_DIR=" + filepath.Join(h.dir, "cache")}
	return h, nil
}

// container starts a container with a volume. It ends on SIGTERM.
func (h *host) container(name, volume string, options ...string) error {
	args := slices.Concat([]string{"run", "--detach", "--network", "none", "--name", name, "--volume", volume + ":/data"}, options,
		[]string{docker.Image, "sh", "-c", "trap exit TERM; sleep 100000 & wait"})
	if out, err := h.Command(args...).CombinedOutput(); err != nil {
		return fmt.Errorf("docker run %s: %w: %s", name, err, out)
	}
	return nil
}

// fill replaces n bytes of the volume's files by random ones. The volume has size bytes, in eight files.
func (h *host) fill(random *rand.Rand, volume string, size, n int) error {
	content := make([]byte, size/8)
	for i := range 8 {
		path := filepath.Join(h.Volume(volume), fmt.Sprint("file-", i))
		old, err := os.ReadFile(path)
		if err == nil && len(old) == len(content) {
			from := random.IntN(len(content) - n/8 + 1)
			for k := range n / 8 {
				old[from+k] = byte(random.Uint32())
			}
		} else {
			old = content
			for k := range old {
				old[k] = byte(random.Uint32())
			}
		}
		if err := os.WriteFile(path, old, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// result is the end of a command.
type result struct {
	status         int // 128 and more for a signal
	stdout, stderr string
	took           time.Duration
}

// try runs a line of bash on the host.
func (h *host) try(env []string, line string) (result, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	self, err := os.Executable()
	if err != nil {
		return result{}, err
	}
	cmd := exec.CommandContext(ctx, self, dependent.ReapArgument, "unshare", "--uts", "--", "bash", "-c", `hostname "$0" && set -o pipefail && eval "$1"`, h.name, line)
	cmd.Dir, cmd.Env = h.dir, slices.Concat(h.env, env)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	began := time.Now()
	err = cmd.Run()
	r := result{cmd.ProcessState.ExitCode(), out.String(), errs.String(), time.Since(began)}
	var exited *exec.ExitError
	if err != nil && !errors.As(err, &exited) {
		return r, fmt.Errorf("%s: %w", line, err)
	}
	if ws, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		r.status = 128 + int(ws.Signal())
	}
	return r, nil
}

// must runs a line of bash that must succeed, and returns what it prints.
func (h *host) must(env []string, line string) (string, error) {
	r, err := h.try(env, line)
	if err == nil && r.status != 0 {
		err = fmt.Errorf("%s: %s: exit status %d\n%s%s", h.name, line, r.status, r.stdout, r.stderr)
	}
	return r.stdout, err
}

// record is a line of volbackup.
type record struct {
	Level, Msg, Volume, Outcome, ID, Error string
}

// records returns the records of both streams.
func (r result) records() []record {
	var all []record
	for line := range strings.Lines(r.stdout + r.stderr) {
		var one record
		if json.Unmarshal([]byte(line), &one) == nil && one.Msg != "" {
			all = append(all, one)
		}
	}
	return all
}

// failure returns the events of the errors in the records, for the table.
func (r result) failure() string {
	var events []string
	for _, one := range r.records() {
		if one.Level == "ERROR" && one.Msg != "backed_up" && one.Msg != "backup_finished" && !slices.Contains(events, one.Msg) {
			events = append(events, one.Msg)
		}
	}
	return strings.TrimSpace(fmt.Sprint(r.status) + " " + strings.Join(events, " "))
}

// down returns the names of containers that do not run. A run that its time limit ends leaves containers that are still
// stopping to a background process, so this waits for half a minute.
func (h *host) down() (names []string, err error) {
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		out, err := h.Command("ps", "--all", "--format", "{{.Names}}={{.State}}").Output()
		if err != nil {
			return nil, err
		}
		names = nil
		for _, line := range strings.Fields(string(out)) {
			if name, state, _ := strings.Cut(line, "="); state != "running" {
				names = append(names, name+" is "+state)
			}
		}
		if len(names) == 0 || time.Now().After(deadline) {
			return names, nil
		}
	}
}

// stop is the last time that a container was stopped and started again.
type stop struct{ from, to time.Time }

// lastStop returns the last stop of a container.
func (h *host) lastStop(container string) (s stop, err error) {
	out, err := h.Command("inspect", "--format", "{{.State.FinishedAt}} {{.State.StartedAt}}", container).Output()
	if err != nil {
		return s, err
	}
	from, to, _ := strings.Cut(strings.TrimSpace(string(out)), " ")
	if s.from, err = time.Parse(time.RFC3339Nano, from); err != nil {
		return s, err
	}
	s.to, err = time.Parse(time.RFC3339Nano, to)
	return s, err
}

// digest returns the digest of the tar stream of a volume as it is now.
func (h *host) digest(volume string) (string, error) {
	out, err := h.must(nil, "manage_volume.sh tar "+h.Volume(volume)+" | sha256sum")
	return strings.TrimSpace(out), err
}

func release() string {
	text, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	return strings.TrimSpace(string(text))
}

func versions() []string {
	var all []string
	for _, argv := range [][]string{{"restic", "version"}, {"rclone", "version"}, {"rsync", "--version"}} {
		out, _ := exec.Command(argv[0], argv[1:]...).Output()
		fields := strings.Fields(string(out))
		if len(fields) > 2 && fields[1] == "version" {
			fields[1] = fields[2]
		}
		if len(fields) > 1 {
			all = append(all, argv[0]+" "+fields[1])
		}
	}
	return append(all, "versitygw "+versitygwVersion)
}

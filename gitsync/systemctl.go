package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"observability-hub/gitsync/internal/unit"
	"observability-hub/lib/command"
	"observability-hub/lib/sysexits"
)

// unitState is the state of a loaded unit: LoadState, ActiveState and SubState.
type unitState struct{ load, active, sub string }

// runs reports whether the unit is active.
func (s unitState) runs() bool { return s.active == "active" || s.active == "reloading" }

// retries reports whether the unit has failed and systemd is about to start it
// again. systemd 254 has a second name for this state, auto-restart-queued.
func (s unitState) retries() bool { return strings.HasPrefix(s.sub, "auto-restart") }

// starting reports whether the unit is a service that is starting. A service that
// hangs in its start does not take up new files by itself.
func (s unitState) starting(name string) bool {
	return s.active == "activating" && !s.retries() && unit.Type(name) == "service"
}

// systemctlTimeout limits a call that does not wait for a job.
const systemctlTimeout = 30 * time.Second

// systemctl runs systemctl and returns its stdout. If the service manager does not
// answer, the error has the exit status 69 (unavailable).
func systemctl(ctx context.Context, timeout time.Duration, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	// systemctl must look for units where systemd itself does.
	own := slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "SYSTEMD_UNIT_PATH=") })
	env := append(own, "SYSTEMD_COLORS=0", "SYSTEMD_PAGER=", "SYSTEMD_LOG_LEVEL=err", "LC_ALL=C.UTF-8")
	out, messages, err := command.Cmd{Args: append([]string{"systemctl", "--no-pager"}, args...), Env: env, Dir: "/", Dependent: true}.Run(ctx)
	if err == nil {
		return string(out), nil
	}
	if errors.Is(err, exec.ErrNotFound) {
		return "", noSystemd(err)
	}
	why := firstLine(string(messages))
	err = fmt.Errorf("systemctl %s: %w: %s", strings.Join(args, " "), err, why)
	if strings.Contains(why, "connect to bus") || strings.Contains(why, "not been booted") || errors.Is(err, context.DeadlineExceeded) {
		return string(out), sysexits.New(sysexits.Unavailable, "systemd_unavailable", err).WithHint("if systemd does not run on this host, pass --root DIR to work on the system in a directory")
	}
	return string(out), err
}

// noSystemd returns the error for a tool of systemd that is not installed.
func noSystemd(err error) error {
	return sysexits.New(sysexits.Config, "no_systemd", err).WithHint("install systemd")
}

// listUnits returns the state of every unit that systemd has in memory, by name.
func listUnits(ctx context.Context) (map[string]unitState, error) {
	out, err := systemctl(ctx, systemctlTimeout, "list-units", "--all", "--plain", "--full", "--no-legend",
		"--type=service,timer,socket,path,target,mount,automount,swap,slice,device")
	if err != nil {
		return nil, err
	}
	return parseUnits(out), nil
}

// parseUnits parses lines of the form UNIT LOAD ACTIVE SUB DESCRIPTION.
func parseUnits(out string) map[string]unitState {
	all := map[string]unitState{}
	for line := range strings.Lines(out) {
		if f := strings.Fields(line); len(f) >= 4 {
			all[f[0]] = unitState{f[1], f[2], f[3]}
		}
	}
	return all
}

// properties returns the named properties of units, by unit.
func properties(ctx context.Context, units []string, names ...string) (map[string]map[string]string, error) {
	if len(units) == 0 {
		return nil, nil
	}
	args := []string{"show", "--property=Id," + strings.Join(names, ","), "--"}
	out, err := systemctl(ctx, systemctlTimeout, append(args, units...)...)
	if err != nil {
		return nil, err
	}
	return parseProperties(out), nil
}

// parseProperties parses blocks of NAME=VALUE lines, separated by empty lines.
func parseProperties(out string) map[string]map[string]string {
	all := map[string]map[string]string{}
	for block := range strings.SplitSeq(out, "\n\n") {
		p := map[string]string{}
		for line := range strings.Lines(block) {
			if name, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "="); ok {
				p[name] = value
			}
		}
		if p["Id"] != "" {
			all[p["Id"]] = p
		}
	}
	return all
}

// conditionsMet asks systemd whether the conditions and assertions of a unit
// are met at this moment (systemd-analyze(1), condition).
func conditionsMet(ctx context.Context, name string) bool {
	ctx, cancel := context.WithTimeout(ctx, systemctlTimeout)
	defer cancel()
	_, _, err := command.Cmd{Args: []string{"systemd-analyze", "condition", "--unit=" + name}, Env: append(os.Environ(), "SYSTEMD_LOG_LEVEL=err"), Dir: "/", Dependent: true}.Run(ctx)
	return err == nil
}

// ownUnit returns the service that this process is part of, according to its
// cgroup. It returns "" if there is none.
func ownUnit() string {
	b, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return ""
	}
	return parseCgroup(string(b))
}

// parseCgroup returns the service in the text of /proc/self/cgroup. It reads the
// lines of the unified hierarchy and of systemd's own hierarchy.
func parseCgroup(text string) string {
	for line := range strings.Lines(text) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) == 3 && (f[1] == "" || f[1] == "name=systemd") {
			for p := f[2]; p != "/" && p != "." && p != ""; p = path.Dir(p) {
				if strings.HasSuffix(p, ".service") {
					return path.Base(p)
				}
			}
		}
	}
	return ""
}

// number parses a counter. It returns 0 for text that is not a number.
func number(s string) int {
	n, _ := strconv.Atoi(s)
	return n
}

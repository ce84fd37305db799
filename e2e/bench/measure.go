package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"observability-hub/e2e/workspace"
)

// candidate is one of the programs that are compared.
type candidate struct {
	name     string
	shown    string // the command line for the report
	command  command
	programs []string     // whose sizes are added up
	client   bool         // talks to the database
	before   func() error // prepares a run; not measured
	figures  figures
}

// command is a process to start. It is sent to the loaded host as JSON.
type command struct{ Argv, Env []string }

// figures are the measurements of a candidate, one entry for each run.
type figures struct {
	cpu, wall                           []time.Duration
	rss, syscalls, writes, instructions []int64
	started                             []int64 // programs
}

func (f *figures) add(c cost) {
	f.cpu, f.wall = append(f.cpu, c.CPU), append(f.wall, c.Wall)
}

// cost is the cost of one run: user and system time of the process and of the children that it waited for, and the time until its end.
type cost struct{ CPU, Wall time.Duration }

func median[T int64 | time.Duration](all []T) T {
	if len(all) == 0 {
		return 0
	}
	sorted := slices.Clone(all)
	slices.Sort(sorted)
	return sorted[len(sorted)/2]
}

// prepareCommand makes an exec.Cmd whose output is discarded.
func prepareCommand(c command) (*exec.Cmd, *bytes.Buffer) {
	cmd := exec.Command(c.Argv[0], c.Argv[1:]...)
	cmd.Env = c.Env
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	return cmd, &stderr
}

func describe(c command, err error, stderr *bytes.Buffer) error {
	return fmt.Errorf("%s: %w\n%s", strings.Join(c.Argv, " "), err, stderr)
}

// measure runs a command once. wait4(2) gives its CPU time, which Linux keeps in nanoseconds.
func measure(c command) (cost, error) {
	cmd, stderr := prepareCommand(c)
	began := time.Now()
	err := cmd.Run()
	wall := time.Since(began)
	if err != nil {
		return cost{}, describe(c, err, stderr)
	}
	return cost{CPU: cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(), Wall: wall}, nil
}

func output(c command) (string, error) {
	cmd, stderr := prepareCommand(c)
	out, err := cmd.Output()
	if err != nil {
		return "", describe(c, err, stderr)
	}
	return string(out), nil
}

// observed is the number of runs of a candidate for the figures that hardly vary.
const observed = 9

// measureAll lets the candidates take turns.
func (b *bench) measureAll() error {
	const warmUp = 3
	for round := -warmUp; round < b.rounds; round++ {
		progress("round %d of %d", round+1, b.rounds)
		for _, c := range b.candidates {
			if c.before != nil {
				if err := c.before(); err != nil {
					return err
				}
			}
			cost, err := measure(c.command)
			if err != nil {
				return err
			}
			if round >= 0 {
				c.figures.add(cost)
			}
		}
		// This candidate takes a hundred times as long and varies little.
		if round >= 0 && round%10 == 0 {
			if err := b.exporter.measure(); err != nil {
				return err
			}
		}
	}
	b.perf = map[string]string{syscallEvent: countable(syscallEvent), instructionEvent: countable(instructionEvent)}
	for _, c := range b.candidates {
		progress("%s: memory and system calls", c.name)
		if err := b.observe(c); err != nil {
			return err
		}
	}
	progress("")
	return b.exporter.observe(b.work)
}

// observe measures the figures for which another program runs the candidate. The CPU time of these runs does not count.
func (b *bench) observe(c *candidate) error {
	report := filepath.Join(b.work, "report")
	perf := func(event string) (int64, error) {
		text, err := around(c, report, "perf", "stat", "-x,", "-e", event, "-o", report, "--")
		if err != nil {
			return 0, err
		}
		n, ok := perfValue(text, event)
		if !ok {
			return 0, fmt.Errorf("perf stat printed no %s: %s", event, text)
		}
		return n, nil
	}
	for range observed {
		rss, err := largestRSS(c, report)
		if err != nil {
			return err
		}
		c.figures.rss = append(c.figures.rss, rss)

		var calls int64
		var text string
		if b.perf[syscallEvent] == "" {
			calls, err = perf(syscallEvent)
		} else if text, err = around(c, report, "/usr/bin/strace", "-f", "-qq", "-c", "-o", report, "--"); err == nil {
			calls, err = totalCalls(text)
		}
		if err != nil {
			return err
		}
		c.figures.syscalls = append(c.figures.syscalls, calls)
		if c.client {
			if text, err = around(c, report, "/usr/bin/strace", "-f", "-qq", "-yy", "-e", "trace=write,writev,sendto,sendmsg", "-o", report, "--"); err != nil {
				return err
			}
			c.figures.writes = append(c.figures.writes, int64(len(socketWrite.FindAllString(text, -1))))
		}
		if b.perf[instructionEvent] == "" {
			n, err := perf(instructionEvent)
			if err != nil {
				return err
			}
			c.figures.instructions = append(c.figures.instructions, n)
		}
	}
	return nil
}

// around runs a candidate under another program that writes a report.
func around(c *candidate, report string, wrapper ...string) (string, error) {
	if c.before != nil {
		if err := c.before(); err != nil {
			return "", err
		}
	}
	if _, err := measure(command{append(wrapper, c.command.Argv...), c.command.Env}); err != nil {
		return "", err
	}
	text, err := os.ReadFile(report)
	return string(text), err
}

// largestRSS is the peak memory of the largest process of a run, in bytes.
func largestRSS(c *candidate, report string) (int64, error) {
	// time(1) forks before it executes. A direct child shares the memory of this process until the exec (vfork), so it would
	// inherit the peak of this process (fs/exec.c, exec_mmap).
	text, err := around(c, report, "/usr/bin/time", "-f", "%M", "-o", report)
	if err != nil {
		return 0, err
	}
	kib, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("time: %w", err)
	}
	return kib << 10, nil
}

// socketWrite is strace's line of a write to a connected unix socket.
var socketWrite = regexp.MustCompile(`(?:write|writev|sendto|sendmsg)\(\d+<UNIX-STREAM:`)

// totalCalls reads the last line of strace -c: percent, seconds, µs per call, calls, errors, "total".
func totalCalls(summary string) (int64, error) {
	lines := strings.Split(strings.TrimSpace(summary), "\n")
	fields := strings.Fields(lines[len(lines)-1])
	if len(fields) < 5 || fields[len(fields)-1] != "total" {
		return 0, fmt.Errorf("strace -c ends in %q, not in a total", lines[len(lines)-1])
	}
	return strconv.ParseInt(fields[3], 10, 64)
}

// Events that perf counts, if it is installed and permitted. Unlike strace, perf does not slow the program down. A slower Go
// program makes more system calls, because its runtime waits more often.
const (
	syscallEvent     = "raw_syscalls:sys_enter"
	instructionEvent = "instructions:u"
)

// countable returns why perf(1) cannot count an event here, or "" if it can.
func countable(event string) string {
	out, err := exec.Command("perf", "stat", "-x,", "-e", event, "true").CombinedOutput()
	if errors.Is(err, exec.ErrNotFound) {
		return "perf is not installed"
	}
	if _, ok := perfValue(string(out), event); !ok {
		return "this machine does not let perf count them"
	}
	return ""
}

// perfValue reads a line of perf stat -x,: value, unit, event, ….
func perfValue(text, event string) (int64, bool) {
	for line := range strings.Lines(text) {
		if value, rest, ok := strings.Cut(line, ","); ok && strings.Contains(rest, event) {
			n, err := strconv.ParseInt(value, 10, 64)
			return n, err == nil
		}
	}
	return 0, false
}

// buildEmpty compiles an empty program, which is the least that every Go program costs.
func buildEmpty(work string) (string, error) {
	src := filepath.Join(work, "empty")
	if err := os.Mkdir(src, 0o755); err != nil {
		return "", err
	}
	for name, content := range map[string]string{"go.mod": "module empty\n\ngo 1.26\n", "main.go": "package main\n\nfunc main() {}\n"} {
		if err := os.WriteFile(filepath.Join(src, name), []byte(content), 0o644); err != nil {
			return "", err
		}
	}
	// This module is not in the workspace of go.work.
	if err := os.Setenv("GOWORK", "off"); err != nil {
		return "", err
	}
	defer os.Unsetenv("GOWORK")
	return workspace.Build(src, "empty")
}

// findProgram returns the last path that matches the pattern.
func findProgram(pattern string) (string, error) {
	found, err := filepath.Glob(pattern)
	if err != nil {
		return "", err
	}
	if len(found) == 0 {
		return "", fmt.Errorf("no %s: e2e/install-packages bench", pattern)
	}
	return found[len(found)-1], nil
}

func copyFile(from, to string) error {
	content, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, content, 0o644)
}

// size adds up the sizes of files.
func size(paths []string) int64 {
	var sum int64
	for _, path := range paths {
		if info, err := os.Stat(path); err == nil {
			sum += info.Size()
		}
	}
	return sum
}

// progress overwrites one line on a terminal. Elsewhere it prints nothing.
func progress(format string, args ...any) {
	if info, err := os.Stderr.Stat(); err == nil && info.Mode()&os.ModeCharDevice != 0 {
		fmt.Fprintf(os.Stderr, "\r\033[K"+format, args...)
	}
}

// processCPU returns the CPU time of a running process: clock_gettime(2) for the clock that clock_getcpuclockid(3) returns.
func processCPU(pid int) (time.Duration, error) {
	const schedClock = 2 // CPUCLOCK_SCHED, include/linux/posix-timers.h
	clock := uintptr(^pid<<3 | schedClock)
	var ts syscall.Timespec
	if err := clockGettime(clock, &ts); err != nil {
		return 0, fmt.Errorf("CPU clock of process %d: %w", pid, err)
	}
	return time.Duration(ts.Nano()), nil
}

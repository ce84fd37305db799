package nspawn

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"observability-hub/e2e/dependent"
)

// Machine is a running machine.
type Machine struct {
	t        testing.TB
	dir      string
	timeout  time.Duration
	process  *os.Process
	leader   int
	finished <-chan struct{} // closed when the supervisor has ended
	result   *Result
}

// supervise starts machine.sh, which gets SIGTERM when this process ends, however it ends.
func (m *Machine) supervise(cmd *exec.Cmd) error {
	output, err := os.Create(filepath.Join(m.dir, "supervisor"))
	if err != nil {
		return err
	}
	defer output.Close()
	cmd.Stdout, cmd.Stderr = output, output
	if m.finished, err = dependent.Start(cmd); err != nil {
		return err
	}
	m.process = cmd.Process
	return nil
}

// awaitScript waits until the script has begun and finds the machine's PID 1.
func (m *Machine) awaitScript() error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, err := os.Stat(filepath.Join(m.dir, "e2e/started")); err == nil {
			m.leader, err = leader(m.process.Pid)
			if err != nil && m.ended() {
				return nil // the script was short, and the result can be read
			}
			if err == nil || !errors.Is(err, errNoLeader) {
				return err
			}
		}
		select {
		case <-m.finished:
			if _, err := os.Stat(filepath.Join(m.dir, "e2e/started")); err == nil {
				return nil
			}
			return fmt.Errorf("it ended before its script began\n%s", m.remains())
		case <-tick.C:
		}
	}
}

func (m *Machine) ended() bool {
	select {
	case <-m.finished:
		return true
	default:
		return false
	}
}

var errNoLeader = errors.New("no PID 1 of a machine")

// leader finds the process number of the machine's PID 1 on the host, among the descendants of pid. It is the only process
// that is number 1 in the second nested PID namespace. The first one is that of machine.sh.
func leader(pid int) (int, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, errNoLeader
	}
	for line := range strings.Lines(string(status)) {
		numbers, found := strings.CutPrefix(line, "NSpid:")
		if fields := strings.Fields(numbers); found && len(fields) == 3 && fields[2] == "1" {
			return pid, nil
		}
	}
	children, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		return 0, err
	}
	for _, path := range children {
		list, _ := os.ReadFile(path) // a thread may end meanwhile
		for _, field := range strings.Fields(string(list)) {
			child, err := strconv.Atoi(field)
			if err != nil {
				return 0, fmt.Errorf("%s: %w", path, err)
			}
			if found, err := leader(child); err == nil || !errors.Is(err, errNoLeader) {
				return found, err
			}
		}
	}
	return 0, errNoLeader
}

// Command prepares a command that runs as root inside the machine, in none of its units, with the test's environment.
func (m *Machine) Command(name string, arguments ...string) *exec.Cmd {
	enter := []string{"--target", strconv.Itoa(m.leader), "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--", name}
	return exec.Command("nsenter", append(enter, arguments...)...)
}

// Reboot shuts the machine down in order, boots it again, and returns when its script has begun again.
func (m *Machine) Reboot() {
	m.t.Helper()
	m.again(func() error {
		if out, err := m.Command("systemctl", "exit", "0").CombinedOutput(); err != nil {
			return fmt.Errorf("%w\n%s", err, out)
		}
		return nil
	})
}

// CutPower kills all processes of the machine with SIGKILL, as if its power had failed, boots it again, and returns when its
// script has begun again. What processes have written to files is kept, because the kernel goes on.
func (m *Machine) CutPower() {
	m.t.Helper()
	m.again(func() error {
		// The death of PID 1 is the death of all processes of its namespace, see pid_namespaces(7).
		if err := syscall.Kill(m.leader, syscall.SIGKILL); err != nil {
			return err
		}
		for deadline := time.Now().Add(time.Minute); syscall.Kill(m.leader, 0) == nil; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				return errors.New("its processes do not end")
			}
			thaw(m.leader)
		}
		return nil
	})
}

// thaw continues the processes below pid that the freezer of cgroup v1 has stopped, such as those of a paused container. Until
// then they do not end, not even by SIGKILL.
func thaw(pid int) {
	children, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, path := range children {
		list, _ := os.ReadFile(path) // all of this may end meanwhile
		for _, field := range strings.Fields(string(list)) {
			child, err := strconv.Atoi(field)
			if err != nil {
				continue
			}
			cgroups, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", child))
			for line := range strings.Lines(string(cgroups)) {
				if _, cgroup, found := strings.Cut(strings.TrimSpace(line), ":freezer:"); found && cgroup != "/" {
					_ = os.WriteFile(filepath.Join("/sys/fs/cgroup/freezer", cgroup, "freezer.state"), []byte("THAWED"), 0)
				}
			}
			thaw(child)
		}
	}
}

// again ends the machine and waits for its next boot.
func (m *Machine) again(end func() error) {
	m.t.Helper()
	err := os.WriteFile(filepath.Join(m.dir, "again"), nil, 0o644)
	if err == nil {
		err = os.Remove(filepath.Join(m.dir, "e2e/started"))
	}
	if err == nil {
		err = end()
	}
	if err == nil {
		err = m.awaitScript()
	}
	if err != nil {
		m.t.Fatalf("boot the machine again: %v\n%s", err, m.remains())
	}
}

// Busy says whether a unit of the machine has a process. It asks the kernel from outside, so the machine does not notice.
func (m *Machine) Busy(unit string) bool {
	for cgroup := range strings.Lines(m.read("cgroups")) {
		// systemd-nspawn may have put a level between, for itself and for the machine.
		for _, between := range []string{"", "payload"} {
			content, _ := os.ReadFile(filepath.Join(strings.TrimSpace(cgroup), between, "system.slice", unit, "cgroup.procs"))
			if len(content) > 0 {
				return true
			}
		}
	}
	return false
}

// Stop shuts the machine down in order, without waiting for its script, and returns its result.
func (m *Machine) Stop() *Result {
	m.t.Helper()
	if out, err := m.Command("systemctl", "exit", "0").CombinedOutput(); err != nil && !m.ended() {
		m.t.Fatalf("stop the machine: %v\n%s", err, out)
	}
	return m.Wait()
}

// Wait waits until the machine has ended and returns its result.
func (m *Machine) Wait() *Result {
	m.t.Helper()
	if m.result != nil {
		return m.result
	}
	select {
	case <-m.finished:
	case <-time.After(m.timeout + time.Minute):
		// machine.sh enforces the limit. This is for the case that it hangs.
		remains := m.remains()
		m.kill()
		m.t.Fatalf("the machine could not be stopped after %v\n%s", m.timeout, remains)
	}
	result, err := m.collect()
	if err != nil {
		m.t.Fatalf("%v\n%s", err, m.remains())
	}
	m.result = result
	return result
}

func (m *Machine) collect() (*Result, error) {
	verdict := strings.TrimSpace(m.read("status"))
	if verdict == "limit" {
		return nil, fmt.Errorf("the machine did not end within %v", m.timeout)
	}
	status, err := strconv.Atoi(verdict)
	if err != nil {
		return nil, errors.New("the machine was killed")
	}
	journal, err := readJournal(filepath.Join(m.dir, "journal"))
	if err != nil {
		return nil, err
	}
	return &Result{
		Status:  status,
		Stdout:  m.read("e2e/stdout"),
		Stderr:  m.read("e2e/stderr"),
		Console: m.read("console"),
		Journal: journal,
		Dir:     filepath.Join(m.dir, "e2e"),
	}, nil
}

// kill ends the machine at once. It is idempotent.
func (m *Machine) kill() {
	if m.ended() {
		return
	}
	_ = m.process.Signal(syscall.SIGTERM) // it may end meanwhile
	<-m.finished
}

// remains describes a machine that failed.
func (m *Machine) remains() string {
	var text strings.Builder
	for _, name := range []string{"supervisor", "console", "e2e/stdout", "e2e/stderr"} {
		if content := m.read(name); content != "" {
			fmt.Fprintf(&text, "--- %s\n%s\n", name, tail(content, 100))
		}
	}
	if entries, err := readJournal(filepath.Join(m.dir, "journal")); err == nil {
		text.WriteString("--- journal\n")
		for _, entry := range entries[max(0, len(entries)-100):] {
			fmt.Fprintf(&text, "%s: %s\n", entry["SYSLOG_IDENTIFIER"], entry["MESSAGE"])
		}
	}
	return text.String()
}

// read returns the content of a file in the machine's directory, or nothing if the file does not exist.
func (m *Machine) read(name string) string {
	content, _ := os.ReadFile(filepath.Join(m.dir, name))
	return string(content)
}

// tail returns the last n lines.
func tail(text string, n int) string {
	lines := strings.SplitAfter(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "")
}

package nspawn

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// victimEnv makes the test binary boot a machine and wait to be killed.
const victimEnv = "NSPAWN_TEST_VICTIM"

func TestScript(t *testing.T) {
	shared := t.TempDir()
	result := Run(t, Config{
		Files: []File{
			{Path: "/etc/example/one", Content: "first\n"},
			{Path: "/usr/local/bin/two", Content: "#!/bin/sh\necho second\n", Mode: 0o755},
		},
		Binds: []Bind{{From: shared, To: "/shared"}},
		Disks: []Disk{{Path: "/data", MiB: 16}},
		Script: `
cat /etc/example/one
two
hostname
echo from inside >/shared/file
echo left >/e2e/left
systemd-run --quiet --wait --unit=speaks.service echo to the journal
stat --file-system --format=%T /data
df --output=size --block-size=M /data | tail -1 | tr -d ' '
systemctl is-enabled systemd-networkd.service || :
ls /sys/class/net
echo to stderr >&2
exit 42
`,
	})
	if want := "first\nsecond\ne2e\next2/ext3\n"; !strings.HasPrefix(result.Stdout, want) {
		t.Errorf("stdout begins with %q; want %q", result.Stdout, want)
	}
	if !strings.HasSuffix(result.Stdout, "\nlo\n") {
		t.Errorf("there are other network interfaces than lo: %q", result.Stdout)
	}
	if want := "to stderr\n"; !strings.HasSuffix(result.Stderr, want) {
		t.Errorf("stderr = %q; want it to end in %q", result.Stderr, want)
	}
	if result.Status != 42 {
		t.Errorf("status = %d; want 42", result.Status)
	}
	for path, want := range map[string]string{
		filepath.Join(shared, "file"):     "from inside\n",
		filepath.Join(result.Dir, "left"): "left\n",
	} {
		if content, err := os.ReadFile(path); string(content) != want {
			t.Errorf("%s holds %q, %v; want %q", path, content, err, want)
		}
	}
	if !slices.ContainsFunc(result.Journal, func(e Entry) bool {
		return e["_SYSTEMD_UNIT"] == "speaks.service" && e["MESSAGE"] == "to the journal" && e["PRIORITY"] == "6"
	}) {
		t.Errorf("the journal, of %d entries, has not what the unit wrote", len(result.Journal))
	}
	if left := traces(t, filepath.Base(filepath.Dir(result.Dir))); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

func TestCommandAndStop(t *testing.T) {
	m := Start(t, Config{})
	out, err := m.Command("systemctl", "show", "--property=ActiveState", "multi-user.target").CombinedOutput()
	if err != nil || string(out) != "ActiveState=active\n" {
		t.Errorf("systemctl show: %v, %s", err, out)
	}
	if result := m.Stop(); !strings.Contains(fmt.Sprint(result.Journal), "Reached target multi-user.target") {
		t.Error("the journal has no message about the boot")
	}
}

// TestAgain reboots a machine, and cuts its power. Files are kept, processes are not, and only a reboot stops units in order.
func TestAgain(t *testing.T) {
	m := Start(t, Config{})
	run := func(arguments ...string) string {
		t.Helper()
		out, err := m.Command(arguments[0], arguments[1:]...).CombinedOutput()
		if err != nil {
			t.Fatalf("%q: %v\n%s", arguments, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	for _, again := range []struct {
		name    string
		boot    func()
		stopped string
	}{{"reboot", m.Reboot, "stopped"}, {"power", m.CutPower, ""}} {
		id := run("cat", "/proc/sys/kernel/random/boot_id")
		run("systemd-run", "--quiet", "--unit="+again.name+".service", "--property=ExecStopPost=sh -c 'echo stopped >/"+again.name+"'", "sleep", "infinity")
		if !m.Busy(again.name + ".service") {
			t.Errorf("%s: the unit that runs is not busy", again.name)
		}
		run("touch", "/"+again.name)
		if again.name == "power" {
			freeze(t, m, again.name+".service")
		}
		again.boot()
		if got := run("cat", "/proc/sys/kernel/random/boot_id"); got == id {
			t.Errorf("%s: the machine has not booted again", again.name)
		}
		if m.Busy(again.name + ".service") {
			t.Errorf("%s: the unit still has a process", again.name)
		}
		if got := run("cat", "/"+again.name); got != again.stopped {
			t.Errorf("%s: the unit left %q; want %q", again.name, got, again.stopped)
		}
	}
	boots := map[string]bool{}
	for _, entry := range m.Stop().Journal {
		boots[entry["_BOOT_ID"]] = true
	}
	if len(boots) != 3 {
		t.Errorf("the journal has %d boots; want 3", len(boots))
	}
}

// freeze stops the processes of a unit by the freezer of cgroup v1, as Docker pauses a container. On a host without that freezer
// it does nothing: there, stopped processes can be killed.
func freeze(t *testing.T, m *Machine, unit string) {
	t.Helper()
	if _, err := os.Stat("/sys/fs/cgroup/freezer/tasks"); err != nil {
		return
	}
	cgroup := "/sys/fs/cgroup/freezer/" + filepath.Base(m.dir)
	if err := os.Mkdir(cgroup, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove(cgroup) })
	for line := range strings.Lines(m.read("cgroups")) {
		pids, _ := os.ReadFile(filepath.Join(strings.TrimSpace(line), "system.slice", unit, "cgroup.procs"))
		below, _ := os.ReadFile(filepath.Join(strings.TrimSpace(line), "payload", "system.slice", unit, "cgroup.procs"))
		for _, pid := range strings.Fields(string(pids) + string(below)) {
			if err := os.WriteFile(filepath.Join(cgroup, "cgroup.procs"), []byte(pid), 0); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := os.WriteFile(filepath.Join(cgroup, "freezer.state"), []byte("FROZEN"), 0); err != nil {
		t.Fatal(err)
	}
	if frozen, err := os.ReadFile(filepath.Join(cgroup, "cgroup.procs")); err != nil || len(frozen) == 0 {
		t.Errorf("no process of %s is frozen: %v", unit, err)
	}
}

// TestApart runs two machines at once. Each has its own processes and journal.
func TestApart(t *testing.T) {
	a, b := Start(t, Config{}), Start(t, Config{})
	for _, m := range []*Machine{a, b} {
		// If a service manager saw the cgroups of the other machine, it would kill the processes in them.
		if out, err := m.Command("systemd-run", "--quiet", "--unit=same.service", "sleep", "infinity").CombinedOutput(); err != nil {
			t.Fatalf("systemd-run: %v\n%s", err, out)
		}
	}
	if out, err := a.Command("systemctl", "stop", "same.service").CombinedOutput(); err != nil {
		t.Errorf("stop the unit in one machine: %v\n%s", err, out)
	}
	if out, err := b.Command("systemctl", "is-active", "same.service").CombinedOutput(); err != nil {
		t.Errorf("the unit of that name in the other: %v, %s", err, out)
	}
	a.Stop()
	b.Stop()
}

// TestVictim is the process that TestKilled kills.
func TestVictim(t *testing.T) {
	if os.Getenv(victimEnv) == "" {
		return
	}
	m := Start(t, Config{Disks: []Disk{{Path: "/data", MiB: 16}}})
	fmt.Println(m.dir)
	m.Wait()
}

func TestKilled(t *testing.T) {
	for _, signal := range []syscall.Signal{syscall.SIGKILL, syscall.SIGINT} {
		t.Run(signal.String(), func(t *testing.T) {
			victim := exec.Command(os.Args[0], "-test.run=^TestVictim$")
			victim.Env = append(os.Environ(), victimEnv+"=1")
			stdout, err := victim.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := victim.Start(); err != nil {
				t.Fatal(err)
			}
			dir, err := bufio.NewReader(stdout).ReadString('\n')
			if err != nil {
				t.Fatal(err)
			}
			dir = strings.TrimSpace(dir)
			if len(traces(t, filepath.Base(dir))) == 0 {
				t.Error("the running machine leaves no trace: there is nothing to compare with")
			}
			if err := victim.Process.Signal(signal); err != nil {
				t.Fatal(err)
			}
			_ = victim.Wait() // it died of the signal
			// The supervisor needs a moment to notice that.
			deadline := time.After(30 * time.Second)
			tick := time.NewTicker(20 * time.Millisecond)
			defer tick.Stop()
			for {
				left := traces(t, filepath.Base(dir))
				_, err := os.Stat(dir)
				if len(left) == 0 && os.IsNotExist(err) {
					return
				}
				select {
				case <-deadline:
					t.Fatalf("left behind: %q; %s: %v", left, dir, err)
				case <-tick.C:
				}
			}
		})
	}
}

// traces lists what the machine of that name has on the host: processes, mounts, loop devices, cgroups and directories of
// systemd-nspawn.
func traces(t *testing.T, machine string) []string {
	t.Helper()
	var found []string
	for pattern, what := range map[string]string{
		"/proc/[0-9]*/cmdline":                    "process",
		"/proc/self/mounts":                       "mount",
		"/sys/block/loop*/loop/backing_file":      "loop device",
		"/sys/fs/cgroup/" + machine:               "cgroup",
		"/sys/fs/cgroup/*/" + machine:             "cgroup",
		"/run/systemd/nspawn/*/*" + machine + "*": "directory",
	} {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			content, _ := os.ReadFile(path) // a process may have ended
			for line := range strings.Lines(path + "\n" + string(content)) {
				if strings.Contains(line, machine) {
					found = append(found, what+" "+strings.ReplaceAll(line, "\x00", " "))
				}
			}
		}
	}
	return found
}

package volbackup

import (
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"observability-hub/e2e/nspawn"
)

//go:embed testdata/unit.sh
var unitScript string

//go:embed testdata/power.sh
var powerScript string

// cgroups lets the machine's Docker make cgroups: systemd-nspawn shows those that are not the machine's own read-only.
const cgroups = `[Service]
ExecStartPre=/bin/bash -c "findmnt --noheadings --list --output TARGET --types cgroup,tmpfs,cgroup2 | grep ^/sys/fs/cgroup | sort | xargs -n 1 mount -o remount,bind,rw"
`

// dockerMachine boots a machine with Debian's own Docker and volbackup, and fails the test if the script does.
func dockerMachine(t *testing.T, script string, files ...nspawn.File) *nspawn.Result {
	t.Helper()
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatal(err)
	}
	// The machine's containers have cgroups of the host, where their hierarchies are not its own.
	parent := fmt.Sprintf("hub-unit-%d", os.Getpid())
	t.Cleanup(func() {
		_ = exec.Command("find", "/sys/fs/cgroup", "-depth", "-type", "d", "(", "-path", "*/"+parent, "-o", "-path", "*/"+parent+"/*", ")", "-exec", "rmdir", "{}", "+").Run()
	})
	result := nspawn.Run(t, nspawn.Config{
		Packages: []string{"docker.io", "jq"},
		Tools:    []string{"volbackup"},
		Binds:    []nspawn.Bind{{From: busybox, To: "/busybox", ReadOnly: true}},
		Files: append(files, nspawn.File{Path: "/etc/docker/daemon.json", Content: `{
  "bridge": "none", "iptables": false, "ip6tables": false, "ip-forward": false, "ip-masq": false, "storage-driver": "vfs",
  "exec-opts": ["native.cgroupdriver=cgroupfs"], "cgroup-parent": "/` + parent + `"
}
`}),
		// What a daemon needs to make containers, which systemd-nspawn withholds.
		Options: []string{"--capability=all", "--system-call-filter=add_key keyctl bpf"},
		Script:  script,
		Timeout: 5 * time.Minute,
	})
	if result.Status != 0 {
		t.Errorf("exit status %d\nstdout: %s\nstderr: %s", result.Status, result.Stdout, result.Stderr)
		for _, e := range result.Journal {
			if e["SYSLOG_IDENTIFIER"] != "systemd" {
				t.Logf("%s: %.400s", e["SYSLOG_IDENTIFIER"], e["MESSAGE"])
			}
		}
	}
	return result
}

// TestDockerUnit runs the unit as it is installed, as User=server in its whole sandbox, beside Debian's own Docker
// daemon in a booted machine.
func TestDockerUnit(t *testing.T) {
	result := dockerMachine(t, unitScript)
	for line := range strings.Lines(result.Stdout) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "ok "); ok {
			t.Log(name)
		}
	}
}

// TestDockerPowerLoss cuts the power of a machine in the middle of a backup: after the next boot all containers run.
func TestDockerPowerLoss(t *testing.T) {
	result := dockerMachine(t, powerScript, nspawn.File{Path: "/etc/systemd/system/docker.service.d/cgroups.conf", Content: cgroups})
	log, err := os.ReadFile(filepath.Join(result.Dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s", log)
	if !strings.Contains(string(log), "ok after the power failure") {
		t.Error("the machine did not come as far as its second boot's end")
	}
}

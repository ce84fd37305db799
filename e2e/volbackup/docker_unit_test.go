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

// cgroups is a drop-in that lets Docker in the machine create cgroups. systemd-nspawn mounts read-only the cgroup hierarchies
// that do not belong to the machine.
const cgroups = `[Service]
ExecStartPre=/bin/bash -c "findmnt --noheadings --list --output TARGET --types cgroup,tmpfs,cgroup2 | grep ^/sys/fs/cgroup | sort | xargs -n 1 mount -o remount,bind,rw"
`

// dockerMachine boots a machine with Debian's Docker and volbackup, and fails the test if the script fails.
func dockerMachine(t *testing.T, script string, files ...nspawn.File) *nspawn.Result {
	t.Helper()
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatal(err)
	}
	// In hierarchies that do not belong to the machine, its containers use cgroups of the host. Remove them after the test.
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
		// The Docker daemon needs these permissions to create containers. systemd-nspawn withholds them by default.
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

// TestDockerUnit runs the installed unit in a booted machine with Debian's Docker daemon, as User=server in its complete
// sandbox.
func TestDockerUnit(t *testing.T) {
	result := dockerMachine(t, unitScript)
	for line := range strings.Lines(result.Stdout) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "ok "); ok {
			t.Log(name)
		}
	}
}

// TestDockerPowerLoss simulates a power failure in the middle of a backup. After the next boot all containers run.
func TestDockerPowerLoss(t *testing.T) {
	result := dockerMachine(t, powerScript, nspawn.File{Path: "/etc/systemd/system/docker.service.d/cgroups.conf", Content: cgroups})
	log, err := os.ReadFile(filepath.Join(result.Dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s", log)
	if !strings.Contains(string(log), "ok after the power failure") {
		t.Error("the script did not reach its end after the second boot")
	}
}

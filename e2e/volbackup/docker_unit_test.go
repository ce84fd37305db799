package volbackup

import (
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"observability-hub/e2e/nspawn"
)

//go:embed testdata/unit.sh
var unitScript string

// TestDockerUnit runs the unit as it is installed, as User=server in its whole sandbox, beside Debian's own Docker
// daemon in a booted machine.
func TestDockerUnit(t *testing.T) {
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
		Files: []nspawn.File{{Path: "/etc/docker/daemon.json", Content: `{
  "bridge": "none", "iptables": false, "ip6tables": false, "ip-forward": false, "ip-masq": false, "storage-driver": "vfs",
  "exec-opts": ["native.cgroupdriver=cgroupfs"], "cgroup-parent": "/` + parent + `"
}
`}},
		// What a daemon needs to make containers, which systemd-nspawn withholds.
		Options: []string{"--capability=all", "--system-call-filter=add_key keyctl bpf"},
		Script:  unitScript,
		Timeout: 5 * time.Minute,
	})
	for line := range strings.Lines(result.Stdout) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "ok "); ok {
			t.Log(name)
		}
	}
	if result.Status != 0 {
		t.Errorf("exit status %d\nstdout: %s\nstderr: %s", result.Status, result.Stdout, result.Stderr)
		for _, e := range result.Journal {
			if e["SYSLOG_IDENTIFIER"] != "systemd" {
				t.Logf("%s: %.400s", e["SYSLOG_IDENTIFIER"], e["MESSAGE"])
			}
		}
	}
}

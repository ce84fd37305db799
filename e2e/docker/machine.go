package docker

import (
	"crypto/rand"
	"os/exec"
	"slices"
	"testing"

	"observability-hub/e2e/nspawn"
)

// machinePackages are those of all machines with Docker, which share one root.
var machinePackages = []string{"docker.io", "git", "jq"}

// cgroups is a drop-in that lets Docker in a machine create cgroups. systemd-nspawn mounts read-only the cgroup hierarchies
// that do not belong to the machine.
const cgroups = `[Service]
ExecStartPre=/bin/bash -c "findmnt --noheadings --list --output TARGET --types cgroup,tmpfs,cgroup2 | grep ^/sys/fs/cgroup | sort | xargs -n 1 mount -o remount,bind,rw"
`

// makeImage is a program that makes Image, once docker.service runs.
const makeImage = `#!/bin/bash
set -euo pipefail
mkdir -p /image/bin
cp /busybox /image/bin/busybox
/image/bin/busybox --install /image/bin
tar -C /image -c . | docker import --change 'ENV PATH=/bin' - busybox >/dev/null
`

// Machine adds Debian's Docker to a machine. docker.service starts when the machine boots; the program make-image makes Image.
func Machine(tb testing.TB, config nspawn.Config) nspawn.Config {
	tb.Helper()
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		tb.Fatal(err)
	}
	// In hierarchies that do not belong to the machine, its containers use cgroups of the host. Remove them after the test.
	parent := "hub-unit-" + rand.Text()
	tb.Cleanup(func() {
		_ = exec.Command("find", "/sys/fs/cgroup", "-depth", "-type", "d", "(", "-path", "*/"+parent, "-o", "-path", "*/"+parent+"/*", ")", "-exec", "rmdir", "{}", "+").Run()
	})
	config.Packages = slices.Concat(config.Packages, machinePackages)
	if config.Suite == nspawn.Trixie {
		config.Packages = append(config.Packages, "docker-cli") // before Debian 13 it was a part of docker.io
	}
	config.Binds = append(config.Binds, nspawn.Bind{From: busybox, To: "/busybox", ReadOnly: true})
	config.Files = append(config.Files,
		nspawn.File{Path: "/etc/docker/daemon.json", Content: `{
  "bridge": "none", "iptables": false, "ip6tables": false, "ip-forward": false, "ip-masq": false, "storage-driver": "vfs",
  "exec-opts": ["native.cgroupdriver=cgroupfs"], "cgroup-parent": "/` + parent + `"
}
`},
		nspawn.File{Path: "/etc/systemd/system/docker.service.d/cgroups.conf", Content: cgroups},
		nspawn.File{Path: "/usr/local/bin/make-image", Content: makeImage, Mode: 0o755})
	// The Docker daemon needs these permissions to create containers. systemd-nspawn withholds them by default.
	config.Options = append(config.Options, "--capability=all", "--system-call-filter=add_key keyctl bpf")
	return config
}

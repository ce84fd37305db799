package docker

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// A daemon runs containers, and nothing of the daemon or the containers is left after it.
func TestRun(t *testing.T) {
	d, err := New()
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	d.Docker(t, "run", "--detach", "--name", "one", "--volume", "vol:/data", Image, "sleep", "1000")
	if got := d.State(t, "one"); got != "running" {
		t.Errorf("the container is %s; want running", got)
	}
	if got := d.State(t, "two"); got != "gone" {
		t.Errorf("a container that never was is %s; want gone", got)
	}
	if _, err := os.Stat(d.Volume("vol")); err != nil {
		t.Error(err)
	}
	// Frozen processes do not die of SIGKILL.
	d.Docker(t, "pause", "one")
	d.Close()
	if left, err := exec.Command("find", "/sys/fs/cgroup", "-name", filepath.Base(d.Dir)).Output(); err != nil || len(left) > 0 {
		t.Errorf("cgroups are left: %s, %v", left, err)
	}
	if _, err := os.Stat(d.Dir); !os.IsNotExist(err) {
		t.Errorf("the daemon's directory: %v; want it to be removed", err)
	}
}

package volbackup

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// If a container does not start again, the backup is kept and the problem is reported. resume starts the container when that
// is possible.
func TestDockerNotResumed(t *testing.T) {
	h := newDockerHost(t)
	h.Docker(t, "volume", "create", "vol")
	bound := filepath.Join(h.dir, "bound")
	if err := os.Mkdir(bound, 0o755); err != nil {
		t.Fatal(err)
	}
	h.container(t, "one", "--volume", "vol:/data", "--mount", "type=bind,source="+bound+",target=/bound")
	if err := os.Remove(bound); err != nil {
		t.Fatal(err)
	}
	status, stdout, stderr := h.try(t, "volbackup run vol")
	if status != 0 || !strings.Contains(stdout, `"outcome":"stored"`) || !strings.Contains(stderr, "container one does not start again") {
		t.Errorf("exit status %d; want 0 and a message about the container\nstdout: %s\nstderr: %s", status, stdout, stderr)
	}
	if status, _, stderr := h.try(t, "manage_volume.sh resume"); status != 69 {
		t.Errorf("resume: exit status %d; want 69\n%s", status, stderr)
	}
	if err := os.Mkdir(bound, 0o755); err != nil {
		t.Fatal(err)
	}
	h.must(t, "manage_volume.sh resume")
	if state := h.State(t, "one"); state != "running" {
		t.Errorf("the container is %s", state)
	}
}

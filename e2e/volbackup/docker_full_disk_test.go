package volbackup

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestDockerFullDisk fills each disk that a backup or a restore writes to. Existing archives and volumes are unchanged, and
// the containers run.
func TestDockerFullDisk(t *testing.T) {
	h := newDockerHost(t)
	h.Docker(t, "volume", "create", "vol")
	h.container(t, "one", "--volume", "vol:/data")
	fill := func(path string) {
		t.Helper()
		_ = os.WriteFile(filepath.Join(path, "filler"), make([]byte, 4<<20), 0o600) // until the disk is full
	}
	put := func(path string, size int) {
		t.Helper()
		content := make([]byte, size)
		_, _ = rand.NewChaCha8([32]byte{}).Read(content)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	running := func(t *testing.T) {
		t.Helper()
		if state := h.State(t, "one"); state != "running" {
			t.Errorf("the container is %s", state)
		}
	}
	put(filepath.Join(h.Volume("vol"), "file"), 500<<10)

	t.Run("repository", func(t *testing.T) {
		repo := filepath.Join(h.dir, "small-repo")
		small(t, repo, 2<<20)
		with := "VOLBACKUP_REPO=" + repo + " "
		h.must(t, with+"volbackup run vol")
		put(filepath.Join(h.Volume("vol"), "file"), 3<<20)
		status, _, stderr := h.try(t, with+"volbackup run vol")
		if status != 73 {
			t.Errorf("exit status %d; want 73\n%s", status, stderr)
		}
		running(t)
		if out := h.must(t, with+"volbackup verify --deep && "+with+"volbackup list"); strings.Count(out, `"msg":"archive"`) != 1 {
			t.Errorf("want only the archive from before: %s", out)
		}
	})
	t.Run("journal", func(t *testing.T) {
		state := filepath.Join(h.dir, "small-state")
		small(t, state, 2<<20)
		fill(state)
		started := h.Docker(t, "inspect", "--format", "{{.State.StartedAt}}", "one")
		status, stdout, stderr := h.try(t, "manage_volume.sh --state-dir "+state+" export vol")
		if status != 73 || stdout != "" {
			t.Errorf("exit status %d, %d bytes on stdout; want 73 and no bytes\n%s", status, len(stdout), stderr)
		}
		if now := h.Docker(t, "inspect", "--format", "{{.State.StartedAt}}", "one"); now != started {
			t.Error("the container was stopped although the journal could not be written")
		}
	})
	t.Run("tmp", func(t *testing.T) {
		tmp := filepath.Join(h.dir, "small-tmp")
		small(t, tmp, 2<<20)
		fill(tmp)
		h.must(t, "export TMPDIR="+tmp+"; volbackup run vol && volbackup cat vol | manage_volume.sh import --stop vol")
		running(t)
	})
	t.Run("volume", func(t *testing.T) {
		// The daemon has its own mount namespace and does not see this mount. The script sees it.
		dir := filepath.Dir(h.Volume("vol"))
		h.must(t, "manage_volume.sh export vol >vol.tar")
		small(t, dir, 2<<20)
		if err := os.Mkdir(h.Volume("vol"), 0o700); err != nil {
			t.Fatal(err)
		}
		put(filepath.Join(h.Volume("vol"), "old"), 1000)
		want := tree(t, h.Volume("vol"))
		status, _, stderr := h.try(t, "manage_volume.sh import --stop vol <vol.tar")
		if status != 73 || !strings.Contains(stderr, "hint") {
			t.Errorf("exit status %d; want 73 with a hint\n%s", status, stderr)
		}
		wantSameTree(t, tree(t, h.Volume("vol")), want)
		if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
			t.Errorf("the directory of the volume has %v, %v; want only _data", left, err)
		}
		running(t)
	})
}

package volbackup

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"observability-hub/e2e/await"
)

// A volume is not read again if no inode changed. It is read if an inode changed, even if the file has its old length and
// modification time.
func TestDockerUnchanged(t *testing.T) {
	h := newDockerHost(t)
	h.Docker(t, "volume", "create", "data")
	h.container(t, "one", "--volume", "data:/data")
	// A wrapper records each call of tar.
	calls := filepath.Join(h.dir, "calls")
	wrapper := "#!/bin/sh\necho \"$*\" >>" + calls + "\nexec /usr/bin/tar \"$@\"\n"
	if err := os.WriteFile(filepath.Join(h.dir, "bin", "tar"), []byte(wrapper), 0o755); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(h.Volume("data"), "file")
	then := time.Unix(1_000_000_000, 0)
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(file, then, then); err != nil {
			t.Fatal(err)
		}
	}
	settle := func() {
		t.Helper()
		await.Until(t, "the last change is older than two seconds", func() bool {
			var st unix.Stat_t
			if err := unix.Stat(file, &st); err != nil {
				t.Fatal(err)
			}
			return time.Since(time.Unix(st.Ctim.Unix())) > 2*time.Second
		})
	}
	// backUp runs volbackup and returns the outcome, and whether the volume was read.
	backUp := func(flags string) (outcome string, read bool) {
		t.Helper()
		if err := os.WriteFile(calls, nil, 0o644); err != nil {
			t.Fatal(err)
		}
		out := h.must(t, "volbackup run "+flags+" | jq -r 'select(.msg == \"backed_up\").outcome'")
		got, err := os.ReadFile(calls)
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(out), strings.Contains(string(got), "--create")
	}

	write("one")
	settle()
	for _, step := range []struct {
		name, text, flags, outcome string
		read                       bool
	}{
		{"first backup", "", "", "stored", true},
		{"unchanged", "", "", "unchanged", false},
		{"unchanged, with --reread", "", "--reread", "unchanged", true},
		{"unchanged after --reread", "", "", "unchanged", false},
		{"new content with the same length and times", "two", "", "stored", true},
		{"unchanged after the new content", "", "", "unchanged", false},
		{"the same content, written again", "two", "", "unchanged", true},
		{"unchanged after it was written again", "", "", "unchanged", false},
	} {
		if step.text != "" {
			write(step.text)
			settle()
		}
		if outcome, read := backUp(step.flags); outcome != step.outcome || read != step.read {
			t.Errorf("%s: %s, read %v; want %s, %v", step.name, outcome, read, step.outcome, step.read)
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if got := h.must(t, "volbackup cat data | tar --extract --to-stdout ./file"); got != string(want) {
			t.Errorf("%s: the newest archive has %q, the volume %q", step.name, got, want)
		}
		if state := h.State(t, "one"); state != "running" {
			t.Errorf("%s: the container is %s", step.name, state)
		}
	}
	h.must(t, "volbackup verify --deep")
	// If the archive of an unchanged volume is damaged, the volume is read, whether a container runs or not.
	for _, container := range []string{"running", "stopped"} {
		if container == "stopped" {
			h.Docker(t, "stop", "--time", "0", "one")
		}
		h.must(t, `for f in "$VOLBACKUP_REPO"/data/*.zst; do printf damaged | dd of="$f" bs=1 seek=20 conv=notrunc status=none; done`)
		if outcome, read := backUp(""); outcome != "stored" || !read {
			t.Errorf("the archive is damaged, the container is %s: %s, read %v; want stored, true", container, outcome, read)
		}
		h.must(t, "volbackup verify --deep data@"+h.must(t, "volbackup list data | tail -n 1 | jq -rj .id"))
	}
}

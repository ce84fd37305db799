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

// A volume of which no inode changed is not read again; one of which an inode changed is, whatever its length and
// times say.
func TestDockerUnchanged(t *testing.T) {
	h := newDockerHost(t)
	h.Docker(t, "volume", "create", "data")
	h.container(t, "one", "--volume", "data:/data")
	// Whoever starts tar leaves a word.
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
		await.Until(t, "the last change is older than the clock is coarse", func() bool {
			var st unix.Stat_t
			if err := unix.Stat(file, &st); err != nil {
				t.Fatal(err)
			}
			return time.Since(time.Unix(st.Ctim.Unix())) > 2*time.Second
		})
	}
	// backUp runs volbackup and tells how it went, and whether the volume was read.
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
		{"the first", "", "", "stored", true},
		{"nothing changed", "", "", "unchanged", false},
		{"nothing changed, but it is to be read", "", "--reread", "unchanged", true},
		{"nothing changed since it was read again", "", "", "unchanged", false},
		{"the same length and times", "two", "", "stored", true},
		{"nothing changed since", "", "", "unchanged", false},
		{"the same content, written again", "two", "", "unchanged", true},
		{"nothing changed since that", "", "", "unchanged", false},
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
	// An unchanged volume whose archive is damaged is read after all, whether a container runs or not.
	for _, container := range []string{"running", "stopped"} {
		if container == "stopped" {
			h.Docker(t, "stop", "--time", "0", "one")
		}
		h.must(t, `for f in "$VOLBACKUP_REPO"/data/*.zst; do printf damaged | dd of="$f" bs=1 seek=20 conv=notrunc status=none; done`)
		if outcome, read := backUp(""); outcome != "stored" || !read {
			t.Errorf("the archive is damaged, the container is %s: %s, read %v; want stored", container, outcome, read)
		}
		h.must(t, "volbackup verify --deep data@"+h.must(t, "volbackup list data | tail -n 1 | jq -rj .id"))
	}
}

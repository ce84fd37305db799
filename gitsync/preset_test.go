package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

func TestPresets(t *testing.T) {
	p := parsePreset([]byte("# c\nenable a*.timer\n; c\ndisable a.service\nenable t@.service one two\nignore x\nenable\nenable [!z]b.service\ndisable *b.service\n"))
	for unit, want := range map[string]bool{"a.timer": true, "abc.timer": true, "a.service": false, "other.service": true, "t@.service": true, "xb.service": true, "zb.service": false} {
		if got := p.enabled(unit); got != want {
			t.Errorf("enabled(%s) = %v", unit, got)
		}
	}
	if got := p.instances("t@.service"); len(got) != 2 || got[0] != "t@one.service" {
		t.Errorf("instances = %q", got)
	}
}

// What this package expects of presets is what systemctl preset does.
func TestPresetsAreSystemds(t *testing.T) {
	root := t.TempDir()
	write := func(path, content string) {
		t.Helper()
		path = filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	// A file of the same name in /etc hides the other; names decide the order, not folders.
	write("etc/systemd/system-preset/50-a.preset", "disable hidden*\nenable x[!1].timer\n")
	write("usr/local/lib/systemd/system-preset/50-a.preset", "enable hidden*\n")
	write("usr/lib/systemd/system-preset/40-b.preset", "enable early.timer\ndisable x1.timer\n")
	write("usr/local/lib/systemd/system-preset/60-c.preset", "disable early.timer\ndisable late*\n")
	units := []string{"hidden.timer", "early.timer", "late.timer", "x1.timer", "x2.timer", "none.timer"}
	for _, u := range units {
		write("etc/systemd/system/"+u, "[Timer]\nOnCalendar=daily\n[Install]\nWantedBy=timers.target\n")
	}
	h := host{root: root}
	p, err := readPresets(h, &desired{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range units {
		if out, err := exec.Command("systemctl", "--root="+root, "preset", u).CombinedOutput(); err != nil {
			t.Fatalf("systemctl preset: %v\n%s", err, out)
		}
		links, err := readEnablement(h)
		if err != nil {
			t.Fatal(err)
		}
		if systemds := len(links.of(u)) > 0; systemds != p.enabled(u) {
			t.Errorf("%s: systemctl preset enables it: %v; expected %v", u, systemds, p.enabled(u))
		}
	}
}

func FuzzParsePreset(f *testing.F) {
	f.Add([]byte("enable a@.service b\ndisable *\nenable ["))
	f.Fuzz(func(t *testing.T, b []byte) {
		p := parsePreset(b)
		p.enabled("a.service")
		p.instances("a@.service")
	})
}

package main

import (
	"os"
	"path/filepath"
	"testing"
)

// No link leads out of another root.
func TestResolve(t *testing.T) {
	root := t.TempDir()
	for link, target := range map[string]string{"abs": "/real", "up": "../../../../../real", "rel": "abs", "loop": "loop", "dir/in": "../abs/x"} {
		path := filepath.Join(root, link)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(target, path); err != nil {
			t.Fatal(err)
		}
	}
	h := host{root: root}
	for p, want := range map[string]string{"/abs/a": "/real/a", "/up": "/real", "/rel/../x": "/x", "/dir/in": "/real/x", "/not/there": "/not/there", "/../../etc": "/etc", "/": "/"} {
		got, err := h.resolve(p)
		if err != nil || got != filepath.Join(root, want) {
			t.Errorf("resolve(%s) = %s, %v; want %s below the root", p, got, err, want)
		}
	}
	if got, err := h.resolve("/loop/x"); err == nil {
		t.Errorf("resolve of a loop = %s", got)
	}
}

// A file is restored whatever step of its replacement was the last.
func TestRestore(t *testing.T) {
	const p = "/etc/systemd/system/a.service"
	for _, tc := range []struct {
		name            string
		was             bool
		now, fresh, old string
	}{
		{"nothing happened", true, "old", "", ""},
		{"staged", true, "old", "new", ""},
		{"linked", true, "old", "new", "="},
		{"replaced", true, "new", "", "old"},
		{"replaced, the old file lost", true, "new", "", ""},
		{"removed", true, "", "", "old"},
		{"removed, the old file torn", true, "", "", "ol"},
		{"new file staged", false, "", "new", ""},
		{"new file installed", false, "new", "", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h := host{root: t.TempDir()}
			real, err := h.real(p)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.MkdirAll(filepath.Dir(real), 0o755); err != nil {
				t.Fatal(err)
			}
			saved := savedFile{Path: p}
			if tc.was {
				saved = savedFile{p, "file", 0o644, uint32(os.Getuid()), uint32(os.Getgid()), []byte("old"), sum([]byte("old"))}
			}
			for path, content := range map[string]string{p: tc.now, beside(p, newPrefix): tc.fresh, beside(p, oldPrefix): tc.old} {
				switch content {
				case "":
				case "=": // linked below, after the file is written
				default:
					if err := os.WriteFile(filepath.Join(h.root, path), []byte(content), 0o644); err != nil {
						t.Fatal(err)
					}
				}
			}
			if tc.old == "=" {
				if err := os.Link(real, filepath.Join(h.root, beside(p, oldPrefix))); err != nil {
					t.Fatal(err)
				}
			}
			for try := range 2 { // restore can be repeated
				if err := saved.restore(h); err != nil {
					t.Fatal(err)
				}
				is, err := h.state(p)
				if err != nil || is.kind != saved.Kind || is.sum != saved.Sum {
					t.Errorf("restored %d times, it is %+v, %v", try+1, is, err)
				}
				entries, err := os.ReadDir(filepath.Dir(real))
				if err != nil || len(entries) > 1 {
					t.Errorf("left over: %v, %v", entries, err)
				}
			}
		})
	}
}

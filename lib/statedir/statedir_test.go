package statedir

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"observability-hub/lib/sysexits"
)

func open(t *testing.T, path string) *Dir {
	t.Helper()
	d, err := Open(context.Background(), path, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func TestResolve(t *testing.T) {
	for _, tc := range []struct{ flag, systemd, xdg, home, want string }{
		{"/flag", "/systemd", "/xdg", "/home/u", "/flag"},
		{"", "/systemd", "/xdg", "/home/u", "/systemd"},
		{"", "/systemd:/second", "/xdg", "/home/u", "/systemd"},
		{"", "", "/xdg", "/home/u", "/xdg/family"},
		{"", "", "", "/home/u", "/home/u/.local/state/family"},
	} {
		t.Setenv("STATE_DIRECTORY", tc.systemd)
		t.Setenv("XDG_STATE_HOME", tc.xdg)
		t.Setenv("HOME", tc.home)
		if got, err := Resolve(tc.flag, "family"); got != tc.want || err != nil {
			t.Errorf("Resolve(%+v) = %q, %v; want %q", tc, got, err, tc.want)
		}
	}
	t.Setenv("HOME", "")
	if _, err := Resolve("", "family"); sysexits.Code(err) != sysexits.Config {
		t.Errorf("Resolve without a home: %v; want status 78", err)
	}
}

func TestOneRunAtATime(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a", "b")
	first := open(t, path)
	if _, err := Open(context.Background(), path, 0); sysexits.Code(err) != sysexits.TempFail {
		t.Fatalf("second Open = %v; want status 75", err)
	}
	waited := make(chan error)
	go func() {
		d, err := Open(context.Background(), path, time.Minute)
		if err == nil {
			err = d.Close()
		}
		waited <- err
	}()
	first.Close()
	if err := <-waited; err != nil {
		t.Errorf("Open that waits = %v; want the lock once it is free", err)
	}
}

func TestWriteFileReplaces(t *testing.T) {
	d := open(t, t.TempDir())
	for _, content := range []string{"one", "two"} {
		if err := d.WriteFile("f", []byte(content)); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(d.Join("f")); string(got) != content || err != nil {
			t.Errorf("file = %q, %v; want %q", got, err, content)
		}
	}
	if names, _ := filepath.Glob(d.Join(".*")); len(names) > 0 {
		t.Errorf("left behind: %v", names)
	}
}

// What a killed write left goes; what else begins with a dot may be the user's.
func TestOpenClearsInterruptedWrites(t *testing.T) {
	path := t.TempDir()
	files := map[string]bool{ // and whether they stay
		".counters5077205623554730037": false, ".spool.jsonl807205623554730": false,
		"counters": true, ".bashrc": true, ".pgpass": true, ".X0-lock": true, ".env2024": true,
		"5077205623554730037": true,
	}
	for name := range files {
		if err := os.WriteFile(filepath.Join(path, name), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(path, ".folder5077205623554730037"), 0o700); err != nil {
		t.Fatal(err)
	}
	files[".folder5077205623554730037"] = true
	d := open(t, path)
	for name, stays := range files {
		if _, err := os.Lstat(d.Join(name)); (err == nil) != stays {
			t.Errorf("%s is there: %v; want %v", name, err == nil, stays)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{file, filepath.Join(file, "below")} {
		if _, err := Open(context.Background(), path, 0); sysexits.Code(err) != sysexits.CantCreate {
			t.Errorf("Open(%s) = %v; want status 73", path, err)
		}
	}
}

package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"observability-hub/lib/cli"
)

// commands has a repository, a host's root and a state directory. Commands run in
// this process with the real git.
type commands struct {
	t     *testing.T
	dir   string
	state string
}

func newCommands(t *testing.T) *commands {
	t.Helper()
	w := &commands{t: t, dir: t.TempDir()}
	w.state = w.path("state")
	for _, d := range []string{"root/etc/systemd/system", "root/usr/bin"} {
		if err := os.MkdirAll(w.path(d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	w.write("root/usr/bin/true", "")
	if err := os.Chmod(w.path("root/usr/bin/true"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{
		"HOME": w.dir, "XDG_STATE_HOME": "", "STATE_DIRECTORY": "", "CREDENTIALS_DIRECTORY": "",
		"GIT_AUTHOR_NAME": "test", "GIT_AUTHOR_EMAIL": "test@example.org", "GIT_COMMITTER_NAME": "test", "GIT_COMMITTER_EMAIL": "test@example.org",
		"GIT_CONFIG_GLOBAL": w.path(".gitconfig"), "GIT_SSH": "", "GIT_SSH_COMMAND": "", "GIT_SSH_VARIANT": "",
		"GITSYNC_STATE_DIR": w.state, "GITSYNC_REPO": w.path("hub"), "GITSYNC_ROOT": w.path("root"),
	} {
		t.Setenv(name, value)
	}
	w.write("hub/systemd/a.service", "[Service]\nExecStart=true\n")
	w.git("init", "-q", "-b", "main")
	w.push()
	return w
}

func (w *commands) path(name string) string { return filepath.Join(w.dir, name) }

func (w *commands) write(name, content string) {
	w.t.Helper()
	if err := os.MkdirAll(filepath.Dir(w.path(name)), 0o755); err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(w.path(name), []byte(content), 0o644); err != nil {
		w.t.Fatal(err)
	}
}

func (w *commands) read(name string) string {
	w.t.Helper()
	b, err := os.ReadFile(w.path(name))
	if err != nil {
		w.t.Fatal(err)
	}
	return string(b)
}

func (w *commands) exists(name string) bool {
	_, err := os.Lstat(w.path(name))
	return err == nil
}

// git runs git in the repository.
func (w *commands) git(args ...string) string {
	w.t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir = w.path("hub")
	out, err := cmd.CombinedOutput()
	if err != nil {
		w.t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// push commits everything and returns the commit.
func (w *commands) push() string {
	w.t.Helper()
	w.git("add", "-A")
	w.git("commit", "-q", "--allow-empty", "-m", "change")
	return w.git("rev-parse", "HEAD")
}

// run runs the tool once.
func (w *commands) run(args ...string) (status int, stdout, stderr string) {
	w.t.Helper()
	return w.runWith("", args...)
}

// runWith runs the tool once with stdin.
func (w *commands) runWith(stdin string, args ...string) (status int, stdout, stderr string) {
	w.t.Helper()
	var files [2]*os.File
	for i := range files {
		f, err := os.CreateTemp(w.dir, "stream-")
		if err != nil {
			w.t.Fatal(err)
		}
		defer f.Close()
		files[i] = f
	}
	status = cli.Main(app(), args, strings.NewReader(stdin), files[0], files[1])
	var text [2]string
	for i, f := range files {
		b, err := os.ReadFile(f.Name())
		if err != nil {
			w.t.Fatal(err)
		}
		text[i] = string(b)
	}
	return status, text[0], text[1]
}

// want runs the tool and checks its exit status and that its output contains a text.
func (w *commands) want(status int, text string, args ...string) string {
	w.t.Helper()
	got, stdout, stderr := w.run(args...)
	if got != status || !strings.Contains(stdout+stderr, text) {
		w.t.Errorf("gitsync %s: exit status %d; want %d and %q\nstdout: %s\nstderr: %s", strings.Join(args, " "), got, status, text, stdout, stderr)
	}
	return stdout
}

// field returns a field of the only record in an output.
func (w *commands) field(output, name string) any {
	w.t.Helper()
	var record map[string]any
	if err := json.Unmarshal([]byte(output), &record); err != nil {
		w.t.Fatalf("%v: %s", err, output)
	}
	return record[name]
}

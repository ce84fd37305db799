package e2e

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"observability-hub/e2e/await"
	"observability-hub/e2e/dependent"
	"observability-hub/e2e/workspace"
)

// typed are keys that a person types, and the arguments that the tool gets in the end.
var typed = []struct{ keys, want string }{
	{"volbackup resto\tdb", "restore db"},                            // a command
	{"volbackup run --engi\tres\t", "run --engine restic"},           // a flag, and a value of its enum
	{"sysmetrics --flu\t", "--flush"},                                // the flags of the default command
	{"sysmetrics flush --state-d\ttre\t", "flush --state-dir trees"}, // a directory, not the file beside it
	{"readsync retry de\t", "retry dead letters.jsonl"},              // a file as the argument, with a blank
	{"readsync retry --nul\trep\tdead", "retry --nul replace dead"},
	{"readsync verif\t--dead\tde\t--al\t", "verify --dead-letters dead letters.jsonl --all"},
}

// TestCompletion types into each shell on a terminal. In place of the tools it runs functions that print their arguments.
func TestCompletion(t *testing.T) {
	tools := []string{"readsync", "sysmetrics", "volbackup"}
	dir := t.TempDir()
	for _, name := range []string{"dead letters.jsonl", "treesfile", "trees/file"} {
		if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	scripts := t.TempDir()
	for _, tool := range tools {
		binary, err := workspace.Binary(tool)
		if err != nil {
			t.Fatal(err)
		}
		for shell, name := range map[string]string{"bash": tool, "zsh": "_" + tool, "fish": tool + ".fish"} {
			script, err := exec.Command(binary, "--completion", shell).Output()
			if err != nil {
				t.Fatalf("%s --completion %s: %v", tool, shell, err)
			}
			if err := os.WriteFile(filepath.Join(scripts, name), script, 0o644); err != nil {
				t.Fatal(err)
			}
			if shell != "bash" { // which reads it below
				if out, err := exec.Command(shell, "-n", filepath.Join(scripts, name)).CombinedOutput(); err != nil || len(out) > 0 {
					t.Errorf("%s -n: %v\n%s", shell, err, out)
				}
			}
		}
		if out, err := exec.Command(binary, "--completion", "csh").CombinedOutput(); err == nil || !bytes.Contains(out, []byte("not bash, zsh or fish")) {
			t.Errorf("%s --completion csh: %v\n%s", tool, err, out)
		}
	}
	bash := "PS1='ready''> '\nbind 'set enable-bracketed-paste off'\n"
	zsh := "PS1='ready''> '\nfpath=(" + scripts + " $fpath)\nautoload -U compinit\ncompinit -u -D\n"
	fish := "function fish_prompt\n printf 'ready%s' '> '\nend\n"
	for _, tool := range tools {
		bash += "source " + scripts + "/" + tool + "\n" + tool + `() { echo "GOT<$*>"; }` + "\n"
		zsh += tool + `() { echo "GOT<$*>"; }` + "\n"
		fish += "source " + scripts + "/" + tool + ".fish\nfunction " + tool + "\n echo \"GOT<$argv>\"\nend\n"
	}
	for name, content := range map[string]string{"bashrc": bash, ".zshrc": zsh, "fishrc": fish} {
		if err := os.WriteFile(filepath.Join(scripts, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for shell, command := range map[string]string{
		"bash": "bash --noprofile --rcfile " + scripts + "/bashrc -i",
		"zsh":  "zsh -d -i",
		"fish": "fish --no-config -C 'source " + scripts + "/fishrc'",
	} {
		t.Run(shell, func(t *testing.T) {
			t.Parallel()
			terminal := openTerminal(t, command, dir, "ZDOTDIR="+scripts, "HOME="+scripts, "TERM=xterm", "HISTFILE=")
			for _, c := range typed {
				terminal.await("ready> ")
				terminal.send(c.keys + "\r")
				got := terminal.await(">\r\n")
				_, got, found := strings.Cut(got, "GOT<")
				if !found {
					t.Fatalf("%q: the tool was not called", c.keys)
				}
				// zsh writes --flag=value, and removes the slash behind a directory.
				got = strings.ReplaceAll(strings.TrimSuffix(strings.TrimSuffix(got, ">\r\n"), "/"), "=", " ")
				if got != c.want {
					t.Errorf("%q became %q; want %q", c.keys, got, c.want)
				}
			}
		})
	}
}

// terminal is a program on a terminal.
type terminal struct {
	t    *testing.T
	keys io.Writer

	mu    sync.Mutex
	shown string // what was not awaited yet
}

func openTerminal(t *testing.T, command, dir string, env ...string) *terminal {
	t.Helper()
	term := &terminal{t: t}
	cmd := exec.Command("script", "--quiet", "--flush", "--command", command, "/dev/null")
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = term, term
	keys, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := dependent.Start(cmd); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // script takes the shell along
		if t.Failed() {
			term.mu.Lock()
			defer term.mu.Unlock()
			t.Logf("shown last: %q", term.shown)
		}
	})
	term.keys = keys
	return term
}

// Write is called with what the program shows.
func (term *terminal) Write(p []byte) (int, error) {
	term.mu.Lock()
	defer term.mu.Unlock()
	term.shown += string(p)
	return len(p), nil
}

func (term *terminal) send(keys string) {
	term.t.Helper()
	if _, err := io.WriteString(term.keys, keys); err != nil {
		term.t.Fatal(err)
	}
}

// await waits for a text, and returns all that was shown up to it.
func (term *terminal) await(text string) (before string) {
	term.t.Helper()
	await.Until(term.t, fmt.Sprintf("%q on the terminal", text), func() bool {
		term.mu.Lock()
		defer term.mu.Unlock()
		i := strings.Index(term.shown, text)
		if i < 0 {
			return false
		}
		before, term.shown = term.shown[:i+len(text)], term.shown[i+len(text):]
		return true
	})
	return before
}

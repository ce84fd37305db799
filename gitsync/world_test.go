package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"observability-hub/gitsync/internal/gitobj"
	"observability-hub/lib/cli"
	"observability-hub/lib/statedir"
)

// A world has a repository, another root and a state directory. Tests run commands,
// or parts of commands, on that root.
type world struct {
	*testing.T
	commands          *commands
	repo, root, state string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	c := newCommands(t)
	w := &world{t, c, c.path("hub"), c.path("root"), c.state}
	w.commit(map[string]string{"systemd": ""})
	return w
}

func (w *world) git(args ...string) string {
	w.Helper()
	return w.commands.git(args...)
}

// write writes a file below a directory. Empty content removes the file, and
// "-> TARGET" makes a link.
func (w *world) write(dir, name, content string, mode os.FileMode) {
	w.Helper()
	p := filepath.Join(dir, name)
	if content == "" {
		if err := os.RemoveAll(p); err != nil {
			w.Fatal(err)
		}
		return
	}
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		w.Fatal(err)
	}
	if target, ok := strings.CutPrefix(content, "-> "); ok {
		_ = os.Remove(p)
		if err := os.Symlink(target, p); err != nil {
			w.Fatal(err)
		}
		return
	}
	if err := os.WriteFile(p, []byte(content), mode); err != nil {
		w.Fatal(err)
	}
	if err := os.Chmod(p, mode); err != nil {
		w.Fatal(err)
	}
}

func (w *world) onHost(p, content string, mode os.FileMode) {
	w.Helper()
	w.write(w.root, p, content, mode)
}

// hostFile returns a file of the root: "" if there is none, "-> TARGET" for a link.
func (w *world) hostFile(p string) string {
	w.Helper()
	p = filepath.Join(w.root, p)
	if target, err := os.Readlink(p); err == nil {
		return "-> " + target
	}
	b, err := os.ReadFile(p)
	if err != nil && !notThere(err) {
		w.Fatal(err)
	}
	return string(b)
}

// commit changes files of the repository and returns the new commit. Scripts are
// executable. "-> TARGET" makes a link, and empty content removes a file.
func (w *world) commit(files map[string]string) string {
	w.Helper()
	for name, content := range files {
		mode := os.FileMode(0o644)
		if strings.HasPrefix(name, "scripts/") {
			mode = 0o755
		}
		w.write(w.repo, name, content, mode)
	}
	return w.commands.push()
}

// outcome is the result of a run of the tool.
type outcome struct {
	status         int
	stdout, stderr string
}

// lines returns the records of one event as "ACTION UNIT-OR-PATH REASON". It has the
// path for drop-ins and for files without a unit.
func (o outcome) lines(event string) []string {
	var all []string
	for line := range strings.Lines(o.stdout) {
		var r struct{ Msg, Action, Unit, Path, Reason string }
		if json.Unmarshal([]byte(line), &r) != nil || r.Msg != event {
			continue
		}
		what := r.Unit
		if r.Path != "" && filepath.Base(r.Path) != r.Unit && r.Action != doEnable && r.Action != doDisable {
			what = r.Path
		}
		all = append(all, r.Action+" "+what+" "+r.Reason)
	}
	return all
}

// run runs the tool with stdin.
func (w *world) run(stdin string, args ...string) outcome {
	w.Helper()
	var o outcome
	o.status, o.stdout, o.stderr = w.commands.runWith(stdin, args...)
	return o
}

// on runs a command with the flags for the root.
func (w *world) on(command string, more ...string) outcome {
	w.Helper()
	args := []string{command, "--root", w.root, "--state-dir", w.state}
	return w.run("", append(args, more...)...)
}

// ask runs a command that needs only the state directory.
func (w *world) ask(command string) outcome {
	w.Helper()
	return w.run("", command, "--state-dir", w.state)
}

// sync pulls, applies and checks the exit status.
func (w *world) sync(status int, more ...string) outcome {
	w.Helper()
	o := w.on("sync", append([]string{"--repo", w.repo}, more...)...)
	if o.status != status {
		w.Fatalf("sync exits with %d, not %d\n%s%s", o.status, status, o.stdout, o.stderr)
	}
	return o
}

// grab is a command that stores its environment.
type grab struct{ env *cli.Env }

func (g *grab) Run(env *cli.Env) error {
	g.env = env
	return nil
}

// testEnv returns the environment of a command, and a function that returns what was
// written to it.
func testEnv(t *testing.T) (*cli.Env, func() string) {
	t.Helper()
	f, err := os.CreateTemp(t.TempDir(), "stderr")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	var g grab
	grabber := app()
	grabber.Commands = []cli.Command{{Name: "grab", Default: true, Grammar: &g}}
	if status := cli.Main(grabber, nil, nil, f, f); status != 0 {
		t.Fatalf("exit status %d", status)
	}
	return g.env, func() string {
		b, err := os.ReadFile(f.Name())
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
}

// begin returns an apply of the pulled commit, as applyCmd makes it. It holds the lock.
func (w *world) begin() *apply {
	w.Helper()
	env, _ := testEnv(w.T)
	dir, err := statedir.Open(w.Context(), w.state, 0)
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { dir.Close() })
	a := &apply{env: env, dir: dir, originFlags: originFlags{Ref: "main"}, hostFlags: hostFlags{Root: w.root, ScriptsDir: "/usr/local/bin"}}
	if err := a.prepare(); err != nil {
		w.Fatal(err)
	}
	return a
}

// want returns what the newest commit of the repository wants.
func (w *world) want() (*want, error) {
	w.Helper()
	reader, err := gitobj.NewReader(w.TempDir())
	if err != nil {
		w.Fatal(err)
	}
	o, err := reader.Open(w.Context(), filepath.Join(w.repo, ".git/objects"))
	if err != nil {
		w.Fatal(err)
	}
	defer o.Close()
	c, err := o.Commit(w.git("rev-parse", "HEAD"))
	if err != nil {
		w.Fatal(err)
	}
	return readWant(o, c, "/usr/local/bin")
}

// wantOf returns a want with the given files, by path on the host.
func wantOf(files map[string]string) *want {
	w := &want{commit: someHash}
	for _, p := range slices.Sorted(maps.Keys(files)) {
		f := &wantedFile{path: p, source: "systemd" + strings.TrimPrefix(p, unitDir), mode: 0o644, content: []byte(files[p]), sum: sum([]byte(files[p]))}
		switch dir := filepath.Dir(p); {
		case dir == unitDir || dir == quadletDir:
			f.unit = filepath.Base(p)
		case strings.HasSuffix(dir, ".d"):
			f.unit = strings.TrimSuffix(filepath.Base(dir), ".d")
		case dir == "/usr/local/bin":
			f.mode, f.source = 0o755, "scripts/"+filepath.Base(p)
		}
		w.files = append(w.files, f)
	}
	return w
}

// fakeSystemd puts a systemctl on PATH that records each call and answers from files.
// It runs the real systemctl for calls with --root.
type fakeSystemd struct {
	t   *testing.T
	dir string
}

func newFakeSystemd(t *testing.T) *fakeSystemd {
	t.Helper()
	f := &fakeSystemd{t, t.TempDir()}
	real, err := exec.LookPath("systemctl")
	if err != nil {
		t.Fatal(err)
	}
	realAnalyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Fatal(err)
	}
	script := fmt.Sprintf(`#!/bin/sh
cd %q || exit 9
case " $* " in *" --root="*) exec %s "$@" ;; esac
echo "$*" >>calls
shift # --no-pager
verb=
while [ $# -gt 0 ]; do
  case $1 in
  --) shift; break ;;
  -*) ;;
  *) [ -n "$verb" ] || verb=$1 ;;
  esac
  shift
done
if [ -e "fail-$verb" ]; then cat "fail-$verb" >&2; exit 1; fi
case $verb in
list-units) cat units ;;
show)
  for u; do
    if [ -e "show-$u" ]; then cat "show-$u"; else printf 'LoadState=loaded\nActiveState=active\nSubState=running\n'; fi
    printf 'Id=%%s\n\n' "$u"
  done ;;
esac
exit 0
`, f.dir, real)
	f.put("systemctl", script)
	f.put("systemd-analyze", fmt.Sprintf("#!/bin/sh\nif [ \"$1\" = condition ]; then [ ! -e %s/unmet ]; exit; fi\nexec %s \"$@\"\n", f.dir, realAnalyze))
	f.put("units", "")
	for _, name := range []string{"systemctl", "systemd-analyze"} {
		if err := os.Chmod(filepath.Join(f.dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", f.dir+":"+os.Getenv("PATH"))
	return f
}

// put writes a file from which the fake answers.
func (f *fakeSystemd) put(name, content string) {
	f.t.Helper()
	if err := os.WriteFile(filepath.Join(f.dir, name), []byte(content), 0o644); err != nil {
		f.t.Fatal(err)
	}
}

// units sets the units that systemd has loaded: "a.service active running".
func (f *fakeSystemd) units(states ...string) map[string]unitState {
	f.t.Helper()
	var b bytes.Buffer
	for _, s := range states {
		w := strings.Fields(s)
		fmt.Fprintf(&b, "%s loaded %s %s a description\n", w[0], w[1], w[2])
	}
	f.put("units", b.String())
	return parseUnits(b.String())
}

// calls returns the calls of systemctl that change something, and forgets them.
func (f *fakeSystemd) calls() []string {
	f.t.Helper()
	b, err := os.ReadFile(filepath.Join(f.dir, "calls"))
	if err != nil && !notThere(err) {
		f.t.Fatal(err)
	}
	var all []string
	for line := range strings.Lines(string(b)) {
		line = strings.TrimSpace(strings.TrimPrefix(line, "--no-pager "))
		if !strings.HasPrefix(line, "show ") && !strings.HasPrefix(line, "list-units ") {
			all = append(all, strings.ReplaceAll(line, " -- ", " "))
		}
	}
	_ = os.Remove(filepath.Join(f.dir, "calls"))
	return all
}

// planOn returns the plan for a root. running has the units that run there according
// to the plan.
func planOn(t *testing.T, root string, l *ledger, w *want, running map[string]unitState) *plan {
	t.Helper()
	h := host{root: root}
	dir, err := statedir.Open(t.Context(), t.TempDir(), 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dir.Close() })
	p := &plan{view: view{host: h, ledger: l, running: running, owners: map[string]string{}}, want: w, changed: map[string]string{}, foreign: map[string]bool{}}
	if p.links, err = readEnablement(h); err != nil {
		t.Fatal(err)
	}
	if err := p.readHost(w); err != nil {
		t.Fatal(err)
	}
	p.compareFiles()
	if p.stage, err = newStage(dir, p.after); err != nil {
		t.Fatal(err)
	}
	if err := p.compareUnits(context.WithoutCancel(t.Context())); err != nil {
		t.Fatal(err)
	}
	return p
}

// summary returns the actions as "ACTION UNIT-OR-PATH REASON".
func summary(actions []action) []string {
	var o outcome
	for _, a := range actions {
		o.stdout += string(a.done(time.Unix(0, 0), "INFO", family))
	}
	return o.lines("action")
}

func same(t *testing.T, what string, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s:\n  %s\nwant\n  %s", what, strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

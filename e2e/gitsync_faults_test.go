package e2e

import (
	"bytes"
	_ "embed"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"observability-hub/e2e/nspawn"
	"observability-hub/e2e/torture"
	"observability-hub/e2e/workspace"
)

// gitsyncWorld has a repository, a host in a directory, and a gitsync that can be killed between any two of its steps.
type gitsyncWorld struct {
	tb      testing.TB
	dir     string
	binary  string
	commits [2]map[string]string // the files of each of the two commits, by path
	seen    map[string]map[string]bool
	number  int
}

// buildGitsync builds gitsync with its fault hook.
func buildGitsync(tb testing.TB) string {
	tb.Helper()
	root, err := workspace.Root()
	if err != nil {
		tb.Fatal(err)
	}
	path := filepath.Join(tb.TempDir(), "gitsync")
	cmd := exec.Command("go", "build", "-tags", "faults", "-o", path, ".")
	cmd.Dir = filepath.Join(root, "gitsync")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		tb.Fatalf("build gitsync: %v\n%s", err, out)
	}
	return path
}

const timerText = "[Timer]\nOnCalendar=%s\n[Install]\nWantedBy=%s\n"

func newGitsyncWorld(tb testing.TB, binary string) *gitsyncWorld {
	tb.Helper()
	w := &gitsyncWorld{tb: tb, dir: tb.TempDir(), binary: binary, seen: map[string]map[string]bool{}}
	service := "[Service]\nType=oneshot\nExecStart=job %d\n"
	w.commits[0] = map[string]string{
		"systemd/a.service":           fmt.Sprintf(service, 1),
		"systemd/a.timer":             fmt.Sprintf(timerText, "daily", "timers.target"),
		"systemd/b.service":           fmt.Sprintf(service, 2),
		"systemd/b.service.d/x.conf":  "[Service]\nNice=1\n",
		"systemd/c.service":           fmt.Sprintf(service, 3),
		"systemd/c.timer":             fmt.Sprintf(timerText, "weekly", "timers.target"),
		"systemd/80-test.preset":      "enable *.timer\ndisable *\n",
		"scripts/job":                 "#!/bin/sh\nexit 0\n",
		"compose/docker-compose.yml":  "services: {}\n",
		"compose/deeper/than/this/is": "text\n",
	}
	// Files are changed, removed and added. Another target wants a timer. A timer is dropped.
	w.commits[1] = maps.Clone(w.commits[0])
	w.commits[1]["systemd/a.service"] = fmt.Sprintf(service, 11)
	w.commits[1]["systemd/a.timer"] = fmt.Sprintf(timerText, "hourly", "multi-user.target")
	delete(w.commits[1], "systemd/b.service.d/x.conf")
	delete(w.commits[1], "systemd/c.timer")
	w.commits[1]["systemd/d.service"] = fmt.Sprintf(service, 4)
	w.commits[1]["systemd/d.service.d/y.conf"] = "[Service]\nNice=2\n"
	w.commits[1]["systemd/d.timer"] = fmt.Sprintf(timerText, "monthly", "timers.target")
	w.commits[1]["scripts/job"] = "#!/bin/sh\nexit 1\n"
	w.commits[1]["compose/docker-compose.yml"] = "services: {a: {}}\n"
	for _, dir := range []string{"hub", "root/etc/systemd/system", "root/usr/bin"} {
		if err := os.MkdirAll(filepath.Join(w.dir, dir), 0o755); err != nil {
			tb.Fatal(err)
		}
	}
	w.git("init", "-q", "-b", "main")
	return w
}

func (w *gitsyncWorld) git(args ...string) {
	w.tb.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir = filepath.Join(w.dir, "hub")
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_AUTHOR_NAME=test", "GIT_AUTHOR_EMAIL=test@example.org",
		"GIT_COMMITTER_NAME=test", "GIT_COMMITTER_EMAIL=test@example.org")
	if out, err := cmd.CombinedOutput(); err != nil {
		w.tb.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// push commits the files of one of the two commits, so that each push changes to the other one.
func (w *gitsyncWorld) push() {
	w.tb.Helper()
	w.number++
	hub := filepath.Join(w.dir, "hub")
	w.git("rm", "-rq", "--ignore-unmatch", ".")
	for name, content := range w.wanted() {
		path := filepath.Join(hub, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			w.tb.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			w.tb.Fatal(err)
		}
		if strings.HasPrefix(name, "scripts/") {
			if err := os.Chmod(path, 0o755); err != nil {
				w.tb.Fatal(err)
			}
		}
	}
	w.git("add", "-A")
	w.git("commit", "-q", "-m", strconv.Itoa(w.number))
}

func (w *gitsyncWorld) wanted() map[string]string { return w.commits[w.number%2] }

// command prepares a run.
func (w *gitsyncWorld) command(env []string, args ...string) *exec.Cmd {
	cmd := exec.Command(w.binary, args...)
	cmd.Dir = w.dir
	cmd.Env = append([]string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=" + w.dir,
		"GITSYNC_STATE_DIR=" + filepath.Join(w.dir, "state"), "GITSYNC_REPO=" + filepath.Join(w.dir, "hub"),
		"GITSYNC_ROOT=" + filepath.Join(w.dir, "root"), "GITSYNC_PUBLISH=" + filepath.Join(w.dir, "trees")}, env...)
	return cmd
}

// hostFiles returns the deployed files, by their paths in the repository, the links, and files that gitsync left.
func (w *gitsyncWorld) hostFiles() (files, links map[string]string, leftovers []string) {
	w.tb.Helper()
	files, links = map[string]string{}, map[string]string{}
	root := filepath.Join(w.dir, "root")
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, _ := filepath.Rel(root, path)
		if strings.Contains(d.Name(), ".gitsync-") {
			leftovers = append(leftovers, name)
			return nil
		}
		if filepath.Base(filepath.Dir(path)) == ".gitsync" {
			return nil // the list of state directories that own files here
		}
		if d.Type() == fs.ModeSymlink {
			links[name], err = os.Readlink(path)
			return err
		}
		for from, to := range map[string]string{"etc/systemd/system/": "systemd/", "usr/local/bin/": "scripts/", "usr/local/lib/systemd/system-preset/": "systemd/"} {
			if rest, ok := strings.CutPrefix(name, from); ok {
				content, err := os.ReadFile(path)
				files[to+rest] = string(content)
				return err
			}
		}
		return fmt.Errorf("unexpected file %s", name)
	})
	if err != nil {
		w.tb.Fatal(err)
	}
	return files, links, leftovers
}

// untorn fails unless each file on the host, and the published tree, belongs to one of the two commits.
func (w *gitsyncWorld) untorn(when string) {
	w.tb.Helper()
	files, _, _ := w.hostFiles()
	for name, content := range files {
		if content != w.commits[0][name] && content != w.commits[1][name] {
			w.tb.Fatalf("%s: %s is torn: %q", when, name, content)
		}
	}
	current := filepath.Join(w.dir, "trees/current")
	if _, err := os.Lstat(current); err == nil {
		tree := map[string]string{}
		for name := range w.commits[1] {
			if content, err := os.ReadFile(filepath.Join(current, name)); err == nil {
				tree[name] = string(content)
			}
		}
		for name := range w.commits[0] {
			if content, err := os.ReadFile(filepath.Join(current, name)); err == nil {
				tree[name] = string(content)
			}
		}
		if !maps.Equal(tree, w.commits[0]) && !maps.Equal(tree, w.commits[1]) {
			w.tb.Fatalf("%s: the published tree belongs to none of the commits: %q", when, slices.Sorted(maps.Keys(tree)))
		}
	}
}

// converge runs gitsync to its end. It fails unless the host then matches the newest commit and no temporary files are left.
func (w *gitsyncWorld) converge(when string) {
	w.tb.Helper()
	if got := finish(w.tb, w.command(nil)); got.status != 0 {
		w.tb.Fatalf("%s: the next run exits with %d\nstdout: %s\nstderr: %s", when, got.status, got.stdout, got.stderr)
	}
	files, links, left := w.hostFiles()
	want, wantLinks := map[string]string{}, map[string]string{}
	for name, content := range w.wanted() {
		if !strings.HasPrefix(name, "compose/") {
			want[name] = content
		}
		if unit, ok := strings.CutPrefix(name, "systemd/"); ok && strings.HasSuffix(unit, ".timer") {
			_, target, _ := strings.Cut(strings.TrimSpace(content), "WantedBy=")
			wantLinks["etc/systemd/system/"+target+".wants/"+unit] = "/etc/systemd/system/" + unit
		}
	}
	if !maps.Equal(files, want) {
		w.tb.Fatalf("%s: the host has %q; want %q", when, files, want)
	}
	if !maps.Equal(links, wantLinks) {
		w.tb.Fatalf("%s: the links are %q; want %q", when, links, wantLinks)
	}
	if len(left) > 0 {
		w.tb.Fatalf("%s: left over: %q", when, left)
	}
	if _, err := os.Stat(filepath.Join(w.dir, "state/journal.json")); err == nil {
		w.tb.Fatalf("%s: the journal still exists", when)
	}
	if got := finish(w.tb, w.command(nil, "plan")); got.status != 0 || got.stdout != "" {
		w.tb.Fatalf("%s: the next plan is not empty: %d %s%s", when, got.status, got.stdout, got.stderr)
	}
	tree, err := os.ReadFile(filepath.Join(w.dir, "trees/current/compose/docker-compose.yml"))
	if err != nil || string(tree) != w.wanted()["compose/docker-compose.yml"] {
		w.tb.Fatalf("%s: the published tree: %q, %v", when, tree, err)
	}
}

// TestGitsyncKillAtEveryStep kills gitsync at every boundary between two steps: of a first run, of changes in both directions, and
// of the undo of a killed run.
func TestGitsyncKillAtEveryStep(t *testing.T) {
	binary := buildGitsync(t)
	kills := 0
	// at kills a run at its n-th boundary. It returns false if the run has fewer boundaries.
	at := func(w *gitsyncWorld, n int, when string) bool {
		got := finish(t, w.command([]string{"GITSYNC_FAULT_AT=" + strconv.Itoa(n)}))
		w.untorn(when)
		switch got.status {
		case 128 + int(syscall.SIGKILL):
			kills++
			return true
		case 0:
			return false
		}
		t.Fatalf("%s: exit status %d: %s%s", when, got.status, got.stdout, got.stderr)
		return false
	}
	for n := 1; ; n++ {
		w := newGitsyncWorld(t, binary)
		w.push()
		more := at(w, n, fmt.Sprintf("first run, step %d", n))
		w.converge(fmt.Sprintf("after a first run killed at step %d", n))
		if !more {
			break
		}
	}
	w := newGitsyncWorld(t, binary)
	w.push()
	w.converge("first")
	for range 2 { // in both directions
		for n := 1; ; n++ {
			w.push()
			more := at(w, n, fmt.Sprintf("change, step %d", n))
			w.converge(fmt.Sprintf("after a change killed at step %d", n))
			w.push() // back, so that the next change is the same
			w.converge("back")
			if !more {
				break
			}
		}
		w.push()
		w.converge("to the other commit")
	}
	// A run is killed late, and then its undo is killed at each step.
	for n := 1; ; n++ {
		w.push()
		for late := 30; !at(w, late, "killed late"); late-- {
			w.push()
			w.push()
		}
		more := at(w, n, fmt.Sprintf("undo, step %d", n))
		w.converge(fmt.Sprintf("after an undo killed at step %d", n))
		if !more {
			break
		}
	}
	t.Logf("%d kills at step boundaries, every next run converged, no file was torn", kills)
	if kills < 100 {
		t.Errorf("only %d kills: the steps have moved", kills)
	}
}

// TestGitsyncKillAtRandom kills gitsync, and with it everything that it started, at random times.
func TestGitsyncKillAtRandom(t *testing.T) {
	rounds := 40
	if torture.Full {
		rounds = 300
	}
	random := torture.Random(t, 0)
	binary, err := workspace.Binary("gitsync")
	if err != nil {
		t.Fatal(err)
	}
	w := newGitsyncWorld(t, binary)
	w.push()
	w.converge("first")
	var typical time.Duration
	for range 2 {
		w.push()
		typical = max(typical, finish(t, w.command(nil)).took)
	}
	kills := torture.NewKills(random, typical)
	for kills.More(rounds) {
		round := fmt.Sprintf("round %d", kills.Tried())
		w.push()
		cmd := w.command(nil)
		var stdout, stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		// Kill only this process. The processes that it started must die with it.
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		timer := time.AfterFunc(kills.After(), func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait() // the status is checked below
		timer.Stop()
		status := exitStatus(cmd.ProcessState)
		kills.Add(status == 128+int(syscall.SIGKILL))
		if status != 128+int(syscall.SIGKILL) && status != 0 {
			t.Fatalf("%s: exit status %d: %s%s", round, status, &stdout, &stderr)
		}
		w.untorn(round)
		w.converge("after " + round)
	}
	kills.Check(t)
	t.Logf("%d of %d runs killed at random times, every next run converged, no file was torn", kills.Hit(), kills.Tried())
}

// TestGitsyncDiskFaults makes each writing system call of a run fail with ENOSPC in turn. Each such run must leave the host as one
// of the two commits wants it, and the next run must converge.
func TestGitsyncDiskFaults(t *testing.T) {
	binary, err := workspace.Binary("gitsync")
	if err != nil {
		t.Fatal(err)
	}
	w := newGitsyncWorld(t, binary)
	w.push()
	w.converge("first")
	refused, injected := 0, 0
	for _, call := range known(t, []string{"mkdirat", "fsync", "linkat", "symlinkat", "renameat", "renameat2", "write", "openat"}) {
		for n := 1; ; n++ {
			if !torture.Full && n%4 != 1 || call == "openat" && n%5 != 1 {
				continue // most of the dozens of openat calls only read
			}
			w.push()
			cmd := w.command(nil)
			trace := filepath.Join(w.dir, "trace")
			// strace counts per thread. With one processor, few threads share the calls.
			traced(t, cmd, "-f", "-qq", "-o", trace, "-e", "trace="+call, "-e", fmt.Sprintf("inject=%s:error=ENOSPC:when=%d", call, n))
			cmd.Env = append(cmd.Env, "GOMAXPROCS=1")
			got := finish(t, cmd)
			when := fmt.Sprintf("ENOSPC at %s %d", call, n)
			w.untorn(when)
			log, err := os.ReadFile(trace)
			if err != nil {
				t.Fatal(err)
			}
			hit := bytes.Contains(log, []byte("(INJECTED)"))
			if hit {
				injected++
			}
			if got.status != 0 {
				refused++
			}
			w.converge("after " + when)
			if !hit || n > 150 {
				break
			}
		}
	}
	// The fsync of the state directory fails after the rename of the new file. Then the content of the file decides, not the error.
	state := filepath.Join(w.dir, "state")
	for n := 1; n <= 6; n++ {
		for range 4 { // because it is random which thread makes which call
			w.push()
			cmd := w.command(nil)
			traced(t, cmd, "-f", "-qq", "-o", filepath.Join(w.dir, "trace"), "-P", state, "-e", "trace=fsync", "-e", fmt.Sprintf("inject=fsync:error=ENOSPC:when=%d", n))
			cmd.Env = append(cmd.Env, "GOMAXPROCS=1")
			finish(t, cmd)
			when := fmt.Sprintf("ENOSPC at fsync %d of the state directory", n)
			w.untorn(when)
			w.converge("after " + when)
		}
	}
	w.brokenPaths()
	t.Logf("%d calls failed with ENOSPC, %d runs failed, every next run converged", injected, refused)
	if injected < 20 {
		t.Errorf("only %d calls failed: a run makes more writing calls than that", injected)
	}
}

// brokenPaths makes the calls on one file or directory fail with EIO: each call once, or a sample of them without HUB_TORTURE.
func (w *gitsyncWorld) brokenPaths() {
	w.tb.Helper()
	const units = "root/etc/systemd/system"
	hits, cases := 0, 0
	for _, broken := range []struct {
		path  string
		calls []string
	}{
		{"state", []string{"fsync"}},
		{units, []string{"fsync"}},
		{"root/usr/local/bin", []string{"fsync"}},
		{"trees", []string{"fsync"}},
		{"state/journal.json", []string{"renameat", "unlinkat"}},
		{"state/ledger.json", []string{"renameat"}},
		{"state/pulled.json", []string{"renameat"}},
		{"trees/current", []string{"renameat"}},
		{units + "/a.service", []string{"renameat", "linkat"}},
		{units + "/c.timer", []string{"renameat", "unlinkat"}},
		{units + "/.gitsync-new-a.service~", []string{"fsync", "fchmod", "unlinkat"}},
		{units + "/.gitsync-old-a.service~", []string{"unlinkat"}},
		{units + "/d.service.d", []string{"mkdirat", "fsync", "unlinkat"}},
	} {
		for _, call := range known(w.tb, broken.calls) {
			for n := 1; n <= 3; n++ {
				if cases++; !torture.Full && cases%8 != 1 {
					continue
				}
				w.push()
				if w.number%2 == 0 { // use the commit that changes, adds and removes these paths
					w.converge("before")
					w.push()
				}
				cmd := w.command(nil)
				trace := filepath.Join(w.dir, "trace")
				traced(w.tb, cmd, "-f", "-qq", "-o", trace, "-P", filepath.Join(w.dir, broken.path), "-e", "trace="+call, "-e", fmt.Sprintf("inject=%s:error=EIO:when=%d", call, n))
				cmd.Env = append(cmd.Env, "GOMAXPROCS=1")
				got := finish(w.tb, cmd)
				when := fmt.Sprintf("EIO at %s %d of %s", call, n, broken.path)
				log, err := os.ReadFile(trace)
				if err != nil {
					w.tb.Fatal(err)
				}
				if bytes.Contains(log, []byte("(INJECTED)")) {
					hits++
				} else if got.status != 0 {
					w.tb.Fatalf("%s did not happen, and the run exits with %d: %s", when, got.status, got.stderr)
				}
				w.untorn(when)
				w.converge("after " + when)
			}
		}
	}
	w.tb.Logf("%d calls on one path failed with EIO, every next run converged", hits)
	if hits == 0 {
		w.tb.Error("no call failed: the paths have changed")
	}
}

//go:embed testdata/gitsync-machine/kills.sh
var gitsyncKills string

// TestGitsyncKillUnderSystemd kills gitsync in a booted machine, where systemd stops, reloads and restarts the units that change.
func TestGitsyncKillUnderSystemd(t *testing.T) {
	t.Parallel()
	steps, rounds := 4, 10
	if torture.Full {
		steps, rounds = 1, 300
	}
	random := torture.Random(t, 1)
	result := nspawn.Run(t, nspawn.Config{
		Packages: []string{"git", "jq"},
		Binds:    []nspawn.Bind{{From: buildGitsync(t), To: "/usr/local/sbin/gitsync", ReadOnly: true}},
		Script:   fmt.Sprintf("steps=%d phase=%d rounds=%d RANDOM=%d\n%s", steps, random.IntN(steps), rounds, random.IntN(1<<15), gitsyncKills),
		Timeout:  30 * time.Minute,
	})
	for line := range strings.Lines(result.Stdout) {
		if text, ok := strings.CutPrefix(strings.TrimSpace(line), "ok "); ok {
			t.Logf("%s, every next run converged, no file was torn", text)
		}
	}
	if result.Status != 0 || strings.Count(result.Stdout, "ok ") != 2 {
		t.Errorf("exit status %d\nstdout: %s\nstderr: %s", result.Status, result.Stdout, result.Stderr)
	}
}

package e2e

import (
	_ "embed"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"observability-hub/e2e/nspawn"
	"observability-hub/e2e/workspace"
)

//go:embed testdata/gitsync/unhealthy.sh
var gitsyncUnhealthy string

// provokeGitsync makes gitsync print each of its events and passes every line to look.
func provokeGitsync(t *testing.T, look func(from, output string)) {
	t.Helper()
	binary, err := workspace.Binary("gitsync")
	if err != nil {
		t.Fatal(err)
	}
	w := newGitsyncWorld(t, binary)
	path := func(name string) string { return filepath.Join(w.dir, name) }
	put := func(name, content string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(path(name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path(name), []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	drop := func(names ...string) {
		t.Helper()
		for _, name := range names {
			if err := os.RemoveAll(path(name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	// provoke runs gitsync with additional variables and checks that it prints an event.
	provoke := func(event string, env []string, args ...string) {
		t.Helper()
		got := finish(t, w.command(env, args...))
		look("gitsync "+event, got.stdout)
		look("gitsync "+event, got.stderr)
		if !strings.Contains(got.stdout+got.stderr, `"msg":"`+event+`"`) {
			t.Errorf("gitsync %s does not print %s: status %d\nstdout: %s\nstderr: %s", strings.Join(args, " "), event, got.status, got.stdout, got.stderr)
		}
	}
	commit := func(name, content string) {
		t.Helper()
		put("hub/"+name, content)
		w.git("add", "-A")
		w.git("commit", "-q", "-m", name)
	}
	refused := func(event, name, content string, args ...string) {
		t.Helper()
		commit(name, content)
		provoke(event, nil, args...)
		w.git("reset", "-q", "--hard", "HEAD^")
	}

	provoke("nothing_pulled", nil, "apply")
	provoke("no_repository", []string{"GITSYNC_REPO="}, "pull")
	provoke("usage", nil, "pull", "--ref", "a b")
	provoke("remote_unavailable", []string{"GITSYNC_REPO=/nowhere"}, "pull")
	w.push()
	provoke("no_such_ref", nil, "pull", "--ref", "nowhere")
	provoke("no_signers", nil, "pull", "--allowed-signers", "/nowhere")
	if out, err := exec.Command("git", "clone", "-q", "--depth", "1", "file://"+path("hub"), path("shallow")).CombinedOutput(); err != nil {
		t.Fatalf("git clone: %v: %s", err, out)
	}
	provoke("signature_refused", nil, "pull", "--allowed-signers", "/dev/null")
	provoke("pulled", nil, "pull")
	provoke("planned", nil, "plan")
	provoke("applied", nil, "apply")
	provoke("nothing_before", nil, "rollback")
	provoke("other_root", nil, "plan", "--root", "hub")
	provoke("status", nil, "status")
	provoke("held", nil, "hold", "--for", "1h")
	put("state/hold.json", "damaged")
	provoke("state_damaged", nil, "apply")
	provoke("hold_unreadable", nil, "resume")
	provoke("resumed", nil, "resume")
	put("state/pulled.json", "damaged")
	provoke("state_unreadable", nil, "pull")

	w.git("commit", "-q", "--allow-empty", "-m", "later")
	staggered := []string{"GITSYNC_STAGGER=1h", "GITSYNC_TURN=1", "GITSYNC_HOST=web1"}
	provoke("pulled", staggered, "pull")
	provoke("commit_waits", staggered, "plan")
	provoke("status", staggered, "status")
	w.git("update-ref", "refs/hosts/web2/bad", "HEAD")
	provoke("rollout_stopped", nil, "pull", "--stop-after", "1")
	provoke("verdict", staggered, "verdict")
	w.git("config", "transfer.hideRefs", "refs/hosts")
	w.git("update-ref", "refs/hosts/web3/bad", "HEAD")
	provoke("verdict_refused", []string{"GITSYNC_HOST=web3"}, "verdict")
	w.git("config", "--unset", "transfer.hideRefs")

	refused("commit_refused", "systemd/a b.service", "", "pull")
	w.git("commit", "-q", "--allow-empty", "-m", "ahead")
	provoke("pulled", nil, "pull")
	w.git("reset", "-q", "--hard", "HEAD^")
	provoke("rewind_refused", nil, "pull")
	w.git("commit", "-q", "--allow-empty", "-m", "forward")
	drop("state/pulled.json")
	refused("verify_failed", "systemd/x.service", "[Service]\nExecStart=job\nNicee=1\n", "sync", "--allow-rewind")
	drop("state/pulled.json")
	w.git("rm", "-rq", "systemd", "scripts")
	commit("kept", "")
	provoke("pulled", nil, "pull")
	provoke("prune_ahead", nil, "plan", "--allow-rewind")
	provoke("prune_refused", nil, "apply", "--allow-rewind")
	w.push()
	w.push()
	provoke("pulled", nil, "pull", "--allow-rewind")
	cmd := w.command(nil, "apply", "-")
	cmd.Stdin = strings.NewReader("nonsense\n")
	got := finish(t, cmd)
	look("plan_refused", got.stderr)

	w.push()
	provoke("pulled", nil, "pull")
	provoke("no_systemd", []string{"PATH=" + onlyGit(t)}, "apply")
	put("state/other/systemctl", "#! /bin/sh\necho 'Failed to connect to bus: No such file or directory' >&2\nexit 1\n")
	provoke("systemd_unavailable", []string{"PATH=" + path("state/other") + ":/usr/bin:/bin", "GITSYNC_STATE_DIR=" + path("fresh"), "GITSYNC_SOURCE=" + path("state")}, "plan", "--root", "/")
	drop("root/usr/local/bin")
	put("root/usr/local/bin", "in the way")
	provoke("host_unwritable", nil, "apply")
	drop("root/usr/local/bin")
	provoke("applied", nil, "apply")
	put("state/journal.json", `{"version":1,"root":"`+path("root")+`","run":"x","files":[{"path":"/no/such/folder","kind":"file","mode":420,"content":"","sha256":"x"}]}`)
	provoke("apply_interrupted", nil, "plan")
	provoke("undo_failed", nil, "apply")
	drop("state/journal.json")
	put("root/etc/systemd/system/foreign.service", "[Service]\nExecStart=mine\n")
	commit("systemd/foreign.service", "[Service]\nExecStart=/bin/true\n")
	put("root/bin/true", "")
	provoke("foreign_files", nil)
	provoke("stale", nil, "status", "--max-age", "1ns")
	commit("systemd/old.service", "[Service]\nType=oneshot\nExecStart=/bin/true\nKillMode=none\n")
	provoke("unit_warning", nil)

	put("state/repo.git/HEAD.lock", "")
	provoke("stale_lock", nil, "pull")
	put("state/repo.git/config", "[core]\n")
	provoke("repository_settled", nil, "pull")
	drop("state/repo.git/objects")
	provoke("repository_corrupt", nil, "apply")
	w.git("commit", "-q", "--allow-empty", "-m", "more")
	objects, err := filepath.Glob(path("state/repo.git/objects/*/*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range objects {
		drop(strings.TrimPrefix(o, w.dir))
		put(strings.TrimPrefix(o, w.dir), "")
	}
	put("state/repo.git/refs/gitsync/fetched", "damaged\n")
	provoke("repository_replaced", nil, "pull")
	tip, err := os.ReadFile(path("state/repo.git/refs/gitsync/fetched"))
	if err != nil {
		t.Fatal(err)
	}
	drop("state/repo.git/refs/gitsync/accepted")
	put("state/repo.git/refs/gitsync/accepted/in/the/way", string(tip))
	w.git("commit", "-q", "--allow-empty", "-m", "more")
	provoke("housekeeping_failed", nil, "pull")
	old, err := os.Readlink(path("trees/current"))
	if err != nil {
		t.Fatal(err)
	}
	put("trees/"+old+"/data/of/a/container", "")
	commit("docs/big", "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")
	provoke("lfs_pointers", nil, "pull")
	w.git("commit", "-q", "--allow-empty", "-m", "more")
	provoke("tree_kept", nil, "pull", "--keep-trees", "1")
	drop("trees/current")
	put("trees/current/file", "")
	w.git("commit", "-q", "--allow-empty", "-m", "more")
	provoke("publish_failed", nil, "pull")

	if out, err := exec.Command("git", "-C", path("shallow"), "fetch", "-q", "--depth", "1", "--update-head-ok", "origin", "+main:main").CombinedOutput(); err != nil {
		t.Fatalf("git fetch: %v: %s", err, out)
	}
	provoke("ref_not_fetched", []string{"GITSYNC_STATE_DIR=" + path("fresh")}, "pull", "--repo", path("shallow"))
	put("theirs/ledger.json", "{}")
	if err := errors.Join(os.Chmod(path("theirs"), 0o700), os.Chown(path("theirs"), 1, 1)); err != nil {
		t.Fatal(err)
	}
	denied := w.command([]string{"GITSYNC_STATE_DIR=" + path("theirs")}, "status")
	denied.Args = append([]string{"setpriv", "--bounding-set=-all", "--inh-caps=-all"}, denied.Args...)
	if denied.Path, err = exec.LookPath("setpriv"); err != nil {
		t.Fatal(err)
	}
	look("permission_denied", finish(t, denied).stderr)
	look("other_state", finish(t, besideUnits(t, w.command([]string{"GITSYNC_STATE_DIR="}, "hold"), "gitops-apply", "gitops-sync")).stderr)

	provoke("state_unwritable", []string{"GITSYNC_STATE_DIR=/proc/nowhere"}, "pull")
	provoke("no_state_directory", []string{"GITSYNC_STATE_DIR=", "HOME="}, "pull")
	dir, err := os.Open(path("state"))
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	if err := syscall.Flock(int(dir.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	provoke("locked", nil, "pull")

	result := nspawn.Run(t, nspawn.Config{Packages: []string{"git", "jq"}, Tools: []string{"gitsync"}, Script: gitsyncUnhealthy})
	if result.Status != 0 {
		t.Errorf("the machine's script: exit status %d: %s", result.Status, result.Stderr)
	}
	look("the machine", result.Left(t, "lines"))
}

// onlyGit returns a PATH without systemd's tools.
func onlyGit(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Symlink("/usr/bin/git", filepath.Join(dir, "git")); err != nil {
		t.Fatal(err)
	}
	return dir
}

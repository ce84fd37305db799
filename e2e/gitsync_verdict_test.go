package e2e

import (
	"crypto/rand"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"observability-hub/e2e/workspace"
)

// verdictServer is a bare repository that hosts reach through deploy/git/git-host, as they would through sshd.
type verdictServer struct {
	t    *testing.T
	w    *gitsyncWorld
	bare string
}

func newVerdictServer(t *testing.T) *verdictServer {
	t.Helper()
	binary, err := workspace.Binary("gitsync")
	if err != nil {
		t.Fatal(err)
	}
	w := newGitsyncWorld(t, binary)
	w.push()
	s := &verdictServer{t, w, filepath.Join(w.dir, "bare.git")}
	w.git("clone", "-q", "--bare", ".", s.bare)
	w.git("remote", "add", "server", s.bare)
	root, err := workspace.Root()
	if err != nil {
		t.Fatal(err)
	}
	// sshd runs the forced command of the key with the client's command in SSH_ORIGINAL_COMMAND. HOST stands for the key.
	write(t, filepath.Join(w.dir, "ssh"), `#!/bin/sh
for last; do :; done
unset GIT_PROTOCOL # as sshd does
export SSH_ORIGINAL_COMMAND="$last" PATH="${SERVER_PATH:-$PATH}"
exec "${GIT_HOST:-`+filepath.Join(root, "deploy/git/git-host")+`}" "$HOST" `+s.bare+"\n")
	if err := os.Chmod(filepath.Join(w.dir, "ssh"), 0o755); err != nil {
		t.Fatal(err)
	}
	return s
}

// publish pushes the next commit of the world to the server, and returns it.
func (s *verdictServer) publish() string {
	s.t.Helper()
	s.w.push()
	s.w.git("push", "-q", "server", "main")
	return s.refs("refs/heads/main")
}

// refs returns the objects of the refs that match a pattern.
func (s *verdictServer) refs(pattern string) string {
	s.t.Helper()
	out, err := exec.Command("git", "-C", s.bare, "for-each-ref", "--format=%(objectname)", pattern).Output()
	if err != nil {
		s.t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// run runs gitsync on a host, with its own state directory and root.
func (s *verdictServer) run(host string, args ...string) outcome {
	s.t.Helper()
	root := filepath.Join(s.w.dir, "root-"+host)
	if err := os.MkdirAll(filepath.Join(root, "etc/systemd/system"), 0o755); err != nil {
		s.t.Fatal(err)
	}
	return finish(s.t, s.w.command([]string{"HOST=" + host, "GITSYNC_HOST=" + host, "GITSYNC_ROOT=" + root, "GITSYNC_PUBLISH=",
		"GITSYNC_STATE_DIR=" + filepath.Join(s.w.dir, "state-"+host), "GIT_SSH_COMMAND=" + filepath.Join(s.w.dir, "ssh"), "GITSYNC_REPO=ssh://git@server/any.git"}, args...))
}

func (s *verdictServer) want(status int, text, host string, args ...string) {
	s.t.Helper()
	if got := s.run(host, args...); got.status != status || !strings.Contains(got.stdout+got.stderr, text) {
		s.t.Errorf("%s: gitsync %s: exit status %d; want %d and %s\n%s%s", host, strings.Join(args, " "), got.status, status, text, got.stdout, got.stderr)
	}
}

// A verdict uploads nothing, also if the branch has moved to a commit that the host does not have.
func TestGitsyncVerdictOfMovedBranch(t *testing.T) {
	s := newVerdictServer(t)
	noise := make([]byte, 100_000)
	_, _ = rand.Read(noise) // never fails
	write(t, filepath.Join(s.w.dir, "hub/large"), string(noise))
	s.w.git("add", "-A")
	s.w.git("commit", "-q", "-m", "more than git-host accepts")
	s.w.git("push", "-q", "server", "main")
	s.want(0, `"msg":"applied"`, "web1", "sync")
	bad := s.publish()
	s.want(0, `"msg":"applied"`, "web1", "sync")
	s.want(0, `"msg":"applied"`, "web1", "rollback")
	s.publish()
	s.want(0, `"bad":"`+bad, "web1", "verdict")
	if got := s.refs("refs/hosts/web1/bad"); got != bad {
		t.Errorf("the verdict is %q; want %q", got, bad)
	}
}

// A host may write its own verdict and nothing else, and its verdict stops other hosts.
func TestGitsyncVerdictServer(t *testing.T) {
	s := newVerdictServer(t)
	for _, host := range []string{"web1", "web2"} {
		s.want(0, `"msg":"applied"`, host, "sync")
	}
	first := s.refs("refs/heads/main")
	bad := s.publish()
	s.want(0, `"msg":"applied"`, "web1", "sync")
	s.want(0, `"msg":"applied"`, "web1", "rollback")
	s.want(0, `"bad":"`+bad, "web1", "verdict")
	s.want(0, `"bad_on":["web1"]`, "web2", "pull", "--stop-after", "1")
	s.want(78, "may write only refs/hosts/web2/bad, not refs/hosts/web3/bad", "web2", "verdict", "--host", "web3", "--state-dir", filepath.Join(s.w.dir, "state-web1"))

	// What a host can push with its key and git itself.
	var server []string // variables of the server
	push := func(text string, refs ...string) {
		t.Helper()
		cmd := exec.Command("git", append([]string{"-C", filepath.Join(s.w.dir, "hub"), "push", "-q", "ssh://git@server/any.git"}, refs...)...)
		cmd.Env = append(append(os.Environ(), server...), "HOST=web2", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_SSH_COMMAND="+filepath.Join(s.w.dir, "ssh"), "GIT_SSH_VARIANT=ssh")
		if out, err := cmd.CombinedOutput(); !strings.Contains(string(out), text) || (err == nil) != (text == "") {
			t.Errorf("git push %s: %v: %s; want %q", strings.Join(refs, " "), err, out, text)
		}
	}
	s.w.push() // a commit that the server does not have
	push("may write only", "main:main")
	push("may write only", ":main")
	push("may write only", "main:refs/tags/v1")
	push("may write only", "+"+first+":refs/hosts/web1/bad")
	push("may write only", ":refs/hosts/web1/bad")
	push("may write only", first+":refs/hosts/web2/good")
	push("may write only", first+":refs/hosts/web2/bad", first+":refs/heads/x")
	push("may name only a commit of a branch", "main:refs/hosts/web2/bad")
	push("may name only a commit of a branch", first+"^{tree}:refs/hosts/web2/bad")
	before := contents(t, s.bare)
	noise := make([]byte, 100_000)
	_, _ = rand.Read(noise) // never fails
	write(t, filepath.Join(s.w.dir, "hub/large"), string(noise))
	s.w.git("add", "-A")
	s.w.git("commit", "-q", "-m", "large")
	push("exceeds maximum allowed size", "main:refs/hosts/web2/bad")
	// Objects beside an acceptable verdict, which git's own push does not send.
	junk := exec.Command("sh", "-c", `
		blob=$(git hash-object -w "$3") line="0000000000000000000000000000000000000000 $1 refs/hosts/web2/bad"
		{ printf '%04x%s\0report-status0000' $((${#line} + 18)) "$line" && echo "$blob" | git pack-objects -q --stdout; } | "$2" server "git-receive-pack x"`, "sh", first, filepath.Join(s.w.dir, "ssh"), filepath.Join(s.w.dir, "small"))
	junk.Dir = filepath.Join(s.w.dir, "hub")
	write(t, filepath.Join(s.w.dir, "small"), "an object of the host")
	junk.Env = append(os.Environ(), "HOST=web2")
	if out, _ := junk.CombinedOutput(); !strings.Contains(string(out), "may send no objects") {
		t.Errorf("a verdict with another object: %s", out)
	}
	// A server whose git does not know GIT_CONFIG_COUNT, as before 2.31, and one without the hook.
	old := filepath.Join(s.w.dir, "old")
	executable := func(name, text string) {
		t.Helper()
		if err := os.MkdirAll(old, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(old, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"git", "git-receive-pack"} {
		executable(name, "#!/bin/sh\nunset GIT_CONFIG_COUNT\nexec /usr/bin/"+name+" \"$@\"\n")
	}
	server = []string{"SERVER_PATH=" + old + ":" + os.Getenv("PATH")}
	push("may write only", first+":refs/heads/x")
	copied, err := os.ReadFile("../deploy/git/git-host")
	if err != nil {
		t.Fatal(err)
	}
	executable("git-host", string(copied))
	server = []string{"GIT_HOST=" + filepath.Join(old, "git-host")}
	push("nothing may be pushed", first+":refs/heads/x")
	server = nil
	if after := contents(t, s.bare); !slices.Equal(after, before) {
		t.Errorf("the server keeps what it refused: %q; before: %q", after, before)
	}
	push("", first+":refs/hosts/web2/bad")
	push("", ":refs/hosts/web2/bad")

	// The correction: the host applies it and withdraws its verdict.
	s.publish()
	s.want(0, `"msg":"applied"`, "web1", "sync")
	s.want(0, `"changed":true`, "web2", "pull", "--stop-after", "1")
	s.want(0, `"bad":null,"changed":true`, "web1", "verdict")
	if refs := s.refs("refs/hosts"); refs != "" {
		t.Errorf("the verdict is still there: %s", refs)
	}
}

// TestGitsyncRollOutKills kills a pull that sees a new commit, a pull at the turn of its host, and a verdict, at every boundary
// between two steps. The next run must reach the state of a run that was not killed.
func TestGitsyncRollOutKills(t *testing.T) {
	w := newGitsyncWorld(t, buildGitsync(t))
	env := []string{"GITSYNC_STAGGER=1h", "GITSYNC_TURN=1", "GITSYNC_HOST=web1", "GITSYNC_STOP_AFTER=1"}
	must := func(more []string, args ...string) string {
		t.Helper()
		got := finish(t, w.command(append(more, env...), args...))
		if got.status != 0 {
			t.Fatalf("gitsync %s: exit status %d: %s%s", strings.Join(args, " "), got.status, got.stdout, got.stderr)
		}
		return got.stdout
	}
	state, saved, hub := filepath.Join(w.dir, "state"), filepath.Join(w.dir, "saved"), filepath.Join(w.dir, "hub")
	copyTo := func(from, to string) {
		t.Helper()
		if err := os.RemoveAll(to); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command("cp", "-a", from, to).CombinedOutput(); err != nil {
			t.Fatalf("cp: %v: %s", err, out)
		}
	}
	refs := func() string {
		out, err := exec.Command("git", "-C", hub, "for-each-ref", "--format=%(refname) %(objectname)", "refs/hosts").Output()
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	kills := 0
	// everyStep kills the command at each of its steps. Each time it begins with the saved state, and met is true after the next run.
	everyStep := func(what string, met func(output string) bool, args ...string) {
		t.Helper()
		for n := 1; ; n++ {
			copyTo(saved, state)
			got := finish(t, w.command(append([]string{"GITSYNC_FAULT_AT=" + strconv.Itoa(n)}, env...), args...))
			killed := got.status == 128+int(syscall.SIGKILL)
			if !killed && got.status != 0 {
				t.Fatalf("%s, step %d: exit status %d: %s%s", what, n, got.status, got.stdout, got.stderr)
			}
			if output := must(nil, args...); !met(output) {
				t.Errorf("%s: after a kill at step %d: %s", what, n, output)
			}
			if !killed {
				return
			}
			kills++
		}
	}
	waits := func(output string) bool { return strings.Contains(output, `"waiting":"`) }
	w.push()
	must(nil)
	w.push()
	copyTo(state, saved)
	everyStep("a new commit", waits, "pull")
	everyStep("the turn of the host", func(output string) bool { return !waits(output) }, "pull", "--stagger", "0")
	must(nil, "pull", "--stagger", "0")
	must(nil, "apply")
	must(nil, "rollback")
	copyTo(state, saved)
	bad := func(string) bool { return strings.HasPrefix(refs(), "refs/hosts/web1/bad ") }
	everyStep("a verdict", bad, "verdict")
	if err := os.Remove(filepath.Join(state, "quarantine.json")); err != nil {
		t.Fatal(err)
	}
	copyTo(state, saved)
	everyStep("a verdict that is withdrawn", func(string) bool { return refs() == "" }, "verdict")
	if kills < 8 {
		t.Errorf("only %d kills: the steps have moved", kills)
	}
}

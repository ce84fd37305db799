package main

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"observability-hub/lib/sysexits"
)

func TestPullFollows(t *testing.T) {
	w := newCommands(t)
	w.want(0, `"changed":true`, "pull")
	w.want(0, `"changed":false`, "pull")
	second := w.push()
	if got := w.field(w.want(0, `"changed":true`, "pull"), "commit"); got != second {
		t.Errorf("commit = %v; want %s", got, second)
	}
	w.git("tag", "-a", "-m", "x", "v1")
	if got := w.field(w.want(0, "", "pull", "--ref", "v1"), "commit"); got != second {
		t.Errorf("commit of the tag = %v; want %s", got, second)
	}
	w.want(0, "", "pull", "--ref", "HEAD")
	w.want(0, "", "pull", "--ref", second)
	w.want(sysexits.Config, "its branches are main", "pull", "--ref", "none")
	w.want(sysexits.Config, "in any branch or tag", "pull", "--ref", strings.Repeat("1", 40))
	w.want(sysexits.Config, "no_repository", "pull", "--repo", "")
	w.want(sysexits.Unavailable, "remote_unavailable", "pull", "--repo", "/nowhere")
	w.want(sysexits.Usage, "--timeout", "pull", "--timeout", "0s")
	w.want(sysexits.Usage, "--keep-trees", "pull", "--keep-trees", "0")
}

// A commit that no ref points to is found in the history of the branches.
func TestPullOldHash(t *testing.T) {
	w := newCommands(t)
	first := w.git("rev-parse", "HEAD")
	w.push()
	w.git("config", "uploadpack.allowAnySHA1InWant", "false")
	if got := w.field(w.want(0, "", "pull", "--ref", first), "commit"); got != first {
		t.Errorf("commit = %v; want %s", got, first)
	}
}

func TestPullRewind(t *testing.T) {
	w := newCommands(t)
	first := w.git("rev-parse", "HEAD")
	w.push()
	w.want(0, "", "pull")
	w.git("reset", "-q", "--hard", first)
	w.want(sysexits.DataErr, "GITSYNC_ALLOW_REWIND=true", "pull")
	w.want(0, `"changed":true`, "pull", "--allow-rewind")
}

func TestPullShallowRemote(t *testing.T) {
	w := newCommands(t)
	w.push()
	if out, err := exec.Command("git", "clone", "-q", "--bare", "--depth", "1", "file://"+w.path("hub"), w.path("mirror")).CombinedOutput(); err != nil {
		t.Fatalf("git clone: %v: %s", err, out)
	}
	w.want(sysexits.Unavailable, "--unshallow", "pull", "--repo", w.path("mirror"))
	w.want(sysexits.Unavailable, "ref_not_fetched", "pull", "--repo", w.path("mirror"), "--ref", w.git("rev-parse", "HEAD"))
}

func TestPullRepairsItsRepository(t *testing.T) {
	w := newCommands(t)
	w.want(0, "", "pull")
	w.write("state/repo.git/HEAD.lock", "")
	w.write("state/repo.git/config", "[core]\n\tfsmonitor = touch canary\n")
	w.write("state/repo.git/hooks/post-fetch", "")
	w.write("state/repo.git/objects/pack/tmp_pack_x", "")
	w.want(0, "stale_lock", "pull")
	if w.read("state/repo.git/config") != bareConfig || w.exists("state/repo.git/hooks") || w.exists("state/repo.git/objects/pack/tmp_pack_x") {
		t.Error("the repository was not repaired")
	}
	// A run was killed between the two renames of replace.
	if err := os.Rename(w.path("state/repo.git"), w.path("state/repo.git.old")); err != nil {
		t.Fatal(err)
	}
	w.want(0, `"changed":false`, "pull")
	// A file in the place of the repository.
	if err := os.RemoveAll(w.path("state/repo.git")); err != nil {
		t.Fatal(err)
	}
	w.write("state/repo.git", "")
	w.want(0, `"changed":false`, "pull")
	// The objects are damaged.
	w.push()
	packs, err := os.ReadDir(w.path("state/repo.git/objects/pack"))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range packs {
		name := w.path("state/repo.git/objects/pack/" + p.Name())
		if err := errors.Join(os.Chmod(name, 0o600), os.Truncate(name, 20)); err != nil { // git makes them read-only
			t.Fatal(err)
		}
	}
	w.want(0, "repository_replaced", "pull")
	w.write("state/pulled.json", "damaged")
	w.want(0, "state_unreadable", "pull")
}

func TestPullSigned(t *testing.T) {
	w := newCommands(t)
	w.want(sysexits.DataErr, "it is not signed", "pull", "--allowed-signers", "/dev/null")
	w.want(sysexits.DataErr, "it is not signed", "pull", "--gpg-home", w.dir)
	w.want(sysexits.Config, "no_signers", "pull", "--allowed-signers", "/nowhere")
	w.want(sysexits.Config, "no_signers", "pull", "--gpg-home", "/nowhere")
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", w.path("key")).CombinedOutput(); err != nil {
		t.Fatalf("ssh-keygen: %v: %s", err, out)
	}
	w.write("signers", "test@example.org "+w.read("key.pub"))
	w.git("-c", "gpg.format=ssh", "-c", "user.signingKey="+w.path("key"), "commit", "-q", "-S", "--allow-empty", "-m", "signed")
	w.want(0, `"verified":true`, "pull", "--allowed-signers", w.path("signers"))
	w.want(sysexits.DataErr, "its signature is not good", "pull", "--allowed-signers", "/dev/null")
}

// readPulled removes secrets from the URL that an older gitsync wrote.
func TestReadPulled(t *testing.T) {
	w := newCommands(t)
	w.write("s/pulled.json", `{"repo":"https://u:p@h/r","ref":"main","commit":"`+someHash+`"}`)
	p, err := readPulled(w.path("s"))
	if err != nil || p.Repo != "https://h/r" || !p.secret {
		t.Errorf("readPulled = %+v, %v", p, err)
	}
	w.write("s/pulled.json", `{"commit":"`+someHash+`","waiting":{"commit":"`+someHash+`","bad_on":["a","\u001b[2J","","b/c","d","e","f","g","h"]}}`)
	if p, err := readPulled(w.path("s")); err != nil || p.Waiting == nil || strings.Join(p.Waiting.BadOn, " ") != "a d e f g" {
		t.Errorf("readPulled = %+v, %v", p.Waiting, err)
	}
	w.write("s/pulled.json", `{"commit":"`+someHash+`","waiting":{"commit":"../x"}}`)
	if p, err := readPulled(w.path("s")); err != nil || p.Waiting != nil {
		t.Errorf("readPulled = %+v, %v", p.Waiting, err)
	}
	for _, bad := range []string{`{"commit":"x"}`, `{"path":"../x"}`, "nonsense"} {
		w.write("s/pulled.json", bad)
		if _, err := readPulled(w.path("s")); err == nil {
			t.Errorf("readPulled accepts %s", bad)
		}
	}
}

func TestAgree(t *testing.T) {
	p := pulled{anchor: anchor{Repo: "https://h/r", Ref: "main", Commit: someHash}}
	for repo, want := range map[string]int{"": 0, "https://h/r": 0, "https://new:token@h/r": 0, "https://h/other": sysexits.Config, "https://u:a/b@h/r": sysexits.Config} {
		if err := p.agree(originFlags{Repo: repo}); sysexits.Code(err) != want {
			t.Errorf("agree(%q) = %v; want status %d", repo, err, want)
		}
	}
	if err := (pulled{}).agree(originFlags{Repo: "https://h/other"}); err != nil {
		t.Errorf("agree with nothing pulled = %v", err)
	}
}

func TestCheckPart(t *testing.T) {
	for in, want := range map[string]string{"": "", ".": "", "a": "a", "./a/": "a", "a//b": "a/b", "hosts/web 1": "hosts/web 1", "a..b": "a..b"} {
		if err := checkPart(in); err != nil || cleanPart(in) != want {
			t.Errorf("%q is %q, %v; want %q", in, cleanPart(in), err, want)
		}
	}
	for _, bad := range []string{"/a", "..", "a/../b", "../a", "a\n", "a\x00"} {
		if err := checkPart(bad); err == nil {
			t.Errorf("checkPart accepts %q", bad)
		}
	}
}

func TestRemoteHint(t *testing.T) {
	for _, tc := range []struct{ repo, said, want string }{
		{"https://h/r", "fatal: Authentication failed for 'https://h/r'", tokenHint},
		{"https://h/r", "fatal: could not read Username for 'https://h'", tokenHint},
		{"https://h/r", "error: The requested URL returned error: 403", tokenHint},
		{"git@h:r", "git@h: Permission denied (publickey).", keyHint},
		{"ssh://h/r", "Host key verification failed.", keyHint},
		{"git@h:r", "@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @\nHost key verification failed.", "known_hosts"},
		{"/srv/r", "fatal: detected dubious ownership in repository at '/srv/r'", "chown"},
		{"/srv/r", "fatal: '/srv/r' does not appear to be a git repository", "--repo"},
		{"git@h:r", "ssh: connect to host h port 22: Connection refused", "next run"},
	} {
		if got := remoteHint(tc.repo, tc.said); !strings.Contains(got, tc.want) {
			t.Errorf("hint of %q = %q; want %q", tc.said, got, tc.want)
		}
	}
}

func TestExplain(t *testing.T) {
	p := &pull{originFlags: originFlags{Repo: "https://u:p@h/r", Ref: "main"}, pullFlags: pullFlags{Timeout: time.Minute}}
	git := func(command, said string) error {
		return &gitError{command: command, said: said, err: errors.New("exit status 128")}
	}
	late, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer cancel()
	for _, tc := range []struct {
		name string
		ctx  context.Context
		err  error
		want int
	}{
		{"an error with a status", t.Context(), nothingPulled("x"), sysexits.Config},
		{"full disk", t.Context(), &os.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC}, sysexits.CantCreate},
		{"git's full disk", t.Context(), git("fetch", "fatal: write error: No space left on device"), sysexits.CantCreate},
		{"too late", late, git("fetch", ""), sysexits.Unavailable},
		{"not git", t.Context(), errors.New("x"), sysexits.Failed},
		{"no ref", t.Context(), git("fetch", "fatal: couldn't find remote ref refs/heads/x"), sysexits.Config},
		{"SHA-256", t.Context(), git("fetch", "fatal: mismatched algorithms: client sha1; server sha256"), sysexits.DataErr},
		{"another command", t.Context(), git("update-ref", "fatal: x"), sysexits.Failed},
		{"remote", t.Context(), git("ls-remote", "fatal: x"), sysexits.Unavailable},
	} {
		err := p.explain(tc.ctx, tc.err)
		if got := sysexits.Code(err); got != tc.want {
			t.Errorf("%s: status %d (%v); want %d", tc.name, got, err, tc.want)
		}
		if strings.Contains(err.Error(), "u:p") {
			t.Errorf("%s: %v contains the password", tc.name, err)
		}
	}
}

package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// git runs as the owner of the state directory, who cannot read root's files and
// gets copies.
func TestFindCredentials(t *testing.T) {
	store, dir := t.TempDir(), t.TempDir()
	t.Setenv("CREDENTIALS_DIRECTORY", store)
	if err := os.WriteFile(filepath.Join(store, "deploy_key"), []byte("key"), 0o600); err != nil {
		t.Fatal(err)
	}
	own, err := findCredentials(nil, pullKeys, "/state", dir)
	if err != nil || len(own.files) != 1 || own.files["deploy_key"] != filepath.Join(store, "deploy_key") {
		t.Fatalf("for this user: %v, %v", own, err)
	}
	as := &syscall.Credential{Uid: uint32(os.Geteuid()), Gid: uint32(os.Getegid())}
	if as.Uid == 0 {
		as = &syscall.Credential{Uid: 65534, Gid: 65534}
	}
	killed, err := findCredentials(as, pullKeys, "/state", dir) // a run that cannot remove its copies
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(killed.copies, "old"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	other, err := findCredentials(as, pullKeys, "/other", dir) // a run of another state directory, at the same time
	if err != nil {
		t.Fatal(err)
	}
	lent, err := findCredentials(as, pullKeys, "/state", dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(lent.copies, "old")); err == nil || lent.copies == other.copies {
		t.Errorf("the copies of the killed run are still there: %v", err)
	}
	if _, err := os.Stat(other.files["deploy_key"]); err != nil {
		t.Errorf("the copies of another run: %v", err)
	}
	other.remove()
	b, err := os.ReadFile(lent.files["deploy_key"])
	if err != nil || string(b) != "key" {
		t.Errorf("the copy: %q, %v", b, err)
	}
	for name, mode := range map[string]os.FileMode{lent.files["deploy_key"]: 0o400, filepath.Dir(lent.files["deploy_key"]): 0o700} {
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		if st, ok := info.Sys().(*syscall.Stat_t); !ok || st.Uid != as.Uid || info.Mode().Perm() != mode {
			t.Errorf("%s: owner %d, mode %o; want %d, %o", name, st.Uid, info.Mode().Perm(), as.Uid, mode)
		}
	}
	lent.remove()
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// In the stores, the keys that may write have names of their own; the units give them those of git's keys.
func TestVerdictKeys(t *testing.T) {
	text, err := os.ReadFile("../systemd/gitops-verdict.service")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"deploy_key", "known_hosts", "git_credentials"} {
		line := "\nLoadCredential=" + name + ":" + verdictKeys(name) + "\n"
		if verdictKeys(name) == name {
			line = "\nLoadCredential=" + name + "\n"
		}
		if !strings.Contains(string(text), line) {
			t.Errorf("gitops-verdict.service has no line %s", line)
		}
	}
}

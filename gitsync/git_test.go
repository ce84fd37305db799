package main

import (
	"context"
	"errors"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

func TestGitEnv(t *testing.T) {
	got := gitEnv([]string{"HOME=/h", "GIT_DIR=/x", "GIT_WORK_TREE=/x", "GIT_CONFIG_COUNT=1", "GIT_SSH_COMMAND=ssh -v", "GIT_SSL_NO_VERIFY=1",
		"GIT_ASKPASS=/gui", "SSH_ASKPASS=/gui", "DISPLAY=:0", "GIT_CONFIG_GLOBAL=/g", "LC_ALL=de_DE"})
	for _, want := range []string{"HOME=/h", "GIT_SSH_COMMAND=ssh -v", "GIT_SSL_NO_VERIFY=1", "GIT_CONFIG_GLOBAL=/g", "GIT_TERMINAL_PROMPT=0", "GIT_ASKPASS=/bin/false"} {
		if !slices.Contains(got, want) {
			t.Errorf("gitEnv lacks %s", want)
		}
	}
	for _, v := range got {
		for _, bad := range []string{"GIT_DIR=", "GIT_WORK_TREE=", "GIT_CONFIG_COUNT=", "GIT_ASKPASS=/gui", "SSH_ASKPASS=", "DISPLAY=", "LC_ALL=de"} {
			if strings.HasPrefix(v, bad) {
				t.Errorf("gitEnv keeps %s", v)
			}
		}
	}
}

func TestGitErrorSaysWhy(t *testing.T) {
	for _, tc := range []struct{ said, want string }{
		{"fatal: repository 'x' does not exist\n", "fatal: repository 'x' does not exist"},
		{"ssh: connect to host h port 22: Connection refused\nfatal: Could not read from remote repository.\n\nPlease make sure you have the correct access rights\nand the repository exists.\n",
			"ssh: connect to host h port 22: Connection refused"},
		{"warning: redirecting\nfatal: unable to access 'https://u:secret@h/': no route\n", "fatal: unable to access 'https://u:xxxxx@h/': no route"},
		{"remote: ERROR: access denied\nfatal: Could not read from remote repository.\n", "ERROR: access denied"},
		{"", "boom"},
	} {
		err := &gitError{command: "fetch", said: tc.said, err: errors.New("boom")}
		if got := err.Error(); got != "git fetch: "+tc.want {
			t.Errorf("Error() of %q = %q; want %q", tc.said, got, tc.want)
		}
	}
	if got := (&gitError{command: "fetch", err: context.DeadlineExceeded}).Error(); got != "git fetch: no answer in time" {
		t.Errorf("a time-out reads %q", got)
	}
}

// What git gets as GIT_SSH_COMMAND is parsed by a shell.
func TestSSHCommandQuoting(t *testing.T) {
	command := sshCommand("/run/it's a key", "/run/100%")
	out, err := exec.Command("sh", "-c", `printf '%s\n' `+command).Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"BatchMode=yes", `IdentityFile="/run/it's a key"`, `UserKnownHostsFile="/run/100%%"`, "StrictHostKeyChecking=yes"} {
		if !slices.Contains(strings.Split(string(out), "\n"), want) {
			t.Errorf("%s lacks the word %s", command, want)
		}
	}
}

func TestRemoteURL(t *testing.T) {
	for _, tc := range []struct{ in, want string }{
		{"https://h/r.git", "https://h/r.git"}, {"git@h:r.git", "git@h:r.git"}, {"/srv/r", "/srv/r"},
	} {
		if got, err := remoteURL(tc.in); got != tc.want || err != nil {
			t.Errorf("remoteURL(%q) = %q, %v; want %q", tc.in, got, err, tc.want)
		}
	}
	if got, err := remoteURL("./a:b"); err != nil || !strings.HasPrefix(got, "/") {
		t.Errorf("remoteURL of a relative path = %q, %v", got, err)
	}
}

func TestDisplayURL(t *testing.T) {
	for in, want := range map[string]string{
		"https://token@h/r.git":    "https://h/r.git",
		"https://u:p@w@h:8080/r":   "https://h:8080/r",
		"ssh://git@h/r.git":        "ssh://git@h/r.git",
		"git@h:r.git":              "git@h:r.git",
		"https://h/path@with/at":   "https://h/path@with/at",
		"/srv/git/hub":             "/srv/git/hub",
		"https://h":                "https://h",
		"https://oauth2:tok@h/a/b": "https://h/a/b",
	} {
		if got := displayURL(in); got != want {
			t.Errorf("displayURL(%q) = %q; want %q", in, got, want)
		}
	}
}

func TestCheckRef(t *testing.T) {
	for _, good := range []string{"main", "feature/x", "v1.2", "refs/heads/main", "HEAD", strings.Repeat("a", 40)} {
		if err := checkRef(good); err != nil {
			t.Errorf("checkRef(%q) = %v", good, err)
		}
	}
	for _, bad := range []string{"", "-x", "a..b", "a b", "a:b", "a^", "a~1", "a*", "a\n", "a.lock", "a/", "/a", "a//b", "@{u}", "a@{1}"} {
		if err := checkRef(bad); err == nil {
			t.Errorf("checkRef(%q) passes", bad)
		}
	}
}

package main

import (
	"context"
	"errors"
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

func TestCheckRef(t *testing.T) {
	for _, good := range []string{"main", "feature/x", "v1.2", "refs/heads/main", "HEAD", strings.Repeat("a", 40)} {
		if err := checkRef(good); err != nil {
			t.Errorf("checkRef(%q) = %v", good, err)
		}
	}
	for _, bad := range []string{"", "-x", "a..b", "a b", "a:b", "a^", "a~1", "a*", "a\n", "a.lock", "a/", "/a", "a//b", "@{u}", "a@{1}"} {
		if err := checkRef(bad); err == nil {
			t.Errorf("checkRef(%q) accepts the name", bad)
		}
	}
}

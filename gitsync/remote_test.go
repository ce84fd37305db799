package main

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

func TestParseRemote(t *testing.T) {
	for _, tc := range []struct {
		in   string
		want remote
	}{
		{"https://h/r.git", remote{url: "https://h/r.git"}},
		{"https://token@h/r.git", remote{url: "https://h/r.git", user: "token"}},
		{"https://oauth2:tok@h/a/b", remote{url: "https://h/a/b", user: "oauth2", password: "tok", hasPassword: true}},
		{"https://u:p@w@h:8080/r", remote{url: "https://h:8080/r", user: "u", password: "p@w", hasPassword: true}},
		{"HTTPS://u:p@[::1]:8443/r", remote{url: "HTTPS://[::1]:8443/r", user: "u", password: "p", hasPassword: true}},
		{"http://u:@h", remote{url: "http://h", user: "u", hasPassword: true}},
		{"https://:p@h/r", remote{url: "https://h/r", password: "p", hasPassword: true}},
		{"https://u:a%2Fb%40c+d@h/r", remote{url: "https://h/r", user: "u", password: "a/b@c+d", hasPassword: true}},
		{"https://u:50%@h/r", remote{url: "https://h/r", user: "u", password: "50%", hasPassword: true}},
		{"https://h/path@with/at", remote{url: "https://h/path@with/at"}},
		{"https://h?x=a@b", remote{url: "https://h?x=a@b"}},
		{"git://u:p@h/r", remote{url: "git://h/r", user: "u", password: "p", hasPassword: true}},
		{"ssh://git@h:2222/r.git", remote{url: "ssh://git@h:2222/r.git"}},
		{"ssh://git:p@h/r.git", remote{url: "ssh://git@h/r.git"}},
		{"git@h:r.git", remote{url: "git@h:r.git"}},
		{"/srv/r@x:y", remote{url: "/srv/r@x:y"}},
		{"file:///srv/r@x", remote{url: "file:///srv/r@x"}},
	} {
		if got, err := parseRemote(tc.in); got != tc.want || err != nil {
			t.Errorf("parseRemote(%q) = %+v, %v; want %+v", tc.in, got, err, tc.want)
		}
	}
	for _, bad := range []string{"https://u:se/cret@h/r", "https://u:se#cret@h/r", "https://u:a%0ab@h/r", "https://u%00:p@h/r"} {
		_, err := parseRemote(bad)
		if err == nil || strings.Contains(err.Error(), "cret") {
			t.Errorf("parseRemote(%q) = %v; want an error without the password", bad, err)
		}
		if got := displayURL(bad); strings.Contains(got, "cret") {
			t.Errorf("displayURL(%q) = %q", bad, got)
		}
	}
	if got, err := remoteURL("./a:b"); err != nil || !strings.HasPrefix(got, "/") {
		t.Errorf("remoteURL of a relative path = %q, %v", got, err)
	}
	if _, err := remoteURL("https://u:a/b@h/r"); err == nil {
		t.Error("remoteURL accepts a password with a slash")
	}
}

func TestDisplayURL(t *testing.T) {
	for in, want := range map[string]string{
		"https://token@h/r.git": "https://h/r.git",
		"ssh://git@h/r.git":     "ssh://git@h/r.git",
		"git@h:r.git":           "git@h:r.git",
		"rel/ative":             "rel/ative",
	} {
		if got := displayURL(in); got != want {
			t.Errorf("displayURL(%q) = %q; want %q", in, got, want)
		}
	}
}

// A URL that an older gitsync recorded with its token names the same repository as
// the URL with a new token.
func TestBareURL(t *testing.T) {
	for in, want := range map[string]string{"": "", "https://a:b@h/r": "https://h/r", "https://h/r": "https://h/r", "/srv/r": "/srv/r"} {
		if got := bareURL(in); got != want {
			t.Errorf("bareURL(%q) = %q; want %q", in, got, want)
		}
	}
}

func TestRewrite(t *testing.T) {
	s := parseSettings("url.https://tok@h/.insteadof\nhttps://h/\x00url./srv/.insteadof\nhttps://h/srv/\x00core.sshcommand\nssh -v\x00broken\x00")
	for in, want := range map[string]string{"https://h/r": "https://tok@h/r", "https://h/srv/r": "/srv/r", "https://other/r": "https://other/r"} {
		if got, ok := s.rewrite(in); got != want || ok != (got != in) {
			t.Errorf("rewrite(%q) = %q, %v; want %q", in, got, ok, want)
		}
	}
	if got := s.last("core.sshcommand"); got != "ssh -v" {
		t.Errorf("core.sshCommand = %q", got)
	}
}

func TestSettingsEnvironment(t *testing.T) {
	var s settings
	if got := s.environment(); got != nil {
		t.Errorf("no settings are %q", got)
	}
	s.add("a.b", "")
	s.add("c.d", "e f")
	want := []string{"GIT_CONFIG_COUNT=2", "GIT_CONFIG_KEY_0=a.b", "GIT_CONFIG_VALUE_0=", "GIT_CONFIG_KEY_1=c.d", "GIT_CONFIG_VALUE_1=e f"}
	if got := s.environment(); !slices.Equal(got, want) {
		t.Errorf("environment() = %q; want %q", got, want)
	}
}

// The user's own command is kept, found in git's order. If it is OpenSSH, it gets
// options that prevent prompts.
func TestSSHCommand(t *testing.T) {
	own := settings{}
	own.add("core.sshcommand", "ssh -i /k")
	wrapper := settings{}
	wrapper.add("core.sshcommand", "FOO=1 ssh")
	putty := settings{}
	putty.add("ssh.variant", "putty")
	for _, tc := range []struct {
		name       string
		env        map[string]string
		own        settings
		key, hosts string
		want       string
	}{
		{"nothing", nil, nil, "", "", "ssh -o BatchMode=yes -o ConnectTimeout=15 -o ServerAliveInterval=15 -o ServerAliveCountMax=3"},
		{"core.sshCommand", nil, own, "", "", "ssh -o BatchMode=yes -i /k -o ConnectTimeout=15 -o ServerAliveInterval=15 -o ServerAliveCountMax=3"},
		{"GIT_SSH_COMMAND takes precedence", map[string]string{"GIT_SSH_COMMAND": "/usr/bin/ssh -F /f", "GIT_SSH": "/x"}, own, "", "", "/usr/bin/ssh -o BatchMode=yes -F /f -o ConnectTimeout=15 -o ServerAliveInterval=15 -o ServerAliveCountMax=3"},
		{"core.sshCommand before GIT_SSH", map[string]string{"GIT_SSH": "/my/wrapper"}, own, "", "", "ssh -o BatchMode=yes -i /k -o ConnectTimeout=15 -o ServerAliveInterval=15 -o ServerAliveCountMax=3"},
		{"GIT_SSH is ssh", map[string]string{"GIT_SSH": "/opt/bin/ssh"}, nil, "", "", "/opt/bin/ssh -o BatchMode=yes -o ConnectTimeout=15 -o ServerAliveInterval=15 -o ServerAliveCountMax=3"},
		{"GIT_SSH is a wrapper", map[string]string{"GIT_SSH": "/my/wrapper"}, nil, "/k", "", ""},
		{"a shell's assignment", nil, wrapper, "", "", ""},
		{"ssh.variant", nil, putty, "", "", ""},
		{"GIT_SSH_VARIANT", map[string]string{"GIT_SSH_VARIANT": "simple"}, nil, "", "", ""},
		{"credentials", nil, own, "/run/key", "/run/hosts", `ssh -o BatchMode=yes -o IdentitiesOnly=yes -o 'IdentityFile="/run/key"' -o StrictHostKeyChecking=yes -o 'UserKnownHostsFile="/run/hosts"' -i /k -o ConnectTimeout=15 -o ServerAliveInterval=15 -o ServerAliveCountMax=3`},
	} {
		got := sshCommand(func(name string) string { return tc.env[name] }, tc.own, tc.key, tc.hosts)
		var want []string
		if tc.want != "" {
			want = []string{"GIT_SSH_COMMAND=" + tc.want, "GIT_SSH_VARIANT=ssh"}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %q; want %q", tc.name, got, want)
		}
	}
}

// A shell parses GIT_SSH_COMMAND.
func TestSSHCommandQuoting(t *testing.T) {
	command := strings.TrimPrefix(sshCommand(func(string) string { return "" }, nil, "/run/it's a key", "/run/100%")[0], "GIT_SSH_COMMAND=")
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

// The helper answers with the URL's user and password, whatever characters they have.
func TestURLHelper(t *testing.T) {
	cmd := exec.Command("sh", "-c", strings.TrimPrefix(urlHelper, "!")+" get")
	cmd.Env = []string{"GITSYNC_URL_USER=u", `GITSYNC_URL_PASSWORD=p%s\n'"$x`}
	out, err := cmd.Output()
	if want := "username=u\npassword=p%s\\n'\"$x\n"; string(out) != want || err != nil {
		t.Errorf("the helper prints %q, %v; want %q", out, err, want)
	}
	cmd = exec.Command("sh", "-c", strings.TrimPrefix(urlHelper, "!")+" store")
	if out, err := cmd.Output(); len(out) > 0 || err != nil {
		t.Errorf("for store the helper prints %q, %v", out, err)
	}
}

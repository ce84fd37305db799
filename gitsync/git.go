package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"observability-hub/lib/command"
	"observability-hub/lib/redact"
)

// git runs the git command on one bare repository.
//
// What a repository's own configuration could start is switched off, prompts
// are impossible, and no variable of a calling git reaches it: a run inside a
// hook must not work on that hook's repository.
type git struct {
	dir string   // the repository
	env []string // in addition to gitEnv
}

// gitConfig overrides what a configuration file says. Maintenance runs when
// gitsync asks for it, under its lock, and never in the background.
var gitConfig = []string{
	"-c", "core.hooksPath=/dev/null",
	"-c", "core.fsmonitor=false",
	"-c", "gc.auto=0",
	"-c", "maintenance.auto=false",
	"-c", "fetch.recurseSubmodules=false",
	// Always a pack: what a killed or full fetch leaves is then in one folder.
	"-c", "fetch.unpackLimit=1",
	"-c", "http.lowSpeedLimit=100",
	"-c", "http.lowSpeedTime=30",
}

// gitKeep are the GIT_ variables of the caller that say how to reach a remote;
// all others say what to work on, which is gitsync's decision.
var gitKeep = []string{
	"GIT_SSH=", "GIT_SSH_COMMAND=", "GIT_SSH_VARIANT=", "GIT_PROXY_COMMAND=", "GIT_SSL_", "GIT_HTTP_",
	"GIT_CONFIG_GLOBAL=", "GIT_CONFIG_SYSTEM=", "GIT_CONFIG_NOSYSTEM=", "GIT_EXEC_PATH=", "GIT_TRACE", "GIT_CURL_VERBOSE=",
}

// gitEnv is the environment of every git: the caller's, without what could ask
// a person something.
func gitEnv(environ []string) []string {
	env := make([]string, 0, len(environ)+4)
	for _, v := range environ {
		keep := !strings.HasPrefix(v, "GIT_")
		for _, prefix := range gitKeep {
			keep = keep || strings.HasPrefix(v, prefix)
		}
		for _, prompt := range []string{"SSH_ASKPASS=", "DISPLAY=", "WAYLAND_DISPLAY=", "LC_ALL=", "LANGUAGE="} {
			keep = keep && !strings.HasPrefix(v, prompt)
		}
		if keep {
			env = append(env, v)
		}
	}
	return append(env,
		"GIT_TERMINAL_PROMPT=0",
		"GIT_ASKPASS=/bin/false",
		"SSH_ASKPASS_REQUIRE=never",
		// ext:: runs a command, and a helper of another name is a program.
		"GIT_ALLOW_PROTOCOL=file:git:http:https:ssh",
		"GIT_NO_REPLACE_OBJECTS=1",
		// The messages that errors are told apart by.
		"LC_ALL=C.UTF-8")
}

// run runs one git command. The error says what git said.
func (g git) run(ctx context.Context, args ...string) (string, error) {
	out, _, err := g.listen(ctx, args...)
	return out, err
}

// listen is run for a caller that wants to hear what a git that succeeds says.
func (g git) listen(ctx context.Context, args ...string) (out, said string, err error) {
	dir, err := filepath.Abs(g.dir)
	if err != nil {
		return "", "", err
	}
	all := append([]string{"git", "--git-dir=" + dir, "-c", "safe.directory=" + dir}, gitConfig...)
	c := command.Cmd{
		Args:      append(all, args...),
		Env:       append(gitEnv(os.Environ()), g.env...),
		Dir:       "/",
		Dependent: true,
	}
	stdout, messages, err := c.Run(ctx)
	if err != nil {
		err = &gitError{command: subcommand(args), said: string(messages), err: err}
	}
	return string(stdout), string(messages), err
}

// subcommand returns the first argument that is not an option of git itself.
func subcommand(args []string) string {
	for i := 0; i < len(args); i++ {
		if args[i] == "-c" {
			i++
		} else {
			return args[i]
		}
	}
	return ""
}

// gitError is a git that failed.
type gitError struct {
	command string
	said    string // its stderr
	err     error
}

func (e *gitError) Unwrap() error { return e.err }

// Is makes a git that failed for want of space an error like any other such:
// its exit status does not tell.
func (e *gitError) Is(target error) bool {
	return target == syscall.ENOSPC && strings.Contains(e.said, "No space left on device") ||
		target == syscall.EDQUOT && strings.Contains(e.said, "Disk quota exceeded")
}

// diskFull reports whether there was no room.
func diskFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// Error quotes the first line that says why: git's last words are often advice.
func (e *gitError) Error() string {
	if errors.Is(e.err, context.DeadlineExceeded) {
		return fmt.Sprintf("git %s: no answer in time", e.command)
	}
	why := ""
	for line := range strings.Lines(e.said) {
		// ssh frames with @ what it warns of most.
		line = strings.Trim(strings.TrimPrefix(line, "remote: "), "@ \t\r\n")
		fatal := strings.HasPrefix(line, "fatal: ") || strings.HasPrefix(line, "error: ") || strings.HasPrefix(line, "ERROR: ")
		// ssh speaks before git does, and knows more.
		general := strings.Contains(line, "Could not read from remote repository")
		if line != "" && (why == "" || fatal && !general && !strings.HasPrefix(why, "ssh: ")) {
			why = line
		}
		if fatal && !general {
			break
		}
	}
	if why == "" {
		return fmt.Sprintf("git %s: %v", e.command, e.err)
	}
	return fmt.Sprintf("git %s: %s", e.command, redact.Text(why))
}

// said reports whether a git failed with a message that holds text.
func said(err error, text string) bool {
	e, ok := errors.AsType[*gitError](err)
	return ok && strings.Contains(e.said, text)
}

// sshCommand is what git starts for ssh: nothing that could wait for a person
// or for a dead peer. key and hosts are files or empty; without them the
// user's own configuration decides.
func sshCommand(key, hosts string) string {
	options := []string{"ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=15",
		"-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=3"}
	if key != "" {
		options = append(options, "-o", "IdentitiesOnly=yes", "-o", "IdentityFile="+sshQuote(key))
	}
	if hosts != "" {
		options = append(options, "-o", "StrictHostKeyChecking=yes", "-o", "UserKnownHostsFile="+sshQuote(hosts))
	}
	for i, o := range options {
		options[i] = shellQuote(o)
	}
	return strings.Join(options, " ")
}

// sshQuote quotes a file name for ssh_config(5), which also expands %.
func sshQuote(s string) string {
	return `"` + strings.ReplaceAll(s, "%", "%%") + `"`
}

// shellQuote quotes a word for the shell that git gives GIT_SSH_COMMAND to.
func shellQuote(s string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_=./:", r)
	}
	if s != "" && strings.IndexFunc(s, func(r rune) bool { return !plain(r) }) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// remoteEnv gives git the credentials of the unit: files that systemd made
// from LoadCredential=, readable by this user alone.
func remoteEnv() []string {
	key, hosts := credentialFile("deploy_key"), credentialFile("known_hosts")
	var env []string
	own := os.Getenv("GIT_SSH_COMMAND") != "" || os.Getenv("GIT_SSH") != ""
	if key != "" || hosts != "" || !own {
		env = append(env, "GIT_SSH_COMMAND="+sshCommand(key, hosts), "GIT_SSH_VARIANT=ssh")
	}
	if file := credentialFile("git_credentials"); file != "" {
		env = append(env, "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=credential.helper",
			"GIT_CONFIG_VALUE_0=store --file="+shellQuote(file))
	}
	return env
}

// credentialFile returns the path of a credential, empty if there is none.
func credentialFile(name string) string {
	dir := os.Getenv("CREDENTIALS_DIRECTORY")
	if dir == "" {
		return ""
	}
	path := filepath.Join(dir, name)
	if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() || info.Size() == 0 {
		return ""
	}
	return path
}

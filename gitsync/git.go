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
	dir string              // the repository
	env []string            // in addition to gitEnv
	as  *syscall.Credential // the owner, if root works in another user's state

	progress *fetchProgress // of a fetch, on a terminal; else nil
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
		Args:       append(all, args...),
		Env:        append(gitEnv(os.Environ()), g.env...),
		Dir:        "/",
		Dependent:  true,
		Credential: g.as,
	}
	if g.progress != nil {
		c.Watch = g.progress
		defer g.progress.end()
	}
	stdout, messages, err := c.Run(ctx)
	if g.progress != nil {
		messages = withoutProgress(messages)
	}
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

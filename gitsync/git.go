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
// It disables programs that a repository's configuration could start, and all
// prompts. It also passes on no variable of a calling git: a gitsync that a hook
// runs must not work on the repository of that hook.
type git struct {
	dir string              // the repository
	env []string            // variables in addition to gitEnv
	as  *syscall.Credential // the owner of the state directory, if root works for another user

	progress *fetchProgress // shows the progress of a fetch on a terminal; otherwise nil
}

// gitConfig overrides configuration files. Maintenance runs only when gitsync
// starts it, while gitsync holds its lock, and never in the background.
var gitConfig = []string{
	"-c", "core.hooksPath=/dev/null",
	"-c", "core.fsmonitor=false",
	"-c", "gc.auto=0",
	"-c", "maintenance.auto=false",
	"-c", "fetch.recurseSubmodules=false",
	// Always keep a pack. A fetch that is killed, or that fills the disk, then leaves
	// files in one directory only.
	"-c", "fetch.unpackLimit=1",
	"-c", "http.lowSpeedLimit=100",
	"-c", "http.lowSpeedTime=30",
}

// gitKeep has the GIT_ variables of the caller that say how to reach a remote. The
// others say which repository to work on, which gitsync decides itself.
var gitKeep = []string{
	"GIT_SSH=", "GIT_SSH_COMMAND=", "GIT_SSH_VARIANT=", "GIT_PROXY_COMMAND=", "GIT_SSL_", "GIT_HTTP_",
	"GIT_CONFIG_GLOBAL=", "GIT_CONFIG_SYSTEM=", "GIT_CONFIG_NOSYSTEM=", "GIT_EXEC_PATH=", "GIT_TRACE", "GIT_CURL_VERBOSE=",
}

// gitEnv returns the environment of every git: the caller's, without variables that
// could make git prompt a person.
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
		// The protocol ext:: runs a command. An unknown protocol runs the program
		// git-remote-NAME.
		"GIT_ALLOW_PROTOCOL=file:git:http:https:ssh",
		"GIT_NO_REPLACE_OBJECTS=1",
		// Errors are distinguished by git's messages, which must be in English.
		"LC_ALL=C.UTF-8")
}

// run runs one git command and returns its stdout. An error contains git's stderr.
func (g git) run(ctx context.Context, args ...string) (string, error) {
	out, _, err := g.listen(ctx, args...)
	return out, err
}

// listen is like run, but also returns the stderr of a git that succeeds.
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
		defer g.progress.diag.EndProgress()
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

// gitError is the error of a git that failed.
type gitError struct {
	command string
	said    string // its stderr
	err     error
}

func (e *gitError) Unwrap() error { return e.err }

// Is makes errors.Is report a full disk or quota from git's message, because git's
// exit status does not show it.
func (e *gitError) Is(target error) bool {
	return target == syscall.ENOSPC && strings.Contains(e.said, "No space left on device") ||
		target == syscall.EDQUOT && strings.Contains(e.said, "Disk quota exceeded")
}

// diskFull reports whether an error is a full disk or an exceeded quota.
func diskFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// Error quotes the first line that gives a reason. The last lines of git's stderr
// are often only advice.
func (e *gitError) Error() string {
	if errors.Is(e.err, context.DeadlineExceeded) {
		return fmt.Sprintf("git %s: no answer in time", e.command)
	}
	why := ""
	for line := range strings.Lines(e.said) {
		// ssh prints its most serious warnings in a frame of @.
		line = strings.Trim(strings.TrimPrefix(line, "remote: "), "@ \t\r\n")
		fatal := strings.HasPrefix(line, "fatal: ") || strings.HasPrefix(line, "error: ") || strings.HasPrefix(line, "ERROR: ")
		// The message of ssh comes before this one of git and is more precise.
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

// said reports whether an error is that of a git whose stderr contains text.
func said(err error, text string) bool {
	e, ok := errors.AsType[*gitError](err)
	return ok && strings.Contains(e.said, text)
}

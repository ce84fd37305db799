package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"observability-hub/lib/sysexits"
)

// remote is the repository that commits come from, with the credentials of its URL.
type remote struct {
	url            string // without user and password if it is http or https; absolute if it is a path
	user, password string
	hasPassword    bool
}

// parseRemote separates the user and password from a repository's URL. Every user
// of the host can read an argument list, and git passes the URL in the argument
// list of git-remote-https. A local path becomes absolute, because git runs in
// another directory.
func parseRemote(repo string) (remote, error) {
	scheme, rest, hasScheme := strings.Cut(repo, "://")
	if !hasScheme {
		// host:path is ssh, unless a slash comes first (git-fetch(1), GIT URLS).
		if before, _, ok := strings.Cut(repo, ":"); filepath.IsAbs(repo) || ok && !strings.Contains(before, "/") {
			return remote{url: repo}, nil
		}
		path, err := filepath.Abs(repo)
		return remote{url: path}, err
	}
	end := strings.IndexAny(rest, "/?#")
	if end < 0 {
		end = len(rest)
	}
	authority, path := rest[:end], rest[end:]
	// Split at the last @, because an @ in a password is often not encoded.
	at := strings.LastIndexByte(authority, '@')
	host := authority[at+1:]
	switch strings.ToLower(scheme) {
	case "http", "https":
		if _, port, ok := strings.Cut(host, ":"); ok && !strings.HasPrefix(host, "[") && strings.Contains(path, "@") {
			if _, err := strconv.ParseUint(port, 10, 16); err != nil {
				return remote{}, errors.New("the repository's URL has a password with a character that must be encoded: write / as %2F, ? as %3F and # as %23")
			}
		}
	case "ssh", "git+ssh", "ssh+git":
		// The user is part of the address. ssh ignores a password.
		user, _, _ := strings.Cut(authority[:max(at, 0)], ":")
		if at >= 0 {
			host = user + "@" + host
		}
		return remote{url: scheme + "://" + host + path}, nil
	case "file":
		return remote{url: repo}, nil
	}
	r := remote{url: scheme + "://" + host + path}
	if at < 0 {
		return r, nil
	}
	user, password, hasPassword := strings.Cut(authority[:at], ":")
	r.user, r.password, r.hasPassword = unescape(user), unescape(password), hasPassword
	if strings.ContainsAny(r.user+r.password, "\n\x00") {
		return remote{}, errors.New("the user or password in the repository's URL contains a line break or a NUL character")
	}
	return r, nil
}

// unescape decodes %xx as git does. Text with a bad encoding is returned unchanged.
func unescape(s string) string {
	if decoded, err := url.PathUnescape(s); err == nil {
		return decoded
	}
	return s
}

// remoteURL returns the URL of a repository without user and password. Two pulls are
// of the same repository if these URLs are equal.
func remoteURL(repo string) (string, error) {
	r, err := parseRemote(repo)
	if err != nil {
		return "", sysexits.New(sysexits.Config, "no_repository", err).WithHint("correct --repo or GITSYNC_REPO")
	}
	return r.url, nil
}

// bareURL removes user and password from a URL that was accepted before, as
// remoteURL does. State files of older versions may still contain them. An invalid
// URL is returned unchanged.
func bareURL(repo string) string {
	if r, err := parseRemote(repo); err == nil && repo != "" {
		return r.url
	}
	return repo
}

// displayURL returns a URL for a message. It never has a password, and it has no
// user if the user can be a token.
func displayURL(repo string) string {
	r, err := parseRemote(repo)
	if err != nil {
		return "the repository"
	}
	if !strings.Contains(repo, "://") {
		return repo
	}
	return r.url
}

// settings is configuration for git. gitsync passes it in the environment, which
// other users cannot read. Of several values for one key the last counts.
type settings []struct{ key, value string }

func (s *settings) add(key, value string) {
	*s = append(*s, struct{ key, value string }{key, value})
}

// environment returns the variables that pass the settings to git.
func (s settings) environment() []string {
	if len(s) == 0 {
		return nil
	}
	env := []string{"GIT_CONFIG_COUNT=" + strconv.Itoa(len(s))}
	for i, c := range s {
		n := strconv.Itoa(i)
		env = append(env, "GIT_CONFIG_KEY_"+n+"="+c.key, "GIT_CONFIG_VALUE_"+n+"="+c.value)
	}
	return env
}

// urlHelper is a credential helper that answers with the user and password of the
// URL. They appear in no argument list, because printf is built into every sh.
const urlHelper = `!f() { test "$1" != get || printf 'username=%s\npassword=%s\n' "$GITSYNC_URL_USER" "$GITSYNC_URL_PASSWORD"; }; f`

// open reads the user's own git configuration and returns the remote as that
// configuration rewrites it. It also returns the environment that git needs to reach
// the remote: the unit's credentials (LoadCredential=), the credentials of the URL,
// and the ssh command.
func (g git) open(ctx context.Context, repo string, c *credentials) (remote, []string, error) {
	r, err := parseRemote(repo)
	if err != nil {
		return r, nil, sysexits.New(sysexits.Config, "no_repository", err).WithHint("correct --repo or GITSYNC_REPO")
	}
	// Ignore the error: git config exits with 1 if there is no such setting.
	out, _ := g.run(ctx, "config", "--null", "--get-regexp", `^(url\..*\.insteadof|core\.sshcommand|ssh\.variant)$`)
	if ctx.Err() != nil {
		return r, nil, context.Cause(ctx)
	}
	own := parseSettings(out)
	var set settings
	if file := c.files["git_credentials"]; file != "" {
		// Allow only get. git erases credentials that a server rejects, but this file
		// belongs to the administrator.
		set.add("credential.helper", `!f() { test "$1" != get || git credential-store --file=`+shellQuote(file)+` get; }; f`)
	}
	if rewritten, ok := own.rewrite(r.url); ok {
		// Rewrite the URL here, because the result may contain a token and git would put
		// it into an argument list.
		to, err := parseRemote(rewritten)
		if err != nil {
			return r, nil, sysexits.New(sysexits.Config, "no_repository", fmt.Errorf("url.*.insteadOf of the user's git configuration: %w", err))
		}
		if to.user == "" {
			to.user, to.password, to.hasPassword = r.user, r.password, r.hasPassword
		}
		r = to
		// git uses the longest match. This one is the longest, and it changes nothing.
		set.add("url."+r.url+".insteadOf", r.url)
	}
	var env []string
	if r.user != "" || r.password != "" {
		place := r.place()
		if r.hasPassword {
			set.add("credential."+place+".helper", "") // the URL takes precedence over all other helpers
			set.add("credential."+place+".helper", urlHelper)
			env = append(env, "GITSYNC_URL_USER="+r.user, "GITSYNC_URL_PASSWORD="+r.password)
		} else {
			set.add("credential."+place+".username", r.user)
		}
	}
	ssh := sshCommand(os.Getenv, own, c.files["deploy_key"], c.files["known_hosts"])
	return r, append(append(env, ssh...), set.environment()...), nil
}

// place returns the part of the URL that credentials belong to: scheme and host.
func (r remote) place() string {
	scheme, rest, _ := strings.Cut(r.url, "://")
	if end := strings.IndexAny(rest, "/?#"); end >= 0 {
		rest = rest[:end]
	}
	return scheme + "://" + rest
}

// parseSettings parses the output of git config --null.
func parseSettings(out string) settings {
	var s settings
	for item := range strings.SplitSeq(out, "\x00") {
		if key, value, ok := strings.Cut(item, "\n"); ok {
			s.add(key, value)
		}
	}
	return s
}

// last returns the last value of a setting, which is the one that counts.
func (s settings) last(key string) string {
	value := ""
	for _, c := range s {
		if c.key == key {
			value = c.value
		}
	}
	return value
}

// rewrite rewrites a URL according to url.BASE.insteadOf. The longest match counts,
// and of equally long ones the first (git-config(1)).
func (s settings) rewrite(url string) (string, bool) {
	base, longest := "", ""
	for _, c := range s {
		to, ok := strings.CutPrefix(c.key, "url.")
		if to, ok2 := strings.CutSuffix(to, ".insteadof"); ok && ok2 && strings.HasPrefix(url, c.value) && len(c.value) > len(longest) {
			base, longest = to, c.value
		}
	}
	if longest == "" {
		return url, false
	}
	return base + url[len(longest):], true
}

// sshCommand returns the variables that tell git which command to run for ssh. It is
// the user's command, found in the same order as git does. If the command is
// OpenSSH, it gets options that prevent it from waiting for a person or for a dead
// peer. key and hosts are files; without them the user's ssh configuration decides.
func sshCommand(getenv func(string) string, own settings, key, hosts string) []string {
	command := getenv("GIT_SSH_COMMAND")
	if command == "" {
		command = own.last("core.sshcommand")
	}
	if command == "" && getenv("GIT_SSH") != "" {
		command = shellQuote(getenv("GIT_SSH"))
	}
	if command == "" {
		command = "ssh"
	}
	variant := getenv("GIT_SSH_VARIANT")
	if variant == "" {
		variant = own.last("ssh.variant")
	}
	program, rest, _ := strings.Cut(command, " ")
	if filepath.Base(program) != "ssh" || variant != "" && variant != "ssh" && variant != "auto" {
		// Another program has other options, and its own configuration for keys.
		return nil
	}
	// ssh uses the first of several values of an option.
	options := []string{"-o", "BatchMode=yes"}
	if key != "" {
		options = append(options, "-o", "IdentitiesOnly=yes", "-o", "IdentityFile="+sshQuote(key))
	}
	if hosts != "" {
		options = append(options, "-o", "StrictHostKeyChecking=yes", "-o", "UserKnownHostsFile="+sshQuote(hosts))
	}
	after := []string{"-o", "ConnectTimeout=15", "-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=3"}
	command = program + " " + shellWords(options)
	if rest != "" {
		command += " " + rest
	}
	return []string{"GIT_SSH_COMMAND=" + command + " " + shellWords(after), "GIT_SSH_VARIANT=ssh"}
}

// sshQuote quotes a file name for ssh_config(5), where % also has a meaning.
func sshQuote(s string) string {
	return `"` + strings.ReplaceAll(s, "%", "%%") + `"`
}

func shellWords(words []string) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = shellQuote(w)
	}
	return strings.Join(quoted, " ")
}

// shellQuote quotes a word for the shell in which git runs GIT_SSH_COMMAND.
func shellQuote(s string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_=./:", r)
	}
	if s != "" && strings.IndexFunc(s, func(r rune) bool { return !plain(r) }) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

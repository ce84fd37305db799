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

// remote is where commits come from, and how git gets there.
type remote struct {
	url            string // without user and password if it is http or https; absolute if it is a path
	user, password string
	hasPassword    bool
}

// parseRemote takes user and password out of a repository's URL. An argument
// list can be read by every user of the host, and git hands the URL on in the
// argument list of git-remote-https. A local path becomes absolute, because git
// runs in another directory.
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
	// The last one: a password with an @ is often not encoded.
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
		// The user is part of the address. ssh takes no password.
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
		return remote{}, errors.New("the user or password in the repository's URL holds a line break or a NUL character")
	}
	return r, nil
}

// unescape decodes %xx, as git does: text that is not well encoded stays.
func unescape(s string) string {
	if decoded, err := url.PathUnescape(s); err == nil {
		return decoded
	}
	return s
}

// remoteURL returns the address of a repository without user and password, by
// which two pulls are known to be of the same repository. What was written by
// an older gitsync may hold them still.
func remoteURL(repo string) (string, error) {
	r, err := parseRemote(repo)
	if err != nil {
		return "", sysexits.New(sysexits.Config, "no_repository", err).WithHint("correct --repo or GITSYNC_REPO")
	}
	return r.url, nil
}

// bareURL is remoteURL for an address that was accepted before.
func bareURL(repo string) string {
	if r, err := parseRemote(repo); err == nil && repo != "" {
		return r.url
	}
	return repo
}

// displayURL is a URL for a message: never with a password, and without a user
// if that can be a token.
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

// settings is configuration that git gets in its environment, which other
// users cannot read; a later one wins.
type settings []struct{ key, value string }

func (s *settings) add(key, value string) {
	*s = append(*s, struct{ key, value string }{key, value})
}

// environment returns the variables that hand the settings to git.
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

// urlHelper is a credential helper that answers with the user and password of
// the URL. printf is built into every sh, so that no argument list holds them.
const urlHelper = `!f() { test "$1" != get || printf 'username=%s\npassword=%s\n' "$GITSYNC_URL_USER" "$GITSYNC_URL_PASSWORD"; }; f`

// open asks for the user's own git configuration and returns the remote as that
// rewrites it, with the environment by which git reaches it: the credentials of
// the unit, which systemd made from LoadCredential=, those of the URL, and the
// user's ssh.
func (g git) open(ctx context.Context, repo string, c *credentials) (remote, []string, error) {
	r, err := parseRemote(repo)
	if err != nil {
		return r, nil, sysexits.New(sysexits.Config, "no_repository", err).WithHint("correct --repo or GITSYNC_REPO")
	}
	// It exits with 1 if there is no such setting.
	out, _ := g.run(ctx, "config", "--null", "--get-regexp", `^(url\..*\.insteadof|core\.sshcommand|ssh\.variant)$`)
	if ctx.Err() != nil {
		return r, nil, context.Cause(ctx)
	}
	own := parseSettings(out)
	var set settings
	if file := c.files["git_credentials"]; file != "" {
		// Only get: git erases what a server refused, and this file is the administrator's.
		set.add("credential.helper", `!f() { test "$1" != get || git credential-store --file=`+shellQuote(file)+` get; }; f`)
	}
	if rewritten, ok := own.rewrite(r.url); ok {
		// git would rewrite it by itself, and the result may hold a token.
		to, err := parseRemote(rewritten)
		if err != nil {
			return r, nil, sysexits.New(sysexits.Config, "no_repository", fmt.Errorf("url.*.insteadOf of the user's git configuration: %w", err))
		}
		if to.user == "" {
			to.user, to.password, to.hasPassword = r.user, r.password, r.hasPassword
		}
		r = to
		// The longest match wins: this one, which changes nothing.
		set.add("url."+r.url+".insteadOf", r.url)
	}
	var env []string
	if r.user != "" || r.password != "" {
		place := r.place()
		if r.hasPassword {
			set.add("credential."+place+".helper", "") // the URL is more definite than any helper before
			set.add("credential."+place+".helper", urlHelper)
			env = append(env, "GITSYNC_URL_USER="+r.user, "GITSYNC_URL_PASSWORD="+r.password)
		} else {
			set.add("credential."+place+".username", r.user)
		}
	}
	ssh := sshCommand(os.Getenv, own, c.files["deploy_key"], c.files["known_hosts"])
	return r, append(append(env, ssh...), set.environment()...), nil
}

// place is the part of the URL that credentials are for.
func (r remote) place() string {
	scheme, rest, _ := strings.Cut(r.url, "://")
	if end := strings.IndexAny(rest, "/?#"); end >= 0 {
		rest = rest[:end]
	}
	return scheme + "://" + rest
}

// parseSettings reads what git config --null prints.
func parseSettings(out string) settings {
	var s settings
	for item := range strings.SplitSeq(out, "\x00") {
		if key, value, ok := strings.Cut(item, "\n"); ok {
			s.add(key, value)
		}
	}
	return s
}

// last returns the value of a setting that counts.
func (s settings) last(key string) string {
	value := ""
	for _, c := range s {
		if c.key == key {
			value = c.value
		}
	}
	return value
}

// rewrite does what url.BASE.insteadOf says: the longest match wins, and of
// equal ones the first (git-config(1)).
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

// sshCommand returns the variables that say what git starts for ssh: the
// user's command, in git's own order, and nothing that could wait for a person
// or for a dead peer if that is OpenSSH. key and hosts are files or empty;
// without them the user's ssh configuration decides.
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
		// Another program has options of another kind, and knows its keys.
		return nil
	}
	// For ssh the first of several options counts.
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

// sshQuote quotes a file name for ssh_config(5), which also expands %.
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

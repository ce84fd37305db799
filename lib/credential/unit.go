package credential

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"

	"observability-hub/lib/sysexits"
)

// stores returns the directories in which the units' LoadCredential=, which has no
// path, looks for a file: first the credentials of the service manager itself, then
// the credential stores in the order of systemd.exec(5).
func stores() []string {
	return []string{"run/credentials/@system", "etc/credstore", "run/credstore", "usr/lib/credstore"}
}

// AsUnit gives a tool that root runs by hand the settings that a unit gets from
// systemd. It sets the variables of the files /etc/observability-hub/NAME.env that
// the environment does not have. The last name wins, as in the unit. [Lookup] and
// [File] then also find the credentials in the stores for which the environment has
// no variable. AsUnit does nothing in a unit, or for other users, because they cannot
// read these files.
func AsUnit(names ...string) error {
	if !byHand() {
		return nil
	}
	return asUnit("/", names...)
}

// Unseen returns a hint for a user who runs a tool by hand, and who may not read the
// settings of the units: what the tool lacks may be there. It returns "" for root, in
// a unit, and on a host without such settings.
func Unseen() string {
	if os.Getenv("INVOCATION_ID") != "" || os.Getenv("CREDENTIALS_DIRECTORY") != "" {
		return ""
	}
	if _, err := os.ReadDir(settingsDir); !errors.Is(err, fs.ErrPermission) {
		return ""
	}
	return "only root can read the settings in " + settingsDir + ": run it as root, or with hub-run as the unit does"
}

// settingsDir is the directory of the units' environment files.
const settingsDir = "/etc/observability-hub"

// byHand reports whether this process is root and not in a unit.
func byHand() bool {
	return os.Geteuid() == 0 && os.Getenv("INVOCATION_ID") == "" && os.Getenv("CREDENTIALS_DIRECTORY") == ""
}

func asUnit(root string, names ...string) error {
	var settings []variable
	for _, name := range names {
		path := filepath.Join(root, settingsDir, name+".env")
		b, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil && (!utf8.Valid(b) || slices.Contains(b, 0)) {
			err = fmt.Errorf("read %s: not valid UTF-8 text", path) // systemd rejects it too
		}
		if err != nil {
			return sysexits.New(sysexits.Config, "bad_configuration", err).
				WithHint("correct the file: it must be readable for root and hold UTF-8 text, because the unit reads it too")
		}
		settings = append(settings, parseEnvironment(string(b))...)
	}
	// If libpq's variables in the environment name a database, the store and the
	// file must not name another one. An empty variable hides both.
	_, named := os.LookupEnv("DATABASE_URL")
	if !named && slices.ContainsFunc([]string{"PGHOST", "PGHOSTADDR", "PGSERVICE", "PGDATABASE"}, func(v string) bool { return os.Getenv(v) != "" }) {
		if err := os.Setenv("DATABASE_URL", ""); err != nil {
			return err
		}
	}
	have := map[string]bool{}
	for _, v := range os.Environ() {
		name, _, _ := strings.Cut(v, "=")
		have[name] = true
	}
	for _, v := range settings {
		if have[v.name] {
			continue
		}
		// In the unit, the credential wins over the variable.
		if _, _, ok := stored(root, strings.ToLower(v.name)); ok {
			continue
		}
		if err := os.Setenv(v.name, v.value); err != nil {
			return err
		}
	}
	return nil
}

// stored returns the file of a credential in the first store that has it. The stores
// of encrypted credentials come last, because LoadCredential= of the unit finds the
// others without a drop-in.
func stored(root, name string) (path string, encrypted, ok bool) {
	for _, suffix := range []string{"", ".encrypted"} {
		for _, dir := range stores() {
			if suffix != "" && !strings.HasSuffix(dir, "credstore") {
				continue
			}
			path = filepath.Join(root, dir+suffix, name)
			if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
				return path, suffix != "", true
			}
		}
	}
	return "", false, false
}

// variable is an assignment in an environment file.
type variable struct{ name, value string }

// parseEnvironment parses an environment file by the rules of EnvironmentFile= in
// systemd.exec(5). Like systemd it ignores comments, lines without "=", and names
// that are not valid.
func parseEnvironment(text string) (result []variable) {
	p := &environmentFile{text}
	for p.rest != "" {
		p.rest = strings.TrimLeft(p.rest, blanks+newlines)
		if strings.HasPrefix(p.rest, "#") || strings.HasPrefix(p.rest, ";") {
			p.line()
			continue
		}
		end := strings.IndexAny(p.rest, "="+newlines)
		if end < 0 {
			return result
		}
		name, found := strings.TrimRight(p.rest[:end], blanks), p.rest[end] == '='
		p.rest = p.rest[end+1:]
		if !found {
			continue
		}
		if value := p.value(); validName(name) {
			result = append(result, variable{name, value})
		}
	}
	return result
}

const (
	blanks   = " \t"
	newlines = "\n\r"
)

// environmentFile is a parser of an environment file. rest is the unparsed text.
type environmentFile struct{ rest string }

// line skips the rest of the line.
func (p *environmentFile) line() {
	if end := strings.IndexAny(p.rest, newlines); end >= 0 {
		p.rest = p.rest[end+1:]
	} else {
		p.rest = ""
	}
}

// next returns the next byte; ok is false at the end.
func (p *environmentFile) next() (c byte, ok bool) {
	if p.rest == "" {
		return 0, false
	}
	c, p.rest = p.rest[0], p.rest[1:]
	return c, true
}

// value parses a value, up to the end of the line. A quote after the first unquoted
// character is an ordinary character.
func (p *environmentFile) value() string {
	var out []byte
	kept := 0 // length of out without blanks at its end
	bare := false
	for {
		c, ok := p.next()
		switch {
		case !ok, strings.IndexByte(newlines, c) >= 0:
			return string(out[:kept])
		case !bare && c == '\'', !bare && c == '"':
			out = p.quoted(out, c)
			kept = len(out)
		case c == '\\':
			bare = true
			if c, ok = p.next(); ok && strings.IndexByte(newlines, c) < 0 {
				out = append(out, c)
			}
			kept = len(out)
		case strings.IndexByte(blanks, c) >= 0:
			if bare {
				out = append(out, c)
			}
		default:
			bare = true
			out = append(out, c)
			kept = len(out)
		}
	}
}

// quoted appends the text before the closing quote to out.
func (p *environmentFile) quoted(out []byte, quote byte) []byte {
	for {
		c, ok := p.next()
		if !ok || c == quote {
			return out
		}
		if c != '\\' || quote == '\'' {
			out = append(out, c)
			continue
		}
		c, ok = p.next()
		switch {
		case !ok, c == '\n':
		case strings.IndexByte("\"\\`$", c) >= 0:
			out = append(out, c)
		default:
			out = append(out, '\\', c)
		}
	}
}

// validName reports whether systemd accepts name as the name of a variable.
func validName(name string) bool {
	for i, c := range []byte(name) {
		letter := c == '_' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
		if !letter && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return name != ""
}

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

// stores are where LoadCredential= of the units, which name no path, finds a
// file: first what the service manager itself was given, then these in the order
// of systemd.exec(5).
func stores() []string {
	return []string{"run/credentials/@system", "etc/credstore", "run/credstore", "usr/lib/credstore"}
}

// AsUnit gives a tool that root runs by hand what the unit of family gets from
// systemd: the variables of /etc/observability-hub/family.env, unless the
// environment has them, and with [Lookup] and [Path] the credentials of the
// store, unless the environment has their variables. It changes nothing for
// other users, who cannot read either, and below a unit.
func AsUnit(family string) error {
	if !byHand() {
		return nil
	}
	return asUnit("/", family)
}

// byHand reports whether root runs the tool outside of a unit.
func byHand() bool {
	return os.Geteuid() == 0 && os.Getenv("INVOCATION_ID") == "" && os.Getenv("CREDENTIALS_DIRECTORY") == ""
}

func asUnit(root, family string) error {
	path := filepath.Join(root, "etc/observability-hub", family+".env")
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		b, err = nil, nil
	}
	if err == nil && (!utf8.Valid(b) || slices.Contains(b, 0)) {
		err = fmt.Errorf("read %s: not UTF-8 text", path) // systemd rejects it too
	}
	if err != nil {
		return sysexits.New(sysexits.Config, "bad_configuration", err).
			WithHint("the unit reads this file too; root must be able to read it")
	}
	// A database that the environment names in libpq's way is named there: the
	// store and the file name no other.
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
	for _, v := range parseEnvironment(string(b)) {
		if have[v.name] {
			continue
		}
		// The unit prefers the credential.
		if _, ok := stored(root, strings.ToLower(v.name)); ok {
			continue
		}
		if err := os.Setenv(v.name, v.value); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	return nil
}

// stored returns the file of a credential in the store.
func stored(root, name string) (path string, ok bool) {
	for _, dir := range stores() {
		path = filepath.Join(root, dir, name)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			return path, true
		}
	}
	return "", false
}

// variable is an assignment of an environment file.
type variable struct{ name, value string }

// parseEnvironment reads an environment file by the rules of EnvironmentFile= in
// systemd.exec(5). Lines that systemd ignores are ignored: comments, lines
// without "=", and names that are not valid.
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

// environmentFile is what is left to read of one.
type environmentFile struct{ rest string }

// line skips the rest of a line.
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

// value reads a value to the end of its line. Quotes count only before the first
// unquoted character.
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

// quoted appends what stands before the closing quote.
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

// validName reports whether systemd takes the name of a variable.
func validName(name string) bool {
	for i, c := range []byte(name) {
		letter := c == '_' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
		if !letter && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return name != ""
}

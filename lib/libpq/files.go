package libpq

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
)

// home returns the path of a file below the user's home directory, or "" if there
// is none.
func home(name string) string {
	dir, err := os.UserHomeDir()
	if err != nil || dir == "" {
		u, err := user.Current()
		if err != nil || u.HomeDir == "" {
			return ""
		}
		dir = u.HomeDir
	}
	return filepath.Join(dir, name)
}

// readable returns path if it is a readable file, else "". libpq's default files
// below the home directory are optional, and the units hide that directory.
func readable(path string) string {
	if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() {
		return ""
	}
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	_ = f.Close()
	return path
}

// certificates sets the paths of the TLS files in cfg.
func (p *parser) certificates(cfg *Config) {
	cfg.SSLRootCert, cfg.SSLCert, cfg.SSLKey = p.values["sslrootcert"], p.values["sslcert"], p.values["sslkey"]
	if cfg.SSLRootCert == "" {
		cfg.SSLRootCert = readable(home(".postgresql/root.crt"))
	}
	if p.values["sslcertmode"] == "disable" {
		cfg.SSLCert, cfg.SSLKey = "", ""
		return
	}
	if cfg.SSLCert == "" {
		cfg.SSLCert = readable(home(".postgresql/postgresql.crt"))
	}
	if cfg.SSLCert != "" && cfg.SSLKey == "" {
		cfg.SSLKey = home(".postgresql/postgresql.key")
	}
}

// service adds the parameters of the requested service from a service file.
func (p *parser) service() error {
	name := p.values["service"]
	if name == "" {
		name = os.Getenv("PGSERVICE")
	}
	if name == "" {
		return nil
	}
	file := p.values["servicefile"]
	if file == "" {
		file = os.Getenv("PGSERVICEFILE")
	}
	if file != "" {
		if found, err := p.serviceFile(file, name); found || err != nil {
			return err
		}
	} else if file = readable(home(".pg_service.conf")); file != "" {
		if found, err := p.serviceFile(file, name); found || err != nil {
			return err
		}
	}
	dir := os.Getenv("PGSYSCONFDIR")
	if dir == "" {
		dir = "/etc/postgresql-common" // Debian's default
	}
	file = filepath.Join(dir, "pg_service.conf")
	switch found, err := p.serviceFile(file, name); {
	case found:
		return nil
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err
	}
	return fmt.Errorf("service %q: not defined in ~/.pg_service.conf (or the file that PGSERVICEFILE names), nor in %s", name, file)
}

// serviceFile adds the parameters in the section of a service. found is false if
// the file has no such section.
func (p *parser) serviceFile(file, service string) (found bool, err error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return false, fmt.Errorf("service %q: %w", service, err)
	}
	n := 0
	for line := range strings.Lines(string(b)) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		if line[0] == '[' {
			if found {
				return true, nil
			}
			found = line == "["+service+"]"
			continue
		}
		if !found {
			continue
		}
		name, value, ok := strings.Cut(line, "=")
		name = strings.TrimSpace(name)
		switch {
		case strings.HasPrefix(line, "ldap"):
			return true, fmt.Errorf("%s:%d: services from LDAP are not supported", file, n)
		case !ok, name == "service", name == "servicefile":
			return true, fmt.Errorf("%s:%d: not a connection parameter", file, n)
		case !known(name) && !harmless(name) && !unsupported(name):
			return true, fmt.Errorf("%s:%d: %s is not a connection parameter", file, n, name)
		}
		if err := p.give(name, strings.TrimSpace(value), file); err != nil {
			return true, err
		}
	}
	return found, nil
}

// passwords sets the password of each host: the parameter password if it is set,
// else the password from the password file.
func (p *parser) passwords(cfg *Config) error {
	if password := p.values["password"]; password != "" {
		for i := range cfg.Hosts {
			cfg.Hosts[i].Password = password
		}
		return nil
	}
	file := p.values["passfile"]
	if file == "" {
		file = home(".pgpass")
	}
	info, err := os.Stat(file)
	if err != nil {
		return nil // like libpq; the server reports if it needs a password
	}
	switch {
	case !info.Mode().IsRegular():
		cfg.Warnings = append(cfg.Warnings, fmt.Sprintf("ignored the password file %s: it is not a regular file", file))
		return nil
	case info.Mode().Perm()&0o077 != 0:
		cfg.Warnings = append(cfg.Warnings, fmt.Sprintf("ignored the password file %s: other users can read it, because its mode is %#o; set its mode to 0600", file, info.Mode().Perm()))
		return nil
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return nil
	}
	database := cfg.Database
	if database == "" {
		database = cfg.User
	}
	for i, h := range cfg.Hosts {
		host := h.Name
		switch {
		case host == "":
			host = h.Addr.String()
		case host == socketDirectory, host == "/var/run/postgresql":
			host = "localhost"
		}
		cfg.Hosts[i].Password = passwordOf(string(b), host, strconv.Itoa(int(h.Port)), database, cfg.User)
	}
	return nil
}

// passwordOf returns the password of the first matching line of a password file. A
// line reads host:port:database:user:password; a backslash escapes : and \.
func passwordOf(file string, want ...string) string {
lines:
	for line := range strings.Lines(file) {
		rest := strings.TrimRight(line, "\r\n")
		if strings.HasPrefix(rest, "#") {
			continue
		}
		for _, w := range want {
			field, after, ok := passField(rest)
			if !ok || field != "*" && unescape(field) != w {
				continue lines
			}
			rest = after
		}
		return unescape(rest)
	}
	return ""
}

// passField cuts a line at its first colon without a backslash before it.
func passField(line string) (field, after string, ok bool) {
	for i := 0; i < len(line); i++ {
		switch line[i] {
		case '\\':
			i++
		case ':':
			return line[:i], line[i+1:], true
		}
	}
	return line, "", false
}

// unescape removes the backslashes of escapes.
func unescape(s string) string {
	var out strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) {
			i++
		}
		out.WriteByte(s[i])
	}
	return out.String()
}

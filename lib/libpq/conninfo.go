package libpq

import (
	"errors"
	"strings"
)

const databaseURL = "database_url"

// keywords parses a connection string of keyword=value pairs.
func (p *parser) keywords(dsn string) error {
	const space = " \t\n\r\f\v"
	if dsn != "" && (!strings.Contains(dsn, "=") || strings.Contains(strings.SplitN(dsn, "=", 2)[0], "://")) {
		return errors.New("database_url: not a PostgreSQL connection string")
	}
	malformed := errors.New("database_url: not a valid connection string: a keyword, its value or the quoting is wrong")
	given := map[string]string{}
	var order []string
	for rest := strings.TrimLeft(dsn, space); rest != ""; rest = strings.TrimLeft(rest, space) {
		end := strings.IndexAny(rest, "="+space)
		if end <= 0 {
			return malformed
		}
		name := rest[:end]
		rest = strings.TrimLeft(rest[end:], space)
		if !strings.HasPrefix(rest, "=") {
			return malformed
		}
		rest = strings.TrimLeft(rest[1:], space)
		quoted := strings.HasPrefix(rest, "'")
		if quoted {
			rest = rest[1:]
		}
		var value strings.Builder
		for {
			if rest == "" {
				if quoted {
					return malformed
				}
				break
			}
			c := rest[0]
			if !quoted && strings.IndexByte(space, c) >= 0 {
				break
			}
			rest = rest[1:]
			if quoted && c == '\'' {
				break
			}
			if c == '\\' {
				if rest == "" {
					return malformed
				}
				c, rest = rest[0], rest[1:]
			}
			value.WriteByte(c)
		}
		// The last value of a keyword wins.
		given[name] = value.String()
		order = append(order, name)
	}
	for _, name := range order {
		if err := p.give(name, given[name], databaseURL); err != nil {
			return err
		}
	}
	return nil
}

// uri parses a URL as libpq does. libpq accepts more than RFC 3986: a password may
// contain # and ?, and there may be several hosts, each with a port.
func (p *parser) uri(rest string) error {
	give := func(name, encoded string) error {
		value, err := decode(encoded)
		if err != nil {
			return err
		}
		if value == "" {
			return nil
		}
		return p.give(name, value, databaseURL)
	}
	user, password := "", ""
	if end := strings.IndexAny(rest, "@/"); end >= 0 && rest[end] == '@' {
		user, password, _ = strings.Cut(rest[:end], ":")
		rest = rest[end+1:]
	} else if authority, path, _ := strings.Cut(rest, "/"); strings.Contains(authority, ":") {
		// libpq reads user:pass/word@host as a host and a port.
		if path, _, _ = strings.Cut(path, "?"); strings.Contains(path, "@") {
			return unencoded()
		}
	}
	authority := rest
	if end := strings.IndexAny(rest, "/?"); end >= 0 {
		authority, rest = rest[:end], rest[end:]
	} else {
		rest = ""
	}
	if strings.ContainsAny(authority, "@#") {
		return unencoded()
	}
	var hosts, ports []string
	for _, host := range strings.Split(authority, ",") {
		port := ""
		if strings.HasPrefix(host, "[") {
			address, after, ok := strings.Cut(host[1:], "]")
			if !ok || address == "" || after != "" && after[0] != ':' {
				return errors.New("database_url: the address in brackets is not an IPv6 address")
			}
			host, port = address, strings.TrimPrefix(after, ":")
		} else {
			host, port, _ = strings.Cut(host, ":")
		}
		hosts, ports = append(hosts, host), append(ports, port)
	}
	path, query, _ := strings.Cut(strings.TrimPrefix(rest, "/"), "?")
	if strings.HasPrefix(rest, "?") {
		path, query = "", rest[1:]
	}
	if err := p.query(query); err != nil {
		return err
	}
	if err := errors.Join(give("user", user), give("password", password)); err != nil {
		return unencoded()
	}
	if hosts := strings.Join(hosts, ","); hosts != "" {
		if err := give("host", hosts); err != nil {
			return err
		}
	}
	if ports := strings.Join(ports, ","); strings.Trim(ports, ",") != "" {
		if err := give("port", ports); err != nil {
			return err
		}
	}
	return give("dbname", path)
}

// query parses the parameters of a URL. They win over the other parts of the URL.
func (p *parser) query(query string) error {
	if query == "" {
		return nil
	}
	given := map[string]string{}
	var order []string
	for word := range strings.SplitSeq(query, "&") {
		name, value, ok := strings.Cut(word, "=")
		if !ok || strings.Contains(value, "=") {
			return errors.New("database_url: a parameter after the ? of the URL does not have the form name=value (special characters must be percent-encoded)")
		}
		name, err := decode(name)
		if err != nil {
			return err
		}
		if value, err = decode(value); err != nil {
			return err
		}
		if name == "ssl" && value == "true" { // from JDBC
			name, value = "sslmode", "require"
		}
		given[name] = value
		order = append(order, name)
	}
	p.before = ""
	for _, name := range order {
		if err := p.give(name, given[name], databaseURL); err != nil {
			return err
		}
	}
	return nil
}

// decode decodes the %xx of a URL.
func decode(s string) (string, error) {
	if !strings.Contains(s, "%") {
		return s, nil
	}
	var out []byte
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c == '%' {
			if i+2 >= len(s) {
				return "", unencoded()
			}
			high, low := hex(s[i+1]), hex(s[i+2])
			if high < 0 || low < 0 || high+low == 0 {
				return "", unencoded()
			}
			c = byte(high<<4 | low)
			i += 2
		}
		out = append(out, c)
	}
	return string(out), nil
}

func hex(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

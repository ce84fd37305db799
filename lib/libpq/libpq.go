// Package libpq determines the PostgreSQL database as libpq does: from a connection
// string, a service file, the PG* variables and a password file, in that order. It
// accepts every parameter that libpq documents. It ignores parameters that have no
// effect here, and returns an error for parameters that it does not support.
//
// It differs from libpq in two ways. The default of sslmode is verify-full, except
// for this machine itself, where it is disable. And an unreadable default file
// below the home directory is treated as missing, because ProtectHome= of the units
// makes these files unreadable.
package libpq

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"observability-hub/lib/credential"
	"observability-hub/lib/sysexits"
)

// socketDirectory is the directory of PostgreSQL's socket on Debian and most other
// systems.
const socketDirectory = "/run/postgresql"

// Config describes how to reach a database.
type Config struct {
	Hosts    []Host // in the order of the connection attempts, unless LoadBalance is set
	User     string
	Database string // empty: the database with the name of the user

	ApplicationName    string
	Options            string
	Runtime            map[string]string // server settings in the connection string
	ConnectTimeout     time.Duration     // for each host; 0: not given
	TargetSessionAttrs string
	LoadBalance        bool // try the hosts in random order

	SSLCert, SSLKey, SSLRootCert                 string // files; SSLRootCert may be "system"
	SSLNegotiation                               string
	SSLSNI                                       bool
	SSLMinProtocolVersion, SSLMaxProtocolVersion string
	MinProtocolVersion, MaxProtocolVersion       string

	Warnings []string // for the administrator: what was ignored, and why
}

// Host is one server of a connection.
type Host struct {
	Name     string     // a name, an address, the directory of a socket, or @ and the name of an abstract socket
	Addr     netip.Addr // if valid, the address to connect to, whatever Name is
	Port     uint16
	SSLMode  string
	Password string
}

// Configured returns how to reach the configured database. The credential
// database_url or $DATABASE_URL names it, and libpq's variables supply the missing
// parameters. These variables alone can name it too. ok is false if no database is
// configured. The default of application_name is application, and the default of
// connect_timeout is 5 seconds.
func Configured(application string) (cfg Config, ok bool, err error) {
	dsn, ok, err := credential.Lookup("database_url")
	if err != nil {
		return cfg, false, BadConfiguration(err)
	}
	if !ok && !slices.ContainsFunc([]string{"PGHOST", "PGHOSTADDR", "PGSERVICE", "PGDATABASE", "PGUSER"}, func(v string) bool { return os.Getenv(v) != "" }) {
		return cfg, false, nil
	}
	if cfg, err = Parse(dsn); err != nil {
		return cfg, false, err
	}
	if cfg.ApplicationName == "" {
		cfg.ApplicationName = application
	}
	if cfg.ConnectTimeout == 0 {
		cfg.ConnectTimeout = 5 * time.Second
	}
	return cfg, true, nil
}

// Parse parses a connection string, and adds missing parameters from the service
// file, the environment, the password file and the defaults. Its errors carry
// [sysexits.Config]. They show no value of the string, because any value may be a
// part of a password.
func Parse(dsn string) (Config, error) {
	p := &parser{values: map[string]string{}, origin: map[string]string{}, runtime: map[string]string{}}
	cfg, err := p.parse(dsn)
	if err != nil {
		if _, ok := errors.AsType[*sysexits.Error](err); !ok {
			err = BadConfiguration(err)
		}
	}
	return cfg, err
}

// BadConfiguration adds the exit status and hint of bad configuration to an error.
func BadConfiguration(err error) error {
	if e, ok := errors.AsType[*sysexits.Error](err); ok {
		return e // it has a hint of its own
	}
	return sysexits.New(sysexits.Config, "bad_configuration", err).
		WithHint("the form of database_url is postgres://user:password@host/database?sslmode=verify-full, or user=… host=… dbname=…")
}

// unencoded returns the error for a URL with a special character in its user or
// password.
func unencoded() error {
	return sysexits.New(sysexits.Config, "bad_configuration", errors.New("database_url: not a well-formed URL: a special character in the user or password is not percent-encoded")).
		WithHint("in the user and password of a URL, write %25 for %, %40 for @, %2F for / and %3F for ?")
}

// parser collects the parameters of a connection. The first value of a parameter
// wins.
type parser struct {
	values  map[string]string
	origin  map[string]string // origin of each parameter, for errors
	runtime map[string]string
	before  string // the previous parameter
}

func (p *parser) parse(dsn string) (cfg Config, err error) {
	if rest, ok := strings.CutPrefix(dsn, "postgresql://"); ok {
		err = p.uri(rest)
	} else if rest, ok := strings.CutPrefix(dsn, "postgres://"); ok {
		err = p.uri(rest)
	} else {
		err = p.keywords(dsn)
	}
	if err == nil {
		err = p.service()
	}
	if err != nil {
		return cfg, err
	}
	for _, v := range variables() {
		if value := os.Getenv(v.name); value != "" {
			if err := p.give(v.parameter, value, v.name); err != nil {
				return cfg, err
			}
		}
	}
	if p.values["sslmode"] == "" && (strings.HasPrefix(os.Getenv("PGREQUIRESSL"), "1") || p.values["requiressl"] == "1") {
		p.values["sslmode"] = "require"
	}
	if err := p.check(); err != nil {
		return cfg, err
	}
	return p.config()
}

// variables returns the environment variables that set a parameter.
func variables() []struct{ name, parameter string } {
	return []struct{ name, parameter string }{
		{"PGHOST", "host"}, {"PGHOSTADDR", "hostaddr"}, {"PGPORT", "port"}, {"PGDATABASE", "dbname"}, {"PGUSER", "user"},
		{"PGPASSWORD", "password"}, {"PGPASSFILE", "passfile"}, {"PGOPTIONS", "options"}, {"PGAPPNAME", "application_name"},
		{"PGCONNECT_TIMEOUT", "connect_timeout"}, {"PGTARGETSESSIONATTRS", "target_session_attrs"}, {"PGLOADBALANCEHOSTS", "load_balance_hosts"},
		{"PGSSLMODE", "sslmode"}, {"PGSSLNEGOTIATION", "sslnegotiation"}, {"PGSSLCERT", "sslcert"}, {"PGSSLKEY", "sslkey"},
		{"PGSSLROOTCERT", "sslrootcert"}, {"PGSSLSNI", "sslsni"}, {"PGSSLCERTMODE", "sslcertmode"}, {"PGSSLCRL", "sslcrl"}, {"PGSSLCRLDIR", "sslcrldir"},
		{"PGSSLMINPROTOCOLVERSION", "ssl_min_protocol_version"}, {"PGSSLMAXPROTOCOLVERSION", "ssl_max_protocol_version"},
		{"PGMINPROTOCOLVERSION", "min_protocol_version"}, {"PGMAXPROTOCOLVERSION", "max_protocol_version"},
		{"PGREQUIREPEER", "requirepeer"}, {"PGREQUIREAUTH", "require_auth"}, {"PGCHANNELBINDING", "channel_binding"}, {"PGGSSENCMODE", "gssencmode"},
	}
}

// give sets a parameter unless it is already set. origin is database_url, the name
// of a variable, or the path of a service file.
func (p *parser) give(name, value, origin string) error {
	before := p.before
	p.before = name
	switch {
	case strings.IndexByte(value, 0) >= 0:
		return fmt.Errorf("%s: it contains a NUL character", origin)
	case p.has(name):
		return nil
	case harmless(name):
		return nil
	case known(name):
		p.values[name], p.origin[name] = value, origin
		return nil
	case unsupported(name):
		if value == "" {
			return nil
		}
		return sysexits.New(sysexits.Config, "bad_configuration", fmt.Errorf("%s: %s is not supported", p.where(name, origin), name)).
			WithHint("remove " + name + ", or connect through a proxy that supports it, such as pgbouncer")
	// After a blank in an unquoted password, the rest looks like the name of a parameter.
	case origin == "database_url" && before == "password", !identifier(name):
		return fmt.Errorf("%s: not a valid connection string: a keyword, its value or the quoting is wrong", origin)
	}
	p.runtime[name] = value // a server setting; the server rejects an unknown name
	return nil
}

func (p *parser) has(name string) bool {
	_, ok := p.values[name]
	if !ok {
		_, ok = p.runtime[name]
	}
	return ok
}

// where returns how an error names the origin of a parameter.
func (p *parser) where(name, origin string) string {
	if origin == "" {
		origin = p.origin[name]
	}
	if strings.HasPrefix(origin, "PG") {
		return "$" + origin
	}
	return origin
}

// known reports whether this package supports a parameter.
func known(name string) bool {
	switch name {
	case "host", "hostaddr", "port", "dbname", "user", "password", "passfile", "service", "servicefile",
		"connect_timeout", "options", "application_name", "fallback_application_name", "target_session_attrs", "load_balance_hosts",
		"sslmode", "sslnegotiation", "sslcert", "sslkey", "sslrootcert", "sslsni", "sslcertmode", "requiressl",
		"ssl_min_protocol_version", "ssl_max_protocol_version", "min_protocol_version", "max_protocol_version",
		"channel_binding", "gssencmode", "replication":
		return true
	}
	return false
}

// harmless reports whether a parameter has no effect here. The tools limit every
// wait themselves, use UTF-8, and support neither GSSAPI nor compression.
func harmless(name string) bool {
	switch name {
	case "client_encoding", "keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout",
		"krbsrvname", "gsslib", "gssdelegation", "sslcompression", "sslpassword", "binary_parameters":
		return true
	}
	return false
}

// unsupported reports whether a parameter asks for a feature that the tools lack.
func unsupported(name string) bool {
	switch name {
	case "requirepeer", "require_auth", "sslcrl", "sslcrldir", "sslkeylogfile", "scram_client_key", "scram_server_key", "sslinline", "krbspn":
		return true
	}
	return strings.HasPrefix(name, "oauth_")
}

// identifier reports whether name can be the name of a server setting.
func identifier(name string) bool {
	for _, c := range []byte(name) {
		if c != '_' && c != '.' && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') {
			return false
		}
	}
	return name != "" && len(name) < 64
}

// check returns an error for a value that is not valid or not supported. The error
// does not show the value.
func (p *parser) check() error {
	for _, c := range []struct {
		name   string
		values string
	}{
		{"sslmode", "disable allow prefer require verify-ca verify-full"},
		{"sslnegotiation", "postgres direct"},
		{"sslcertmode", "disable allow require"},
		{"channel_binding", "disable prefer require"},
		{"gssencmode", "disable prefer require"},
		{"target_session_attrs", "any read-write read-only primary standby prefer-standby"},
		{"load_balance_hosts", "disable random"},
		{"ssl_min_protocol_version", "TLSv1 TLSv1.0 TLSv1.1 TLSv1.2 TLSv1.3"},
		{"ssl_max_protocol_version", "TLSv1 TLSv1.0 TLSv1.1 TLSv1.2 TLSv1.3"},
		{"min_protocol_version", "3.0 3.2 latest"},
		{"max_protocol_version", "3.0 3.2 latest"},
	} {
		v := p.values[c.name]
		if v != "" && !slices.Contains(strings.Fields(c.values), v) {
			return fmt.Errorf("%s: %s: not one of %s", p.where(c.name, ""), c.name, strings.ReplaceAll(c.values, " ", ", "))
		}
		if c.name != "sslmode" && v == "require" {
			return sysexits.New(sysexits.Config, "bad_configuration", fmt.Errorf("%s: %s=require is not supported", p.where(c.name, ""), c.name)).
				WithHint("remove it; sslmode=verify-full protects the connection")
		}
	}
	if v := p.values["replication"]; v != "" && v != "0" && v != "false" && v != "off" && v != "no" {
		return fmt.Errorf("%s: replication is not supported", p.where("replication", ""))
	}
	mode := p.values["sslmode"]
	weak := mode == "disable" || mode == "allow" || mode == "prefer"
	if p.values["sslnegotiation"] == "direct" && weak {
		return errors.New("sslnegotiation=direct needs sslmode=require, verify-ca or verify-full")
	}
	if p.values["sslrootcert"] == "system" {
		if mode != "" && mode != "verify-full" {
			return errors.New("sslrootcert=system needs sslmode=verify-full")
		}
		p.values["sslmode"] = "verify-full"
	}
	return nil
}

// config returns the configuration for the parameters.
func (p *parser) config() (cfg Config, err error) {
	v := p.values
	cfg = Config{
		User: v["user"], Database: v["dbname"], Options: v["options"], Runtime: p.runtime,
		ApplicationName: v["application_name"], TargetSessionAttrs: v["target_session_attrs"], LoadBalance: v["load_balance_hosts"] == "random",
		SSLNegotiation: v["sslnegotiation"], SSLSNI: v["sslsni"] == "" || v["sslsni"][0] == '1',
		SSLMinProtocolVersion: v["ssl_min_protocol_version"], SSLMaxProtocolVersion: v["ssl_max_protocol_version"],
		MinProtocolVersion: v["min_protocol_version"], MaxProtocolVersion: v["max_protocol_version"],
	}
	if cfg.ApplicationName == "" {
		cfg.ApplicationName = v["fallback_application_name"]
	}
	if cfg.User == "" {
		u, err := user.Current()
		if err != nil {
			return cfg, fmt.Errorf("no user is given: %w", err)
		}
		cfg.User = u.Username
	}
	if s := strings.TrimSpace(v["connect_timeout"]); s != "" {
		n, err := strconv.ParseInt(s, 10, 32)
		if err != nil {
			return cfg, fmt.Errorf("%s: connect_timeout: not a number of seconds", p.where("connect_timeout", ""))
		}
		cfg.ConnectTimeout = time.Duration(max(n, 0)) * time.Second
	}
	p.certificates(&cfg)
	if cfg.Hosts, err = p.hosts(); err != nil {
		return cfg, err
	}
	return cfg, p.passwords(&cfg)
}

// hosts returns the list of hosts. As with libpq, an empty name means the local
// socket, and a single port is used for all hosts.
func (p *parser) hosts() ([]Host, error) {
	names, addrs, ports := strings.Split(p.values["host"], ","), strings.Split(p.values["hostaddr"], ","), strings.Split(p.values["port"], ",")
	if p.values["hostaddr"] != "" && p.values["host"] == "" {
		names = make([]string, len(addrs))
	}
	if p.values["hostaddr"] == "" {
		addrs = make([]string, len(names))
	}
	if len(addrs) != len(names) {
		return nil, fmt.Errorf("%d values of host and %d of hostaddr", len(names), len(addrs))
	}
	if len(ports) != 1 && len(ports) != len(names) {
		return nil, fmt.Errorf("%d ports and %d hosts", len(ports), len(names))
	}
	var hosts []Host
	for i, name := range names {
		h := Host{Name: name, Port: 5432, SSLMode: p.values["sslmode"]}
		if port := strings.TrimSpace(ports[min(i, len(ports)-1)]); port != "" {
			n, err := strconv.ParseUint(port, 10, 16)
			if err != nil || n == 0 {
				return nil, fmt.Errorf("%s: port: not a number from 1 to 65535 (a special character in a password must be percent-encoded)", p.where("port", ""))
			}
			h.Port = uint16(n)
		}
		if addrs[i] != "" {
			addr, err := netip.ParseAddr(addrs[i])
			if err != nil {
				return nil, fmt.Errorf("%s: hostaddr: not an IP address", p.where("hostaddr", ""))
			}
			h.Addr = addr
		}
		if h.Name == "" && !h.Addr.IsValid() {
			h.Name = socketDirectory
		}
		switch {
		case h.Socket():
			h.SSLMode = "disable" // there is no TLS on a socket
		case h.SSLMode == "" && h.local():
			h.SSLMode = "disable"
		case h.SSLMode == "":
			h.SSLMode = "verify-full"
		}
		hosts = append(hosts, h)
	}
	return hosts, nil
}

// Socket reports whether the host is reached through a unix socket.
func (h Host) Socket() bool {
	return !h.Addr.IsValid() && (filepath.IsAbs(h.Name) || strings.HasPrefix(h.Name, "@"))
}

// local reports whether the host is this machine.
func (h Host) local() bool {
	if h.Addr.IsValid() {
		return h.Addr.IsLoopback()
	}
	ip, err := netip.ParseAddr(h.Name)
	return h.Name == "localhost" || err == nil && ip.IsLoopback()
}

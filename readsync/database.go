package main

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/lib/pq"

	"observability-hub/lib/credential"
	"observability-hub/lib/sysexits"
)

// socketFolder is where Debian's and most others' PostgreSQL has its socket.
const socketFolder = "/run/postgresql"

// databaseConfig returns how to reach the database: the credential
// database_url, $DATABASE_URL, or libpq's PG* variables. ok is false if none
// of them says anything. As with libpq, no host means the local socket. The TLS
// mode is never left to the library: where none is given it is verify-full,
// except to this machine itself.
func databaseConfig() (cfg pq.Config, ok bool, err error) {
	dsn, ok, err := credential.Lookup("database_url")
	if err != nil {
		return cfg, false, configError(err)
	}
	if !ok && !isSet("PGHOST", "PGHOSTADDR", "PGSERVICE", "PGDATABASE", "PGUSER") {
		return cfg, false, nil
	}
	if err := checkForm(dsn); err != nil {
		return cfg, false, configError(fmt.Errorf("database_url: %w", err))
	}
	if err := unsetEmpty(); err != nil {
		return cfg, false, err
	}
	if !isSet("PGHOST", "PGHOSTADDR", "PGSERVICE") && !names(dsn, "hostaddr") && !names(dsn, "service") {
		// The driver's own default is localhost; its environment is behind the string.
		if err := os.Setenv("PGHOST", socketFolder); err != nil {
			return cfg, false, err
		}
		defer os.Unsetenv("PGHOST")
	}
	cfg, err = pq.NewConfig(dsn)
	if err != nil && dsn != "" {
		// The driver's message may quote any part of a string that it did not understand.
		err = errors.New("database_url: not a connection string that the PostgreSQL driver understands: a keyword, its value or the quoting is wrong")
	}
	if err != nil {
		return cfg, false, configError(err)
	}
	cfg.Host = strings.Trim(cfg.Host, "[]") // of an IPv6 address in a URL
	if filepath.IsAbs(cfg.Host) && !local(cfg) && !saysPlainText(dsn) {
		return cfg, false, configError(errors.New("database_url: a socket first and another machine behind it: the driver would do without TLS for both"))
	}
	if cfg.SSLMode == "" {
		cfg.SSLMode = pq.SSLModeVerifyFull
		if local(cfg) {
			cfg.SSLMode = pq.SSLModeDisable
		}
	}
	if cfg.ConnectTimeout == 0 {
		cfg.ConnectTimeout = 5 * time.Second
	}
	if cfg.ApplicationName == "" {
		cfg.ApplicationName = name
	}
	return cfg, true, nil
}

// saysPlainText reports whether TLS is expressly not wanted.
func saysPlainText(dsn string) bool {
	return strings.Contains(strings.ReplaceAll(dsn, " ", ""), "sslmode=disable") || os.Getenv("PGSSLMODE") == "disable"
}

// names reports whether a connection string of either form gives a keyword.
func names(dsn, keyword string) bool {
	if u, err := url.Parse(dsn); err == nil && u.Scheme != "" {
		return u.Query().Has(keyword)
	}
	return slices.ContainsFunc(strings.Fields(dsn), func(word string) bool { return strings.HasPrefix(word, keyword+"=") })
}

// isSet reports whether one of the environment variables says something.
func isSet(variables ...string) bool {
	return slices.ContainsFunc(variables, func(v string) bool { return os.Getenv(v) != "" })
}

// unsetEmpty removes libpq's variables that are empty, as EnvironmentFile= and
// compose files leave them: the driver takes PGPORT= for a port, and a bad one.
func unsetEmpty() error {
	for _, v := range os.Environ() {
		if name, value, _ := strings.Cut(v, "="); value == "" && strings.HasPrefix(name, "PG") {
			if err := os.Unsetenv(name); err != nil {
				return err
			}
		}
	}
	return nil
}

func configError(err error) error {
	return sysexits.New(sysexits.Config, "bad_configuration", err).
		WithHint("database_url reads postgres://user:password@host/database?sslmode=verify-full, or user=… host=… dbname=…")
}

// checkForm refuses what is neither of the two forms of a connection string,
// without a word of it: what is wrong may be the password.
func checkForm(dsn string) error {
	switch {
	case dsn == "":
		return nil // all is in the environment
	case strings.HasPrefix(dsn, "postgres://"), strings.HasPrefix(dsn, "postgresql://"):
		if _, err := url.Parse(dsn); err != nil {
			return errors.New("not a well-formed URL (a special character in the password must be %-encoded)")
		}
	case strings.Contains(dsn, "://") || !strings.Contains(dsn, "="):
		return errors.New("not a PostgreSQL connection string")
	}
	return nil
}

// local reports whether every host of the configuration is this machine.
func local(cfg pq.Config) bool {
	here := func(host string, addr netip.Addr) bool {
		if addr != (netip.Addr{}) {
			return addr.IsLoopback()
		}
		if filepath.IsAbs(host) || strings.HasPrefix(host, "@") || host == "localhost" {
			return true
		}
		ip, err := netip.ParseAddr(host)
		return err == nil && ip.IsLoopback()
	}
	for _, m := range cfg.Multi {
		if !here(m.Host, m.Hostaddr) {
			return false
		}
	}
	return here(cfg.Host, cfg.Hostaddr)
}

// database is an open session. It uses the driver without database/sql: one
// session, one round trip a statement, no pool to keep.
type database struct {
	conn    driver.Conn
	timeout time.Duration // of one exchange with the server
}

// connect opens a session that ends with ctx, and in which no peer is waited for
// longer than timeout at a time.
func connect(ctx context.Context, cfg pq.Config, timeout time.Duration) (*database, error) {
	connector, err := pq.NewConnectorConfig(cfg)
	if err != nil {
		return nil, configError(err)
	}
	connector.Dialer(dialer{ctx: ctx, timeout: timeout})
	conn, err := connector.Connect(ctx)
	if err != nil {
		return nil, databaseError(fmt.Errorf("connect to the database: %w", err))
	}
	return &database{conn, timeout}, nil
}

func (d *database) close() error { return d.conn.Close() }

// broken reports whether the session is lost.
func (d *database) broken() bool {
	v, ok := d.conn.(driver.Validator)
	return ok && !v.IsValid()
}

// exec runs statements that have no parameters, in one round trip.
func (d *database) exec(sql string) error {
	execer, ok := d.conn.(driver.ExecerContext)
	if !ok {
		return errors.New("the PostgreSQL driver cannot execute plain statements")
	}
	_, err := execer.ExecContext(context.Background(), sql, nil)
	return err
}

// column runs one query and returns the first column of its rows as text; NULL
// is the empty string.
func (d *database) column(sql string) ([]string, error) {
	queryer, ok := d.conn.(driver.QueryerContext)
	if !ok {
		return nil, errors.New("the PostgreSQL driver cannot run plain queries")
	}
	rows, err := queryer.QueryContext(context.Background(), sql, nil)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var result []string
	for dest := make([]driver.Value, len(rows.Columns())); ; {
		switch err := rows.Next(dest); err {
		case nil:
			text := ""
			switch v := dest[0].(type) {
			case string:
				text = v
			case []byte:
				text = string(v)
			case int64:
				text = strconv.FormatInt(v, 10)
			}
			result = append(result, text)
		case io.EOF:
			return result, nil
		default:
			return nil, err
		}
	}
}

// databaseError gives an error of the driver its exit status: what the
// administrator must change is bad configuration, everything else may be over
// by the next run.
func databaseError(err error) error {
	if e, ok := errors.AsType[*sysexits.Error](err); ok {
		return e
	}
	if pe, ok := errors.AsType[*pq.Error](err); ok {
		switch class(pe) {
		case "28", "3D": // wrong password, unknown role or database
			return sysexits.New(sysexits.Config, "database_refused", err).
				WithHint("check database_url, and pg_hba.conf on the server")
		case "42", "3F": // no privilege, another table of that name
			return sysexits.New(sysexits.Config, "database_refused", err).
				WithHint("reading_analytics needs a unique index on mongo_id; the role must be allowed to insert into it and to make temporary tables")
		}
	}
	return sysexits.New(sysexits.Unavailable, "database_unavailable", err)
}

// class returns the first two characters of the SQLSTATE.
func class(e *pq.Error) string {
	return string(e.Code)[:min(2, len(e.Code))]
}

// dialer opens connections that end with ctx, whatever the driver waits for.
type dialer struct {
	net.Dialer
	ctx     context.Context
	timeout time.Duration
}

func (d dialer) Dial(network, address string) (net.Conn, error) {
	return d.DialContext(d.ctx, network, address)
}

func (d dialer) DialTimeout(network, address string, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(d.ctx, timeout)
	defer cancel()
	return d.DialContext(ctx, network, address)
}

// DialContext is what the driver calls, with a context that has its
// connect_timeout.
func (d dialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := d.Dialer.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	context.AfterFunc(d.ctx, func() { _ = conn.Close() }) // a signal
	return patient{conn, d.timeout}, nil
}

// patient is a connection on which each reading and writing may take a while,
// but not for ever. A statement that the server itself ends after the same time
// has a little longer to say so.
type patient struct {
	net.Conn
	timeout time.Duration
}

func (p patient) deadline() time.Time { return time.Now().Add(p.timeout + 5*time.Second) }

func (p patient) Read(b []byte) (int, error) {
	if err := p.SetReadDeadline(p.deadline()); err != nil {
		return 0, err
	}
	return p.Conn.Read(b)
}

func (p patient) Write(b []byte) (int, error) {
	if err := p.SetWriteDeadline(p.deadline()); err != nil {
		return 0, err
	}
	return p.Conn.Write(b)
}

package main

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
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
// session, one round trip, no pool to keep.
type database struct {
	conn     driver.Conn
	deadline time.Time // of the session
}

// connect opens a session that no peer can keep for longer than ctx lasts; it
// must have a deadline. The connection itself ends with ctx, so the statements
// are run without one, which would take the driver a goroutine for each.
func connect(ctx context.Context, cfg pq.Config) (*database, error) {
	connector, err := pq.NewConnectorConfig(cfg)
	if err != nil {
		return nil, configError(err)
	}
	connector.Dialer(dialer{ctx: ctx})
	conn, err := connector.Connect(ctx)
	if err != nil {
		return nil, databaseError(fmt.Errorf("connect to the database: %w", err))
	}
	deadline, _ := ctx.Deadline()
	return &database{conn, deadline}, nil
}

func (d *database) close() error { return d.conn.Close() }

// limited puts limits of the server's own in front of statements, in the same
// message and transaction: a server does not notice that its client has gone
// while it waits for a lock, and would keep a backend for each run that gave up.
func (d *database) limited(sql string) string {
	// Neither 0, which is no limit, nor more than the setting takes.
	left := min(max(time.Until(d.deadline).Milliseconds(), 1), math.MaxInt32)
	return fmt.Sprintf("SET LOCAL statement_timeout = %d;\nSET LOCAL lock_timeout = %d;\n%s", left, left, sql)
}

// exec runs statements that have no parameters, several at once in one
// transaction, in one round trip, and returns the last one's number of rows.
func (d *database) exec(sql string) (int64, error) {
	execer, ok := d.conn.(driver.ExecerContext)
	if !ok {
		return 0, errors.New("the PostgreSQL driver cannot execute plain statements")
	}
	result, err := execer.ExecContext(context.Background(), d.limited(sql), nil)
	if err != nil {
		return 0, err
	}
	return result.RowsAffected()
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
				WithHint("run: sysmetrics schema | psql, as the role that inserts")
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
	ctx context.Context
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
	deadline, _ := d.ctx.Deadline()
	// A signal cancels ctx before its deadline.
	context.AfterFunc(d.ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	return mortal{conn, deadline}, conn.SetDeadline(deadline)
}

// mortal is a connection whose deadline can be brought forward, never put off.
type mortal struct {
	net.Conn
	deadline time.Time
}

// SetDeadline is net.Conn's; the zero time means the last possible one.
func (m mortal) SetDeadline(t time.Time) error {
	if t.IsZero() || t.After(m.deadline) {
		t = m.deadline
	}
	return m.Conn.SetDeadline(t)
}

// column runs one query and returns the first column of its rows as text; NULL
// is the empty string.
func (d *database) column(sql string) ([]string, error) {
	queryer, ok := d.conn.(driver.QueryerContext)
	if !ok {
		return nil, errors.New("the PostgreSQL driver cannot run plain queries")
	}
	rows, err := queryer.QueryContext(context.Background(), d.limited(sql), nil)
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
			}
			result = append(result, text)
		case io.EOF:
			return result, nil
		default:
			return nil, err
		}
	}
}

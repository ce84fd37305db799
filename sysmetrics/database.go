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
// of them says anything. The TLS mode is never left to the library: where none
// is given it is verify-full, except to this machine itself.
func databaseConfig() (cfg pq.Config, ok bool, err error) {
	dsn, ok, err := credential.Lookup("database_url")
	if err != nil {
		return cfg, false, configError(err)
	}
	if !ok && !slices.ContainsFunc([]string{"PGHOST", "PGHOSTADDR", "PGSERVICE", "PGDATABASE", "PGUSER"}, func(v string) bool { return os.Getenv(v) != "" }) {
		return cfg, false, nil
	}
	hasHost := os.Getenv("PGHOST")+os.Getenv("PGHOSTADDR")+os.Getenv("PGSERVICE") != ""
	if dsn != "" {
		given, err := namesHost(dsn)
		if err != nil {
			return cfg, false, err
		}
		hasHost = hasHost || given
	}
	cfg, err = pq.NewConfig(dsn)
	if err != nil {
		// The library's message may quote any part of a string that it did not understand.
		if dsn != "" && leaks(err.Error(), dsn) {
			err = errors.New("not a connection string that the PostgreSQL driver understands")
		}
		return cfg, false, configError(fmt.Errorf("database_url: %w", err))
	}
	if !hasHost {
		cfg.Host = socketFolder
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

func configError(err error) error {
	return sysexits.New(sysexits.Config, "bad_configuration", err).
		WithHint("database_url reads postgres://user:password@host/database?sslmode=verify-full, or user=… host=… dbname=…")
}

// namesHost reports whether a connection string names a host.
func namesHost(dsn string) (bool, error) {
	if !strings.HasPrefix(dsn, "postgres://") && !strings.HasPrefix(dsn, "postgresql://") {
		if strings.Contains(dsn, "://") || !strings.Contains(dsn, "=") {
			return false, configError(errors.New("database_url: not a PostgreSQL connection string"))
		}
		return strings.Contains(dsn, "host"), nil
	}
	u, err := url.Parse(dsn)
	if err != nil {
		// url.Error quotes the whole string, password and all.
		return false, configError(errors.New("database_url: not a well-formed URL (a special character in the password must be %-encoded)"))
	}
	q := u.Query()
	return u.Host != "" || q.Has("host") || q.Has("hostaddr") || q.Has("service"), nil
}

// leaks reports whether a message quotes a part of a secret.
func leaks(message, secret string) bool {
	for _, word := range strings.FieldsFunc(message, func(r rune) bool { return strings.ContainsRune(" \"'`:=,", r) }) {
		if len(word) > 2 && strings.Contains(secret, word) {
			return true
		}
	}
	return false
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
	conn driver.Conn
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
	return &database{conn}, nil
}

func (d *database) close() error { return d.conn.Close() }

// exec runs statements that have no parameters, several at once in one
// transaction, in one round trip, and returns the last one's number of rows.
func (d *database) exec(sql string) (int64, error) {
	execer, ok := d.conn.(driver.ExecerContext)
	if !ok {
		return 0, errors.New("the PostgreSQL driver cannot execute plain statements")
	}
	result, err := execer.ExecContext(context.Background(), sql, nil)
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
	pe, ok := errors.AsType[*pq.Error](err)
	if !ok {
		return sysexits.New(sysexits.Unavailable, "database_unavailable", err).
			WithHint("the records are kept in the spool; the next run that reaches the database inserts them")
	}
	hint := ""
	switch class(pe) {
	case "28", "3D": // wrong password, unknown role or database
		hint = "check database_url, and pg_hba.conf on the server; the records are kept in the spool"
	case "42", "3F": // no privilege, another table of that name
		hint = "run: sysmetrics schema | psql, as the role that inserts; the records are kept in the spool"
	default:
		return sysexits.New(sysexits.Unavailable, "database_unavailable", fmt.Errorf("%w (SQLSTATE %s)", err, pe.Code)).
			WithHint("the records are kept in the spool; the next run that reaches the database inserts them")
	}
	return sysexits.New(sysexits.Config, "database_refused", fmt.Errorf("%w (SQLSTATE %s)", err, pe.Code)).WithHint(hint)
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
			}
			result = append(result, text)
		case io.EOF:
			return result, nil
		default:
			return nil, err
		}
	}
}

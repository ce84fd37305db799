package main

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"math"
	"net"
	"strings"
	"time"

	"github.com/lib/pq"

	"observability-hub/lib/libpq"
	"observability-hub/lib/sysexits"
)

// databaseConfig returns how to reach the database: the credential
// database_url, $DATABASE_URL, or libpq's PG* variables. ok is false if none
// of them says anything. As with libpq, no host means the local socket. The TLS
// mode is never left to the library: where none is given it is verify-full,
// except to this machine itself.
func databaseConfig() (cfg pq.Config, ok bool, err error) {
	dsn, ok, err := libpq.Configured()
	if err != nil || !ok {
		return cfg, false, err
	}
	restore, err := libpq.Environment(dsn)
	if err != nil {
		return cfg, false, err
	}
	defer restore()
	if cfg, err = pq.NewConfig(dsn); err != nil {
		return cfg, false, libpq.Malformed(dsn, err)
	}
	cfg.Host = strings.Trim(cfg.Host, "[]") // of an IPv6 address in a URL
	hosts := []libpq.Host{{Name: cfg.Host, Addr: cfg.Hostaddr}}
	for _, m := range cfg.Multi {
		hosts = append(hosts, libpq.Host{Name: m.Host, Addr: m.Hostaddr})
	}
	sslmode, err := libpq.TLS(dsn, hosts)
	if err != nil {
		return cfg, false, err
	}
	if cfg.SSLMode == "" {
		cfg.SSLMode = pq.SSLMode(sslmode)
	}
	if cfg.ConnectTimeout == 0 {
		cfg.ConnectTimeout = 5 * time.Second
	}
	if cfg.ApplicationName == "" {
		cfg.ApplicationName = name
	}
	return cfg, true, nil
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
		return nil, libpq.BadConfiguration(err)
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
func (d *database) exec(sql string) (int64, error) { return libpq.Exec(d.conn, d.limited(sql)) }

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
func (d *database) column(sql string) ([]string, error) { return libpq.Column(d.conn, d.limited(sql)) }

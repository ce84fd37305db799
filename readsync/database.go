package main

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
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
		return nil, libpq.BadConfiguration(err)
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
	_, err := libpq.Exec(d.conn, sql)
	return err
}

// column runs one query and returns the first column of its rows as text; NULL
// is the empty string.
func (d *database) column(sql string) ([]string, error) { return libpq.Column(d.conn, sql) }

// databaseError gives an error of the driver its exit status: what the
// administrator must change is bad configuration, everything else may be over
// by the next run.
func databaseError(err error) error {
	if e, ok := errors.AsType[*sysexits.Error](err); ok {
		return e
	}
	hint := "is PostgreSQL up, and is it where database_url or PGHOST and PGPORT say?"
	if pe, ok := errors.AsType[*pq.Error](err); ok {
		hint = "the server is there and cannot do it now; its own log says more"
		if hint := tableFault(pe); hint != "" {
			return sysexits.New(sysexits.Config, "database_refused", err).WithHint(hint)
		}
		switch class(pe) {
		case "25": // read-only
			hint = "the server is a standby or read-only; database_url should name the primary, or say target_session_attrs=read-write"
		case "28", "3D": // wrong password, unknown role or database
			return sysexits.New(sysexits.Config, "database_refused", err).
				WithHint("check database_url, and pg_hba.conf on the server")
		case "42", "3F": // no privilege, another table of that name
			return sysexits.New(sysexits.Config, "database_refused", err).
				WithHint("reading_analytics needs a unique index on mongo_id; the role must be allowed to insert into it and to make temporary tables")
		}
	}
	return sysexits.New(sysexits.Unavailable, "database_unavailable", err).WithHint(hint)
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
	// The driver waits for the end of a COPY from its beginning on.
	if err := p.SetDeadline(p.deadline()); err != nil {
		return 0, err
	}
	return p.Conn.Write(b)
}

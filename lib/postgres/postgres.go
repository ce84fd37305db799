// Package postgres is a session with a PostgreSQL server, for tools that run for a
// short time. It uses the driver without database/sql. It has one connection, and
// needs one round trip for each statement. Every wait is limited, and errors carry
// an exit status and a hint.
//
// The package leaves no SET and no prepared statement in the session, because a
// pooler in transaction mode gives the same session to the next client.
package postgres

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strconv"
	"time"

	"github.com/lib/pq"

	"observability-hub/lib/diag"
	"observability-hub/lib/libpq"
	"observability-hub/lib/sysexits"
)

// Conn is an open session. Only one goroutine may use it.
type Conn struct {
	conn driver.Conn
}

// Connect opens a session with the first host of cfg that can be reached and that
// target_session_attrs accepts. The connection ends with ctx. patience, if not 0,
// is the maximum time for each answer of the server.
func Connect(ctx context.Context, cfg libpq.Config, patience time.Duration) (*Conn, error) {
	for _, w := range cfg.Warnings {
		diag.From(ctx).Warn("password_file_ignored", w)
	}
	hosts := cfg.Hosts
	if cfg.LoadBalance {
		hosts = append([]libpq.Host(nil), hosts...)
		rand.Shuffle(len(hosts), func(i, j int) { hosts[i], hosts[j] = hosts[j], hosts[i] })
	}
	attempts := []pq.TargetSessionAttrs{pq.TargetSessionAttrs(cfg.TargetSessionAttrs)}
	if attempts[0] == pq.TargetSessionAttrsPreferStandby {
		attempts = []pq.TargetSessionAttrs{pq.TargetSessionAttrsStandby, pq.TargetSessionAttrsAny}
	}
	var errs []error
	for _, attrs := range attempts {
		errs = nil
		for _, h := range hosts {
			connector, err := pq.NewConnectorConfig(driverConfig(cfg, h, attrs))
			if err != nil {
				return nil, libpq.BadConfiguration(err)
			}
			connector.Dialer(dialer{ctx: ctx, patience: patience})
			conn, err := connector.Connect(ctx)
			if err == nil {
				return &Conn{conn}, nil
			}
			err = Failure(fmt.Errorf("connect to the database at %s: %w", address(h), err), Needs{})
			errs = append(errs, err)
			// Like libpq, do not try the other hosts if this server rejects the login.
			if pe, ok := errors.AsType[*pq.Error](err); ok && Class(pe) == "28" {
				return nil, err
			}
		}
	}
	return nil, joined(errs)
}

// joined joins the errors of several hosts. The result has the status and hint of
// the first error that may be over by the next run, else of the first error.
func joined(errs []error) error {
	if len(errs) == 1 {
		return errs[0]
	}
	first, _ := errors.AsType[*sysexits.Error](errs[0])
	text := ""
	for i, err := range errs {
		if e, ok := errors.AsType[*sysexits.Error](err); ok && e.Code == sysexits.Unavailable && first.Code != sysexits.Unavailable {
			first = e
		}
		if i > 0 {
			text += "; "
		}
		text += err.Error()
	}
	return &sysexits.Error{Code: first.Code, Event: first.Event, Hint: first.Hint, Err: errors.New(text)}
}

// address returns the name of a host for messages.
func address(h libpq.Host) string {
	name := h.Name
	if h.Addr.IsValid() {
		name = h.Addr.String()
	}
	if h.Socket() {
		return name + "/.s.PGSQL." + strconv.Itoa(int(h.Port))
	}
	return net.JoinHostPort(name, strconv.Itoa(int(h.Port)))
}

// nowhere is a path that cannot exist. The driver gets it in place of a missing
// path, because without a path the driver looks below the home directory.
const nowhere = "/dev/null/none"

// driverConfig returns a complete configuration for the driver, so that the driver
// reads neither the environment nor the home directory.
func driverConfig(cfg libpq.Config, h libpq.Host, attrs pq.TargetSessionAttrs) pq.Config {
	c := pq.Config{
		Host: h.Name, Hostaddr: h.Addr, Port: h.Port, Password: h.Password, SSLMode: pq.SSLMode(h.SSLMode),
		User: cfg.User, Database: cfg.Database, Passfile: nowhere, Options: cfg.Options, Runtime: cfg.Runtime,
		ApplicationName: cfg.ApplicationName, ConnectTimeout: cfg.ConnectTimeout, TargetSessionAttrs: attrs,
		ClientEncoding: "UTF8", Datestyle: "ISO, MDY",
		SSLNegotiation: pq.SSLNegotiation(cfg.SSLNegotiation), SSLCert: cfg.SSLCert, SSLKey: cfg.SSLKey, SSLRootCert: cfg.SSLRootCert, SSLSNI: cfg.SSLSNI,
		SSLMinProtocolVersion: tlsVersion(cfg.SSLMinProtocolVersion), SSLMaxProtocolVersion: tlsVersion(cfg.SSLMaxProtocolVersion),
		MinProtocolVersion: "3.0", MaxProtocolVersion: "3.0",
	}
	if c.Host == "" {
		c.Host = h.Addr.String() // the driver compares it with the certificate
	}
	if c.SSLCert == "" {
		c.SSLCert = nowhere
	}
	if c.SSLRootCert == "" {
		c.SSLRootCert = "system"
	}
	if c.SSLMode == pq.SSLModeDisable {
		c.SSLNegotiation = ""
	}
	if cfg.MinProtocolVersion != "" {
		c.MinProtocolVersion = pq.ProtocolVersion(cfg.MinProtocolVersion)
	}
	if cfg.MaxProtocolVersion != "" {
		c.MaxProtocolVersion = pq.ProtocolVersion(cfg.MaxProtocolVersion)
	}
	return c
}

// tlsVersion converts libpq's name TLSv1 to the driver's name.
func tlsVersion(v string) pq.SSLProtocolVersion {
	if v == "TLSv1" {
		v = "TLSv1.0"
	}
	return pq.SSLProtocolVersion(v)
}

// Close ends the session.
func (c *Conn) Close() error { return c.conn.Close() }

// Broken reports whether the session is lost.
func (c *Conn) Broken() bool {
	v, ok := c.conn.(driver.Validator)
	return ok && !v.IsValid()
}

// Driver returns the driver's connection, for COPY.
func (c *Conn) Driver() driver.Conn { return c.conn }

// Exec runs one or more statements without parameters, in one transaction and one
// round trip. It returns the number of rows of the last statement.
func (c *Conn) Exec(sql string) (int64, error) {
	execer, ok := c.conn.(driver.ExecerContext)
	if !ok {
		return 0, errors.New("the PostgreSQL driver cannot execute plain statements")
	}
	result, err := execer.ExecContext(context.Background(), sql, nil)
	if err != nil {
		return 0, err
	}
	return result.RowsAffected()
}

// Column runs one query and returns the first column of its rows as text. NULL
// becomes the empty string.
func (c *Conn) Column(sql string) ([]string, error) {
	queryer, ok := c.conn.(driver.QueryerContext)
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
			case bool:
				text = strconv.FormatBool(v)
			}
			result = append(result, text)
		case io.EOF:
			return result, nil
		default:
			return nil, err
		}
	}
}

// dialer opens connections that end with ctx, even while the driver waits.
type dialer struct {
	net.Dialer
	ctx      context.Context
	patience time.Duration
}

func (d dialer) Dial(network, address string) (net.Conn, error) {
	return d.DialContext(d.ctx, network, address)
}

func (d dialer) DialTimeout(network, address string, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(d.ctx, timeout)
	defer cancel()
	return d.DialContext(ctx, network, address)
}

// DialContext is called by the driver, with a context that ends after
// connect_timeout.
func (d dialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := d.Dialer.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	// A signal cancels ctx before its deadline.
	context.AfterFunc(d.ctx, func() {
		if d.patience > 0 {
			_ = conn.Close() // not a deadline, because the next wait would set a new one
		} else {
			_ = conn.SetDeadline(time.Unix(1, 0))
		}
	})
	last, _ := d.ctx.Deadline()
	m := mortal{conn, last, d.patience}
	return m, m.SetDeadline(time.Time{})
}

// mortal is a connection with limited waits. No wait is longer than patience,
// unless that is 0, and none ends after last, unless that is the zero time.
type mortal struct {
	net.Conn
	last     time.Time
	patience time.Duration
}

// SetDeadline implements [net.Conn]. It sets a deadline of at most last.
func (m mortal) SetDeadline(t time.Time) error {
	if !m.last.IsZero() && (t.IsZero() || t.After(m.last)) {
		t = m.last
	}
	return m.Conn.SetDeadline(t)
}

func (m mortal) Read(b []byte) (int, error) {
	if m.patience > 0 {
		if err := m.SetDeadline(m.next()); err != nil {
			return 0, err
		}
	}
	return m.Conn.Read(b)
}

func (m mortal) Write(b []byte) (int, error) {
	if m.patience > 0 {
		// This sets the deadline for reading too: from the beginning of a COPY the
		// driver waits for the answer to its end.
		if err := m.SetDeadline(m.next()); err != nil {
			return 0, err
		}
	}
	return m.Conn.Write(b)
}

// next returns the end of the next wait. It is 5 seconds later than patience, so
// that the server, which has the same limit, can report its own timeout.
func (m mortal) next() time.Time { return time.Now().Add(m.patience + 5*time.Second) }

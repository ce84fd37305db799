// Package postgres is a session with a PostgreSQL server, for tools that run for
// a moment: the driver without database/sql, one connection, one round trip a
// statement, every wait bounded, and errors that carry an exit status and a hint.
//
// It leaves nothing in the session: no SET, no prepared statement. Behind a
// pooler in transaction mode the next client gets the same one.
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

// Conn is an open session. It is for one goroutine.
type Conn struct {
	conn driver.Conn
}

// Connect opens a session with the first host of cfg that can be reached and
// that target_session_attrs accepts. The connection ends with ctx; patience, if
// not 0, is how long the server may take for each answer.
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
			// As with libpq, a server that answers with "wrong password" is the answer.
			if pe, ok := errors.AsType[*pq.Error](err); ok && Class(pe) == "28" {
				return nil, err
			}
		}
	}
	return nil, joined(errs)
}

// joined makes one error of those of several hosts. It has the status and hint
// of the first that may be over by the next run, else of the first.
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

// address is how a message names a host.
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

// nowhere is a path of no file, also for a user who may read everything. The
// driver looks below the home for files that it is not given.
const nowhere = "/dev/null/none"

// driverConfig says everything to the driver, so that it asks neither the
// environment nor the home.
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
		c.Host = h.Addr.String() // for the name in the certificate
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

// tlsVersion gives libpq's TLSv1 the driver's name.
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

// Exec runs statements that have no parameters, several at once in one
// transaction, in one round trip, and returns the last one's number of rows.
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

// Column runs one query and returns the first column of its rows as text; NULL
// is the empty string.
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

// dialer opens connections that end with ctx, whatever the driver waits for.
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

// DialContext is what the driver calls, with a context that has its
// connect_timeout.
func (d dialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := d.Dialer.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	// A signal cancels ctx before its deadline.
	context.AfterFunc(d.ctx, func() {
		if d.patience > 0 {
			_ = conn.Close() // the next wait would have a deadline of its own
		} else {
			_ = conn.SetDeadline(time.Unix(1, 0))
		}
	})
	last, _ := d.ctx.Deadline()
	m := mortal{conn, last, d.patience}
	return m, m.SetDeadline(time.Time{})
}

// mortal is a connection on which no wait is longer than patience, if that is
// not 0, and none goes beyond last, if that is not zero.
type mortal struct {
	net.Conn
	last     time.Time
	patience time.Duration
}

// SetDeadline is net.Conn's; a deadline can be brought forward, never put off.
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
		// For reading too: the driver waits for the end of a COPY from its
		// beginning on.
		if err := m.SetDeadline(m.next()); err != nil {
			return 0, err
		}
	}
	return m.Conn.Write(b)
}

// next is when the next wait ends. A statement that the server itself ends after
// the same time has a little longer to say so.
func (m mortal) next() time.Time { return time.Now().Add(m.patience + 5*time.Second) }

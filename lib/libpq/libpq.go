// Package libpq finds out which PostgreSQL database is meant in the way that
// libpq does, for the Go driver, whose defaults are others: no host means the
// local socket, an empty variable means nothing, and TLS is never left open.
//
// It knows nothing of the driver but the interfaces of database/sql/driver.
package libpq

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"observability-hub/lib/credential"
	"observability-hub/lib/sysexits"
)

// socketFolder is where Debian's and most others' PostgreSQL has its socket.
const socketFolder = "/run/postgresql"

// Configured returns the connection string of the credential database_url or
// $DATABASE_URL. It may be empty, if libpq's variables say all; ok is false if
// nothing says anything.
func Configured() (dsn string, ok bool, err error) {
	dsn, ok, err = credential.Lookup("database_url")
	if err != nil {
		return "", false, BadConfiguration(err)
	}
	if !ok && !isSet("PGHOST", "PGHOSTADDR", "PGSERVICE", "PGDATABASE", "PGUSER") {
		return "", false, nil
	}
	if err := checkForm(dsn); err != nil {
		return "", false, BadConfiguration(fmt.Errorf("database_url: %w", err))
	}
	return dsn, true, nil
}

// Environment makes libpq's variables mean to the driver what they mean to
// libpq, until restore is called.
func Environment(dsn string) (restore func(), err error) {
	if err := unsetEmpty(); err != nil {
		return nil, err
	}
	if isSet("PGHOST", "PGHOSTADDR", "PGSERVICE") || names(dsn, "hostaddr") || names(dsn, "service") {
		return func() {}, nil
	}
	// The driver's own default is localhost; its environment is behind the string.
	if err := os.Setenv("PGHOST", socketFolder); err != nil {
		return nil, err
	}
	return func() { os.Unsetenv("PGHOST") }, nil
}

// Malformed is the error of a connection string that the driver does not take.
// What the driver says may quote any part of it.
func Malformed(dsn string, err error) error {
	if dsn != "" {
		err = errors.New("database_url: not a connection string that the PostgreSQL driver understands: a keyword, its value or the quoting is wrong")
	}
	return BadConfiguration(err)
}

// Host is one of the hosts of a connection, by name or address.
type Host struct {
	Name string
	Addr netip.Addr
}

// TLS returns the sslmode where none is given: verify-full, except to this
// machine itself.
func TLS(dsn string, hosts []Host) (sslmode string, err error) {
	local := !slices.ContainsFunc(hosts, func(h Host) bool { return !h.local() })
	plain := strings.Contains(strings.ReplaceAll(dsn, " ", ""), "sslmode=disable") || os.Getenv("PGSSLMODE") == "disable"
	switch {
	case local:
		return "disable", nil
	case filepath.IsAbs(hosts[0].Name) && !plain:
		return "", BadConfiguration(errors.New("database_url: a socket first and another machine behind it: the driver would do without TLS for both"))
	}
	return "verify-full", nil
}

// local reports whether a host is this machine.
func (h Host) local() bool {
	if h.Addr != (netip.Addr{}) {
		return h.Addr.IsLoopback()
	}
	if filepath.IsAbs(h.Name) || strings.HasPrefix(h.Name, "@") || h.Name == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(h.Name)
	return err == nil && ip.IsLoopback()
}

// BadConfiguration gives an error its exit status and a hint.
func BadConfiguration(err error) error {
	return sysexits.New(sysexits.Config, "bad_configuration", err).
		WithHint("database_url reads postgres://user:password@host/database?sslmode=verify-full, or user=… host=… dbname=…")
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

// Exec runs statements that have no parameters, several at once in one
// transaction, in one round trip, and returns the last one's number of rows.
func Exec(conn driver.Conn, sql string) (int64, error) {
	execer, ok := conn.(driver.ExecerContext)
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
func Column(conn driver.Conn, sql string) ([]string, error) {
	queryer, ok := conn.(driver.QueryerContext)
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

package postgres

import (
	"database/sql"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"

	_ "github.com/lib/pq" // registers the driver that DB uses
)

// DB returns a pool of superuser connections to the database hub over the unix socket. It stays valid when the server restarts.
func (c *Cluster) DB() *sql.DB {
	if c.db == nil {
		db, err := sql.Open("postgres", c.SocketURL("postgres", "hub")+"&sslmode=disable&connect_timeout=5")
		if err != nil {
			panic(err) // cannot happen: SocketURL has built the address
		}
		// Idle connections of the test must not interfere with the faults that it causes.
		db.SetMaxIdleConns(1)
		c.db = db
	}
	return c.db
}

// Exec runs statements as the superuser.
func (c *Cluster) Exec(statements string) error {
	_, err := c.DB().Exec(statements)
	return err
}

// Query runs one query as the superuser and returns the rows as text, with "NULL" for NULL.
func (c *Cluster) Query(query string, args ...any) ([][]string, error) {
	rows, err := c.DB().Query(query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		return nil, err
	}
	var all [][]string
	for rows.Next() {
		values := make([]sql.NullString, len(columns))
		targets := make([]any, len(columns))
		for i := range values {
			targets[i] = &values[i]
		}
		if err := rows.Scan(targets...); err != nil {
			return nil, err
		}
		row := make([]string, len(columns))
		for i, v := range values {
			row[i] = "NULL"
			if v.Valid {
				row[i] = v.String
			}
		}
		all = append(all, row)
	}
	return all, rows.Err()
}

// URL returns the URL of the unix socket for a tool under test: role hub, database hub, no TLS mode.
func (c *Cluster) URL() string { return c.SocketURL("hub", "hub") }

// SocketURL returns the URL of the unix socket for a role and a database.
func (c *Cluster) SocketURL(role, database string) string {
	q := url.Values{"host": {c.socket()}, "port": {strconv.Itoa(c.Port)}}
	return "postgres://" + role + "@/" + database + "?" + q.Encode()
}

// TCPURL returns the URL of 127.0.0.1 with role hub and its password, without a TLS mode.
func (c *Cluster) TCPURL() string {
	return fmt.Sprintf("postgres://hub:%s@%s/hub", c.Password, c.Address())
}

// TLSURL returns TCPURL with sslmode=verify-full and the cluster's authority.
func (c *Cluster) TLSURL() string {
	return c.TCPURL() + "?" + url.Values{"sslmode": {"verify-full"}, "sslrootcert": {c.CACert()}}.Encode()
}

// Address returns host:port of TCP connections.
func (c *Cluster) Address() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(c.Port)) }

// Socket returns the path of the unix socket.
func (c *Cluster) Socket() string {
	return filepath.Join(c.socket(), fmt.Sprintf(".s.PGSQL.%d", c.Port))
}

// CACert returns the path of the authority's certificate, which verifies the server's.
func (c *Cluster) CACert() string { return filepath.Join(c.Dir, "tls", "ca.pem") }

// PSQL runs psql as the superuser with input on stdin and returns its output.
func (c *Cluster) PSQL(input string, args ...string) (string, error) {
	cmd := c.command("psql", append([]string{"-X", "-v", "ON_ERROR_STOP=1", "-h", c.socket(), "-p", strconv.Itoa(c.Port), "-U", "postgres", "-d", "hub"}, args...)...)
	cmd.Stdin = strings.NewReader(input)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("psql: %w\n%s", err, out)
	}
	return string(out), nil
}

package main

import (
	"context"
	"database/sql/driver"
	"errors"
	"time"

	"github.com/lib/pq"

	"observability-hub/lib/libpq"
	"observability-hub/lib/postgres"
	"observability-hub/lib/sysexits"
)

// databaseConfig returns how to reach the database; ok is false if nothing says
// so.
func databaseConfig() (cfg libpq.Config, ok bool, err error) { return libpq.Configured(name) }

// database is an open session.
type database struct {
	*postgres.Conn
	conn    driver.Conn
	timeout time.Duration // of one exchange with the server
}

// connect opens a session that ends with ctx, and in which no peer is waited for
// longer than timeout at a time.
func connect(ctx context.Context, cfg libpq.Config, timeout time.Duration) (*database, error) {
	conn, err := postgres.Connect(ctx, cfg, timeout)
	if err != nil {
		return nil, err
	}
	return &database{conn, conn.Driver(), timeout}, nil
}

func (d *database) close() error { return d.Close() }

// broken reports whether the session is lost.
func (d *database) broken() bool { return d.Broken() }

// exec runs statements that have no parameters, in one round trip.
func (d *database) exec(sql string) error {
	_, err := d.Exec(sql)
	return err
}

// column runs one query and returns the first column of its rows as text; NULL
// is the empty string.
func (d *database) column(sql string) ([]string, error) { return d.Column(sql) }

// databaseError gives an error of the driver its exit status and hint.
func databaseError(err error) error {
	if pe, ok := errors.AsType[*pq.Error](err); ok {
		if hint := tableFault(pe); hint != "" {
			return sysexits.New(sysexits.Config, "database_refused", err).WithHint(hint)
		}
	}
	return postgres.Failure(err, postgres.Needs{
		Table:  "reading_analytics",
		Rights: "SELECT, INSERT",
		Make:   "reading_analytics needs the columns that readsync(1) lists, and a unique index on mongo_id",
		Slow:   "--timeout may be too short for this table; verify reads all of it",
	})
}

// class returns the first two characters of the SQLSTATE.
func class(e *pq.Error) string { return postgres.Class(e) }

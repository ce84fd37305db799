package main

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/lib/pq"

	"observability-hub/lib/libpq"
	"observability-hub/lib/postgres"
)

// databaseConfig returns how to reach the database; ok is false if nothing says
// so.
func databaseConfig() (cfg libpq.Config, ok bool, err error) { return libpq.Configured(name) }

// database is an open session.
type database struct {
	*postgres.Conn
	deadline time.Time // of the session
}

// connect opens a session that no peer can keep for longer than ctx lasts; it
// must have a deadline. The connection itself ends with ctx, so the statements
// are run without one, which would take the driver a goroutine for each.
func connect(ctx context.Context, cfg libpq.Config) (*database, error) {
	conn, err := postgres.Connect(ctx, cfg, 0)
	if err != nil {
		return nil, err
	}
	deadline, _ := ctx.Deadline()
	return &database{conn, deadline}, nil
}

func (d *database) close() error { return d.Close() }

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
func (d *database) exec(sql string) (int64, error) { return d.Exec(d.limited(sql)) }

// column runs one query and returns the first column of its rows as text; NULL
// is the empty string.
func (d *database) column(sql string) ([]string, error) { return d.Column(d.limited(sql)) }

// databaseError gives an error of the driver its exit status and hint.
func databaseError(err error) error {
	return postgres.Failure(err, postgres.Needs{
		Table:  "system_metrics",
		Rights: "SELECT, INSERT",
		Make:   "run: sysmetrics schema | psql, as the role that is to own the table system_metrics",
		Slow:   "a table without the index of sysmetrics schema is slow: run sysmetrics schema | psql",
	})
}

// class returns the first two characters of the SQLSTATE.
func class(e *pq.Error) string { return postgres.Class(e) }

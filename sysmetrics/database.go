package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/lib/pq"

	"observability-hub/lib/libpq"
	"observability-hub/lib/postgres"
	"observability-hub/lib/sysexits"
)

// databaseConfig returns how to reach the database. ok is false if no database is
// configured.
func databaseConfig() (cfg libpq.Config, ok bool, err error) { return libpq.Configured(name) }

// database is an open session.
type database struct {
	*postgres.Conn
	deadline time.Time // of the session
	shadowed bool      // a temporary table system_metrics hides the real one
}

// connect opens a session that ends with ctx, even if the server does not answer.
// ctx must have a deadline. Because the connection itself ends with ctx, the
// statements are run without a context. With one, the driver would start a
// goroutine for each statement.
func connect(ctx context.Context, cfg libpq.Config) (*database, error) {
	conn, err := postgres.Connect(ctx, cfg, 0)
	if err != nil {
		return nil, err
	}
	deadline, _ := ctx.Deadline()
	return &database{Conn: conn, deadline: deadline}, nil
}

// configured opens a session with the database, which must be configured. It also
// returns the time of the server, which decides how old a row is.
func configured(ctx context.Context) (db *database, server time.Time, err error) {
	cfg, ok, err := databaseConfig()
	if err != nil {
		return nil, server, err
	}
	if !ok {
		return nil, server, sysexits.New(sysexits.Config, "no_database", errors.New("no database is configured")).
			WithHint("set DATABASE_URL, or PGHOST and PGDATABASE")
	}
	if db, err = connect(ctx, cfg); err != nil {
		return nil, server, err
	}
	if server, err = db.now(); err != nil {
		_ = db.close() // the first error counts
		return nil, server, databaseError(err)
	}
	return db, server, nil
}

func (d *database) close() error { return d.Close() }

// limited puts the server's own timeouts in front of statements, in the same
// message and transaction. While a server waits for a lock it does not notice
// that its client is gone. Without these timeouts it would keep one backend for
// each run that gave up.
func (d *database) limited(sql string) string {
	// At least 1, because 0 means no limit, and at most the largest valid setting.
	left := min(max(time.Until(d.deadline).Milliseconds(), 1), math.MaxInt32)
	return fmt.Sprintf("SET LOCAL statement_timeout = %d;\nSET LOCAL lock_timeout = %d;\n%s", left, left, sql)
}

// exec runs one or more statements without parameters, in one transaction and one
// round trip. It returns the number of rows of the last statement.
func (d *database) exec(sql string) (int64, error) { return d.Exec(d.limited(sql)) }

// column runs one query and returns the first column of its rows as text. NULL
// becomes the empty string.
func (d *database) column(sql string) ([]string, error) { return d.Column(d.limited(sql)) }

// databaseError adds an exit status and a hint to an error of the driver.
func databaseError(err error) error { return tableError(err, "SELECT, INSERT", makeTable) }

const makeTable = "run: sysmetrics schema | psql, as the role that should own the table system_metrics"

// tableError is databaseError for statements that need these rights, and tables that
// are created like that.
func tableError(err error, rights, create string) error {
	return postgres.Failure(err, postgres.Needs{
		Table:  "system_metrics",
		Rights: rights,
		Make:   create,
		Slow:   "a large table without an index is slow: sysmetrics schema | psql adds the index",
	})
}

// class returns the first two characters of the SQLSTATE.
func class(e *pq.Error) string { return postgres.Class(e) }

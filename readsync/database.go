package main

import (
	"context"
	"database/sql/driver"
	"errors"
	"time"
	"unsafe"

	"github.com/lib/pq"

	"observability-hub/lib/libpq"
	"observability-hub/lib/postgres"
	"observability-hub/lib/sysexits"
	"observability-hub/readsync/internal/pgfault"
	"observability-hub/readsync/internal/reading"
)

// database is a session with PostgreSQL.
type database interface {
	// exec runs statements that have no parameters, in one round trip.
	exec(sql string) error
	// column runs one query and returns the first column of its rows as text, and NULL
	// as the empty string.
	column(sql string) ([]string, error)
	// copyIn sends pieces of whole lines to a COPY until next returns an empty piece. It
	// returns the number of rows that the server copied.
	copyIn(sql string, next func() []byte) (int64, error)
	// broken reports whether the session is lost.
	broken() bool
	close() error
}

// connection is a database that the driver reaches.
type connection struct{ conn *postgres.Conn }

// dialDatabase opens a session that ends with ctx. timeout limits each wait for the
// server.
func dialDatabase(ctx context.Context, timeout time.Duration) (database, error) {
	cfg, ok, err := libpq.Configured(name)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, libpq.BadConfiguration(errors.New("no database_url: neither the credential nor $DATABASE_URL nor libpq's PGHOST, PGDATABASE, … is set"))
	}
	conn, err := postgres.Connect(ctx, cfg, timeout)
	if err != nil {
		return nil, err
	}
	return connection{conn}, nil
}

func (c connection) exec(sql string) error {
	_, err := c.conn.Exec(sql)
	return err
}

func (c connection) column(sql string) ([]string, error) { return c.conn.Column(sql) }
func (c connection) broken() bool                        { return c.conn.Broken() }
func (c connection) close() error                        { return c.conn.Close() }

func (c connection) copyIn(sql string, next func() []byte) (int64, error) {
	stmt, err := c.conn.Driver().Prepare(sql)
	if err != nil {
		return 0, err
	}
	lines, ok := stmt.(interface {
		CopyData(context.Context, string) (driver.Result, error)
	})
	if !ok {
		return 0, errors.New("the PostgreSQL driver has no CopyData")
	}
	for piece := next(); len(piece) > 0 && err == nil; piece = next() {
		// unsafe.String is safe here, because the driver copies the text before it
		// returns. It also adds the line break that the piece omits.
		_, err = lines.CopyData(context.Background(), unsafe.String(&piece[0], len(piece)-1))
	}
	//lint:ignore SA1019 this driver has no other way to end a COPY
	done, end := stmt.Exec(nil) // returns the server's error if CopyData failed
	// If the driver has already received the server's error, Exec does not read the rest
	// of the answer. Close reads it. Otherwise the connection could not be used again.
	if closed := stmt.Close(); end == nil {
		end = closed
	}
	if end != nil {
		return 0, end
	}
	if err != nil {
		return 0, err
	}
	return done.RowsAffected()
}

// databaseError adds the exit status and a hint to an error of the driver.
func databaseError(err error) error {
	if pe, ok := errors.AsType[*pq.Error](err); ok {
		if hint := pgfault.Table(pe, reading.ColumnNames[:]); hint != "" {
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

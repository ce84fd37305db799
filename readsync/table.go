package main

import (
	"errors"

	"observability-hub/lib/sysexits"
	"observability-hub/readsync/internal/pgfault"
)

// tableSQL makes the table as hubs have it.
const tableSQL = `CREATE TABLE IF NOT EXISTS reading_analytics (
	id serial PRIMARY KEY,
	mongo_id text UNIQUE NOT NULL,
	event_timestamp timestamptz,
	source text,
	event_type text,
	payload jsonb,
	meta jsonb,
	created_at timestamptz DEFAULT now()
)`

// prepare makes the table, and finds out whether it can be written to at all.
func (t *target) prepare() error {
	if t.mode.dryRun {
		return nil
	}
	if err := t.makeTable(); err != nil {
		return err
	}
	if err := t.begin(readWrite); err != nil {
		return err
	}
	// A COPY into a table without a unique index would double rows. PostgreSQL has no
	// plan for this statement if there is no such index.
	err := t.exec("EXPLAIN INSERT INTO reading_analytics (mongo_id) VALUES ('') ON CONFLICT (mongo_id) DO NOTHING")
	if err == nil {
		err = t.exec(stagingSQL)
	}
	return errors.Join(err, t.rollback())
}

// makeTable makes the table, if it is missing.
func (t *target) makeTable() error {
	found, err := t.read(persistenceSQL)
	if err != nil || len(found) > 0 {
		return errors.Join(err, permanent(found))
	}
	if err := t.begin(readWrite); err != nil {
		return err
	}
	if err = t.makeInside(); err == nil {
		err = t.exec("COMMIT")
	}
	if err == nil {
		return nil
	}
	// Of two sessions that make it at once, the second one finds it done.
	if pgfault.Code(err, "42P07", "23505") {
		err = nil
	}
	return errors.Join(err, t.rollback())
}

// makeInside makes the table, if it is missing, in the transaction that has begun. A
// CREATE TABLE alone might make a temporary one ahead of the table that is there.
func (t *target) makeInside() error {
	found, err := t.column(persistenceSQL)
	if err == nil && len(found) == 0 {
		if err = t.exec(tableSQL); err == nil {
			found, err = t.column(persistenceSQL)
		}
	}
	return errors.Join(err, permanent(found))
}

// persistenceSQL asks how long the rows of the table live; it has no answer if there
// is no table.
const persistenceSQL = "SELECT relpersistence FROM pg_class WHERE oid = to_regclass('reading_analytics')"

// temporary is the relpersistence of a temporary table.
const temporary = "t"

// permanent refuses a temporary table, which a search_path that names pg_temp leads
// to: it would lose every row with the session.
func permanent(found []string) error {
	if len(found) == 1 && found[0] == temporary {
		return sysexits.New(sysexits.Config, "database_refused", errors.New("reading_analytics would be a temporary table, whose rows are deleted at the end of the session")).
			WithHint("set the search_path of the role to a schema that it may write to: ALTER ROLE ... SET search_path")
	}
	return nil
}

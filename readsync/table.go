package main

import (
	"errors"

	"observability-hub/lib/sysexits"
	"observability-hub/readsync/internal/pgfault"
)

// tableSQL creates the table with the columns that existing hubs have.
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

// prepare creates the table if it is missing, and checks early that rows can be inserted
// and that a temporary table can be created. In a dry run it does nothing.
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
	// A COPY into a table without a unique index would duplicate rows. PostgreSQL
	// rejects this statement if there is no such index.
	err := t.exec("EXPLAIN INSERT INTO reading_analytics (mongo_id) VALUES ('') ON CONFLICT (mongo_id) DO NOTHING")
	if err == nil {
		err = t.exec(stagingSQL)
	}
	return errors.Join(err, t.rollback())
}

// makeTable creates the table if it is missing.
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
	// Another session may have created the table at the same time.
	if pgfault.Code(err, "42P07", "23505") {
		err = nil
	}
	return errors.Join(err, t.rollback())
}

// makeInside creates the table if it is missing, in the current transaction. It first
// looks for the table in the whole search_path, because CREATE TABLE alone might create
// a temporary table that hides an existing one.
func (t *target) makeInside() error {
	found, err := t.column(persistenceSQL)
	if err == nil && len(found) == 0 {
		if err = t.exec(tableSQL); err == nil {
			found, err = t.column(persistenceSQL)
		}
	}
	return errors.Join(err, permanent(found))
}

// persistenceSQL returns the persistence of the table (permanent, unlogged or
// temporary), and no row if the table does not exist.
const persistenceSQL = "SELECT relpersistence FROM pg_class WHERE oid = to_regclass('reading_analytics')"

// temporary is the relpersistence of a temporary table.
const temporary = "t"

// permanent returns an error if the table is temporary, because its rows would be
// deleted at the end of the session. A search_path with pg_temp causes this.
func permanent(found []string) error {
	if len(found) == 1 && found[0] == temporary {
		return sysexits.New(sysexits.Config, "database_refused", errors.New("reading_analytics would be a temporary table, whose rows are deleted at the end of the session")).
			WithHint("set the search_path of the role to a schema that it may write to: ALTER ROLE ... SET search_path")
	}
	return nil
}

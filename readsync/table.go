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

// makeTable makes the table, if it is missing. A temporary one, which a search_path
// that names pg_temp leads to, would lose every row with the session.
func (t *target) makeTable() error {
	const persistence = "SELECT relpersistence FROM pg_class WHERE oid = to_regclass('reading_analytics')"
	found, err := t.read(persistence)
	if err != nil {
		return err
	}
	if len(found) == 0 {
		if err := t.begin(readWrite); err != nil {
			return err
		}
		err := t.exec(tableSQL)
		if err == nil {
			found, err = t.column(persistence)
		}
		if err == nil && len(found) == 1 && found[0] != temporary {
			err = t.exec("COMMIT")
		}
		// Of two sessions that make it at once, the second one finds it done.
		if err != nil && !pgfault.Code(err, "42P07", "23505") {
			return errors.Join(err, t.rollback())
		}
		if err != nil || found[0] == temporary {
			if err := t.rollback(); err != nil {
				return err
			}
		}
	}
	if len(found) == 1 && found[0] == temporary {
		return sysexits.New(sysexits.Config, "database_refused", errors.New("reading_analytics would be a temporary table, whose rows end with the session")).
			WithHint("name a schema that the role may write to in its search_path: ALTER ROLE ... SET search_path")
	}
	return nil
}

// temporary is the relpersistence of a temporary table.
const temporary = "t"

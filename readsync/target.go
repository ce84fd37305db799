package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/lib/pq"

	"observability-hub/readsync/internal/copytext"
	"observability-hub/readsync/internal/extjson"
	"observability-hub/readsync/internal/pgfault"
	"observability-hub/readsync/internal/reading"
)

// stagingSQL makes the table that a batch is copied into. A temporary table writes
// no log. It ends with its transaction, because a pooler may give the next
// transaction another session of the server.
const stagingSQL = `CREATE TEMPORARY TABLE readsync_staging (
	n int, mongo_id text, event_timestamp timestamptz, source text, event_type text, payload jsonb, meta jsonb
) ON COMMIT DROP`

// insertSQL inserts what is not there, and returns the numbers of the others.
const insertSQL = `WITH new AS (
	INSERT INTO reading_analytics (mongo_id, event_timestamp, source, event_type, payload, meta)
	SELECT mongo_id, event_timestamp, source, event_type, payload, meta FROM readsync_staging ORDER BY n
	ON CONFLICT (mongo_id) DO NOTHING RETURNING mongo_id)
SELECT s.n FROM readsync_staging s WHERE NOT EXISTS (SELECT FROM new WHERE new.mongo_id = s.mongo_id)`

// writeMode is how rows are written.
type writeMode struct {
	dryRun  bool // what would be done is tried, and rolled back
	replace bool // rows are replaced by documents that differ from them
}

// target is the table that rows are written to.
type target struct {
	database
	timeout time.Duration // of one statement
	mode    writeMode
	direct  bool   // the rows of the last batch were all new
	never   bool   // the table does not take a COPY, or a trigger takes some rows
	taken   bool   // a row that is neither new nor there was taken by a trigger
	buf     []byte // of a COPY
}

// openTarget connects to the database and prepares the session. There is no
// time limit for all of it, but one for each statement.
func openTarget(ctx context.Context, f peerFlags, mode writeMode) (*target, error) {
	d, err := f.peers.database(ctx, f.Timeout)
	if err != nil {
		return nil, err
	}
	t := &target{database: d, timeout: f.Timeout, mode: mode, direct: !mode.dryRun}
	if err := t.prepare(); err != nil {
		return nil, errors.Join(databaseError(fmt.Errorf("prepare the session: %w", err)), d.close())
	}
	return t, nil
}

// Modes of a transaction.
const (
	readWrite = "READ WRITE"
	readOnly  = "READ ONLY"
)

// begin starts a transaction with the settings that readsync needs. They end with
// the transaction: a pooler may give the next one another session of the server.
func (t *target) begin(mode string, settings ...string) error {
	ms := t.timeout.Milliseconds()
	sql := fmt.Sprintf("BEGIN ISOLATION LEVEL READ COMMITTED %s; SET LOCAL statement_timeout = %d; SET LOCAL lock_timeout = %d; SET LOCAL idle_in_transaction_session_timeout = %d",
		mode, ms, ms, ms)
	if mode == readWrite {
		// A commit that a crash may undo must not be acknowledged to MongoDB.
		sql += "; SELECT set_config('synchronous_commit', 'on', true) WHERE current_setting('synchronous_commit') = 'off'"
	}
	for _, setting := range settings {
		sql += "; SET LOCAL " + setting
	}
	err := t.exec(sql)
	if err != nil {
		err = errors.Join(err, t.rollback())
	}
	return err
}

// read runs one query in a transaction that changes nothing.
func (t *target) read(sql string, settings ...string) ([]string, error) {
	if err := t.begin(readOnly, settings...); err != nil {
		return nil, err
	}
	column, err := t.column(sql)
	return column, errors.Join(err, t.rollback())
}

// errGone ends a batch of which a row is neither new nor there: it was deleted
// meanwhile, or a trigger has taken it.
var errGone = errors.New("a row was deleted while it was compared")

// errTaken is a COPY of which a trigger has taken rows.
var errTaken = errors.New("a trigger discarded rows")

// errTwice ends a batch in which one id is twice: whoever came second would count as
// inserted.
var errTwice = errors.New("the batch contains an id twice")

// patience is how often a row may be gone before a trigger is blamed.
const patience = 3

// write puts those rows into the table that are not refused, and sets the outcome of
// each. What the database refuses is refused in its row, and the others are still
// written. Nothing is decided before its COMMIT.
func (t *target) write(rows []*row) error {
	if err := t.readMoments(rows); err != nil {
		return databaseError(fmt.Errorf("read timestamps: %w", err))
	}
	return t.put(accepted(rows))
}

// accepted returns the rows that the database is to decide about.
func accepted(rows []*row) []*row {
	var good []*row
	for _, r := range rows {
		if r.refused == nil {
			good = append(good, r)
		}
	}
	return good
}

func (t *target) put(rows []*row) error {
	for attempt := 1; len(rows) > 0; {
		t.taken = attempt > patience
		n, err := t.try(rows)
		if err == nil {
			return nil
		}
		if (errors.Is(err, errGone) || pgfault.Code(err, "40001", "40P01")) && attempt < 10 && !t.broken() {
			attempt++ // another session was in the way
			continue
		}
		if errors.Is(err, errTwice) {
			n = distinct(rows)
			if err := t.put(rows[:n]); err != nil {
				return err
			}
			rows = rows[n:]
			continue
		}
		if !pgfault.Content(err, reading.ColumnNames[:]) && !t.takesRows(err) {
			return databaseError(fmt.Errorf("write rows: %w", err))
		}
		switch {
		case len(rows) == 1:
			refuse(rows[0], err)
			return nil
		case n >= 0: // COPY has named the line
			if err := t.put(rows[:n]); err != nil {
				return err
			}
			if err := t.put(rows[n : n+1]); err != nil {
				return err
			}
			rows = rows[n+1:]
		default:
			half := len(rows) / 2
			if err := t.put(rows[:half]); err != nil {
				return err
			}
			rows = rows[half:]
		}
	}
	return nil
}

// control is a row that every table takes.
var control = row{id: "readsync"}

// takesRows reports whether an error that says nothing about it is about the rows that
// were written. It is, if the table takes another row.
func (t *target) takesRows(err error) bool {
	if t.broken() || !pgfault.Doubtful(err, reading.ColumnNames[:]) || t.begin(readWrite) != nil {
		return false
	}
	one := control
	_, err = t.insert([]*row{&one})
	if t.rollback() != nil {
		return false
	}
	return err == nil || pgfault.Content(err, reading.ColumnNames[:])
}

func refuse(r *row, err error) {
	r.refused = &extjson.Refusal{Reason: "refused", Detail: err.Error()}
	r.outcome = rejected
}

// try writes rows in one transaction. With an error it returns the index of the row
// that COPY names, or -1.
//
// As long as all rows are new, which is what a daily run meets, they are copied
// straight into the table: that is half the work for the server. The first one
// that is there makes the way through the staging table necessary, which can
// compare.
func (t *target) try(rows []*row) (at int, err error) {
	if t.direct {
		at, err = t.transaction(rows, t.copyDirect)
		// It may be that the table does not take a COPY at all: it is a view, or has
		// row-level security, or a trigger.
		t.never = t.never || errors.Is(err, errTaken) || pgfault.Doubtful(err, reading.ColumnNames[:]) && at < 0 && !pgfault.Content(err, reading.ColumnNames[:])
		if !t.never && !pgfault.Code(err, "23505") || t.broken() {
			return at, err
		}
		t.direct = false
	}
	return t.transaction(rows, t.insert)
}

// transaction commits what write does with rows, and then sets their outcomes.
func (t *target) transaction(rows []*row, write func([]*row) ([]outcome, error)) (at int, err error) {
	if err := t.begin(readWrite); err != nil {
		return -1, err
	}
	outcomes, err := write(rows)
	if err != nil {
		return failedRow(err, len(rows)), errors.Join(err, t.rollback())
	}
	end := "COMMIT"
	if t.mode.dryRun {
		end = "ROLLBACK"
	}
	if err := t.exec(end); err != nil {
		return -1, errors.Join(err, t.rollback())
	}
	for i, r := range rows {
		if r.outcome = outcomes[i]; r.outcome == rejected {
			r.refused = &extjson.Refusal{Reason: "refused", Detail: "a trigger of the table discards the row, or row-level security hides the existing row"}
		}
	}
	return 0, nil
}

// copyDirect copies rows that are all new.
func (t *target) copyDirect(rows []*row) ([]outcome, error) {
	return slices.Repeat([]outcome{inserted}, len(rows)), t.copy(directSQL, rows)
}

// insert copies rows to the staging table, inserts those that are new, and
// compares the others.
func (t *target) insert(rows []*row) ([]outcome, error) {
	if distinct(rows) < len(rows) {
		return nil, errTwice
	}
	if t.mode.dryRun {
		if err := t.makeInside(); err != nil {
			return nil, err
		}
	}
	if err := t.exec(stagingSQL); err != nil {
		return nil, err
	}
	if err := t.copy(copySQL, rows); err != nil {
		return nil, err
	}
	skipped, err := t.column(insertSQL)
	if err != nil {
		return nil, err
	}
	t.direct = len(skipped) == 0 && !t.never && !t.mode.dryRun
	return t.compare(rows, skipped)
}

// failedRow finds the row that a failed COPY names; -1, if it names none.
func failedRow(err error, rows int) int {
	pe, ok := errors.AsType[*pq.Error](err)
	if !ok {
		return -1
	}
	return copytext.FailedLine(pe.Where, rows, "readsync_staging", "reading_analytics")
}

// rollback ends a transaction that failed; a connection that is gone has none.
func (t *target) rollback() error {
	if t.broken() {
		return nil
	}
	return t.exec("ROLLBACK")
}

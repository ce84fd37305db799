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

// stagingSQL creates the table that a batch is copied into. It is temporary, because
// temporary tables write no WAL. It is dropped at the end of the transaction, because a
// pooler may give the next transaction another session of the server.
const stagingSQL = `CREATE TEMPORARY TABLE readsync_staging (
	n int, mongo_id text, event_timestamp timestamptz, source text, event_type text, payload jsonb, meta jsonb
) ON COMMIT DROP`

// insertSQL inserts the rows whose ids the table does not have, and returns the numbers
// of the others.
const insertSQL = `WITH new AS (
	INSERT INTO reading_analytics (mongo_id, event_timestamp, source, event_type, payload, meta)
	SELECT mongo_id, event_timestamp, source, event_type, payload, meta FROM readsync_staging ORDER BY n
	ON CONFLICT (mongo_id) DO NOTHING RETURNING mongo_id)
SELECT s.n FROM readsync_staging s WHERE NOT EXISTS (SELECT FROM new WHERE new.mongo_id = s.mongo_id)`

// writeMode says how rows are written.
type writeMode struct {
	dryRun  bool // write rows, but roll back
	replace bool // replace rows that differ from their documents
}

// target is the table that rows are written to.
type target struct {
	database
	timeout   time.Duration // of one statement
	mode      writeMode
	direct    bool   // the next batch is copied straight into the table
	never     bool   // direct must stay false: the table accepts no COPY, or a trigger discards rows
	discarded bool   // assume that a trigger discarded a row that was not inserted and does not exist
	buf       []byte // buffer of a COPY
}

// openTarget connects to the database and prepares the session. The timeout limits each
// statement, not the session.
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

// begin starts a transaction with the settings that readsync needs. The settings are
// local to the transaction, because a pooler may give the next transaction another
// session of the server.
func (t *target) begin(mode string, settings ...string) error {
	ms := t.timeout.Milliseconds()
	sql := fmt.Sprintf("BEGIN ISOLATION LEVEL READ COMMITTED %s; SET LOCAL statement_timeout = %d; SET LOCAL lock_timeout = %d; SET LOCAL idle_in_transaction_session_timeout = %d",
		mode, ms, ms, ms)
	if mode == readWrite {
		// With synchronous_commit off, a crash may lose a commit whose documents are
		// marked already.
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

// errGone is the error of a batch in which a row was not inserted and does not exist:
// it was deleted in the meantime, or a trigger discarded it.
var errGone = errors.New("a row was deleted while it was compared")

// errDiscarded is the error of a COPY that inserted fewer rows than it was given.
var errDiscarded = errors.New("a trigger discarded rows")

// errDuplicateID is the error of a batch that contains an id twice. Without this check the
// second row would count as inserted.
var errDuplicateID = errors.New("the batch contains an id twice")

// goneAttempts is the number of attempts after which a row that does not exist counts as
// discarded by a trigger.
const goneAttempts = 3

// write writes the rows that are not refused, and sets the outcome of each after its
// COMMIT. If the database refuses a row, write sets the refusal of that row and still
// writes the others.
func (t *target) write(rows []*row) error {
	if err := t.readMoments(rows); err != nil {
		return databaseError(fmt.Errorf("read timestamps: %w", err))
	}
	return t.put(accepted(rows))
}

// accepted returns the rows that are not refused.
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
		t.discarded = attempt > goneAttempts
		n, err := t.try(rows)
		if err == nil {
			return nil
		}
		if (errors.Is(err, errGone) || pgfault.Code(err, "40001", "40P01")) && attempt < 10 && !t.broken() {
			attempt++ // another session interfered
			continue
		}
		if errors.Is(err, errDuplicateID) {
			n = distinct(rows)
			if err := t.put(rows[:n]); err != nil {
				return err
			}
			rows = rows[n:]
			continue
		}
		if !pgfault.Content(err, reading.ColumnNames[:]) && !t.acceptsRows(err) {
			return databaseError(fmt.Errorf("write rows: %w", err))
		}
		switch {
		case len(rows) == 1:
			refuse(rows[0], err)
			return nil
		case n >= 0: // the error names the line of the COPY
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

// control is a row that every usable table accepts.
var control = row{id: "readsync"}

// acceptsRows reports whether the table accepts rows at all, after an error whose class
// does not tell. If the table accepts the row control, the error is about the rows that
// were written.
func (t *target) acceptsRows(err error) bool {
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
// that the error names, or -1.
//
// As long as all rows are new, as in a daily run, try copies them straight into the
// table, which is half the work for the server. As soon as one row exists already, try
// uses the staging table, where rows can be compared.
func (t *target) try(rows []*row) (at int, err error) {
	if t.direct {
		at, err = t.transaction(rows, t.copyDirect)
		// The table may not accept a COPY at all, for example because it is a view, or
		// has row-level security or a trigger.
		t.never = t.never || errors.Is(err, errDiscarded) || pgfault.Doubtful(err, reading.ColumnNames[:]) && at < 0 && !pgfault.Content(err, reading.ColumnNames[:])
		if !t.never && !pgfault.Code(err, "23505") || t.broken() {
			return at, err
		}
		t.direct = false
	}
	return t.transaction(rows, t.insert)
}

// transaction calls write in a transaction, commits, and then sets the outcomes of the
// rows. In a dry run it rolls back instead.
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

// copyDirect copies rows straight into the table. All of them must be new.
func (t *target) copyDirect(rows []*row) ([]outcome, error) {
	return slices.Repeat([]outcome{inserted}, len(rows)), t.copy(directSQL, rows)
}

// insert copies rows to the staging table, inserts those that are new, and
// compares the others.
func (t *target) insert(rows []*row) ([]outcome, error) {
	if distinct(rows) < len(rows) {
		return nil, errDuplicateID
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

// failedRow returns the index of the row that the error of a COPY names, or -1.
func failedRow(err error, rows int) int {
	pe, ok := errors.AsType[*pq.Error](err)
	if !ok {
		return -1
	}
	return copytext.FailedLine(pe.Where, rows, "readsync_staging", "reading_analytics")
}

// rollback ends the transaction. If the connection is lost, the server does that.
func (t *target) rollback() error {
	if t.broken() {
		return nil
	}
	return t.exec("ROLLBACK")
}

package main

import (
	"bytes"
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"github.com/lib/pq"
	"go.mongodb.org/mongo-driver/v2/bson"

	"observability-hub/lib/libpq"
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

// stagingSQL makes the session's table that batches are copied into. A
// temporary table writes no log.
const stagingSQL = `CREATE TEMPORARY TABLE readsync_staging (
	n int, mongo_id text, event_timestamp timestamptz, source text, event_type text, payload jsonb, meta jsonb
) ON COMMIT DELETE ROWS`

const copySQL = `COPY readsync_staging FROM STDIN`

// directSQL copies without a detour. It fails as a whole if one of the rows is there.
const directSQL = `COPY reading_analytics (mongo_id, event_timestamp, source, event_type, payload, meta) FROM STDIN`

// insertSQL inserts what is not there, and returns the numbers of the others.
const insertSQL = `WITH new AS (
	INSERT INTO reading_analytics (mongo_id, event_timestamp, source, event_type, payload, meta)
	SELECT mongo_id, event_timestamp, source, event_type, payload, meta FROM readsync_staging ORDER BY n
	ON CONFLICT (mongo_id) DO NOTHING RETURNING mongo_id)
SELECT s.n FROM readsync_staging s WHERE NOT EXISTS (SELECT FROM new WHERE new.mongo_id = s.mongo_id)`

// compareSQL says of the rows with the numbers %s whether the table has them with
// the same content: - (not there any more), t or f. It is a statement of its
// own, since the snapshot of the INSERT does not show what another session
// committed meanwhile. Hubs before this tool stored an empty text for a missing source or
// type, and null for a missing payload.
const compareSQL = `SELECT s.n || CASE WHEN r.mongo_id IS NULL THEN '-' WHEN
	r.event_timestamp IS NOT DISTINCT FROM s.event_timestamp
	AND coalesce(r.source, '') = coalesce(s.source, '') AND coalesce(r.event_type, '') = coalesce(s.event_type, '')
	AND coalesce(r.payload::jsonb, 'null') = coalesce(s.payload, 'null')
	AND coalesce(r.meta::jsonb, 'null') = coalesce(s.meta, 'null') THEN 't' ELSE 'f' END
FROM readsync_staging s LEFT JOIN reading_analytics r ON r.mongo_id = s.mongo_id WHERE s.n IN (%s)`

// target is a session that writes rows.
type target struct {
	*database
	dryRun bool
	direct bool   // the rows of the last batch were all new
	never  bool   // the table does not take a COPY
	buf    []byte // of a COPY
}

// openTarget connects to the database and prepares the session. There is no
// time limit for all of it, but one for each statement.
func openTarget(ctx context.Context, timeout time.Duration, dryRun bool) (*target, error) {
	cfg, ok, err := databaseConfig()
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, libpq.BadConfiguration(errors.New("no database_url: neither the credential nor $DATABASE_URL or libpq's PGHOST, PGDATABASE, … are there"))
	}
	d, err := connect(ctx, cfg, timeout)
	if err != nil {
		return nil, err
	}
	t := &target{database: d, dryRun: dryRun, direct: !dryRun}
	if err := t.prepare(); err != nil {
		return nil, errors.Join(databaseError(fmt.Errorf("prepare the session: %w", err)), d.close())
	}
	return t, nil
}

func (t *target) prepare() error {
	for _, sql := range []string{
		fmt.Sprintf("SET statement_timeout = %d; SET lock_timeout = %d; SET idle_in_transaction_session_timeout = %d",
			t.timeout.Milliseconds(), t.timeout.Milliseconds(), t.timeout.Milliseconds()),
		"SET client_encoding = 'UTF8'; SET DateStyle = 'ISO, YMD'; SET standard_conforming_strings = on",
		// A commit that a crash may undo must not be acknowledged to MongoDB.
		"SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'",
	} {
		if err := t.exec(sql); err != nil {
			return err
		}
	}
	if !t.dryRun {
		if err := t.makeTable(); err != nil {
			return err
		}
	}
	return t.exec(stagingSQL)
}

// errGone ends a batch that found a row and then did not: it was deleted
// meanwhile.
var errGone = errors.New("a row was deleted while it was compared")

// write puts rows into the table and sets the outcome of each. All of them have
// different ids. What the database refuses is refused in its row, and the others
// still go in. Nothing is decided before its COMMIT.
func (t *target) write(rows []*row) error {
	for attempt := 1; len(rows) > 0; {
		n, err := t.try(rows)
		if err == nil {
			return nil
		}
		if (errors.Is(err, errGone) || hasCode(err, "40001", "40P01")) && attempt < 10 && !t.broken() {
			attempt++ // another session was in the way
			continue
		}
		if !refusesContent(err) {
			return databaseError(fmt.Errorf("write rows: %w", err))
		}
		switch {
		case len(rows) == 1:
			refuse(rows[0], err)
			return nil
		case n >= 0: // COPY has named the line
			if err := t.write(rows[:n]); err != nil {
				return err
			}
			if err := t.write(rows[n : n+1]); err != nil {
				return err
			}
			rows = rows[n+1:]
		default:
			half := len(rows) / 2
			if err := t.write(rows[:half]); err != nil {
				return err
			}
			rows = rows[half:]
		}
	}
	return nil
}

func refuse(r *row, err error) {
	r.refused = &refusal{reason: "refused", detail: err.Error()}
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
		t.never = t.never || hasCode(err, "0A000") // row-level security
		if !t.never && !hasCode(err, "23505") || t.broken() {
			return at, err
		}
		t.direct = false
	}
	return t.transaction(rows, t.insert)
}

// transaction commits what write does with rows, and then sets their outcomes.
func (t *target) transaction(rows []*row, write func([]*row) ([]outcome, error)) (at int, err error) {
	if err := t.exec("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE"); err != nil {
		return -1, err
	}
	outcomes, err := write(rows)
	if err != nil {
		return copyLine(err, len(rows)), errors.Join(err, t.rollback())
	}
	end := "COMMIT"
	if t.dryRun {
		end = "ROLLBACK"
	}
	if err := t.exec(end); err != nil {
		return -1, errors.Join(err, t.rollback())
	}
	for i, r := range rows {
		r.outcome = outcomes[i]
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
	if err := t.copy(copySQL, rows); err != nil {
		return nil, err
	}
	if t.dryRun {
		if err := t.makeTable(); err != nil {
			return nil, err
		}
	}
	skipped, err := t.column(insertSQL)
	if err != nil {
		return nil, err
	}
	t.direct = len(skipped) == 0 && !t.never && !t.dryRun
	return t.compare(rows, skipped)
}

// makeTable makes the table, if it is missing.
func (t *target) makeTable() error {
	there, err := t.column("SELECT to_regclass('reading_analytics')")
	if err != nil || len(there) == 1 && there[0] != "" {
		return err
	}
	// Where two sessions make it at once, whoever comes second finds it done.
	if err := t.exec(tableSQL); err != nil && !hasCode(err, "42P07", "23505") {
		return err
	}
	return nil
}

// rollback ends a transaction that failed; a connection that is gone has none.
func (t *target) rollback() error {
	if t.broken() {
		return nil
	}
	return t.exec("ROLLBACK")
}

// copy sends rows to the table of a COPY statement. Those of the staging table are
// numbered.
func (t *target) copy(sql string, rows []*row) error {
	stmt, err := t.conn.Prepare(sql)
	if err != nil {
		return err
	}
	lines, ok := stmt.(interface {
		CopyData(context.Context, string) (driver.Result, error)
	})
	if !ok {
		return errors.New("the PostgreSQL driver cannot copy lines")
	}
	send := func() error {
		if len(t.buf) == 0 {
			return nil
		}
		// The driver copies the text before it returns, and adds a line break.
		_, err := lines.CopyData(context.Background(), unsafe.String(&t.buf[0], len(t.buf)-1))
		if t.buf = t.buf[:0]; cap(t.buf) > 4*copyBytes {
			t.buf = nil
		}
		return err
	}
	for i, r := range rows {
		size := copySize(r)
		if len(t.buf)+size > copyBytes {
			if err = send(); err != nil {
				break // Exec says what the server said
			}
		}
		t.buf = slices.Grow(t.buf, size)
		if sql == copySQL {
			t.buf = append(strconv.AppendInt(t.buf, int64(i), 10), '\t')
		}
		t.buf = appendCopyLine(t.buf, r)
	}
	if err == nil {
		err = send()
	}
	t.buf = t.buf[:0]
	//lint:ignore SA1019 a COPY of this driver has no other end
	_, end := stmt.Exec(nil)
	// Where the server's error was there already, Exec did not wait for the end of
	// its answer: the connection would still be in the middle of it.
	if closed := stmt.Close(); end == nil {
		end = closed
	}
	if end != nil {
		return end
	}
	return err
}

// copyBytes is how much is given to the driver at a time, if a row is not longer.
const copyBytes = 56 << 10

// copySize is how long a row's line is at most, if its texts have no tabs and
// line breaks.
func copySize(r *row) int {
	n := 64 + 2*len(r.id)
	for _, c := range r.columns {
		n += len(c) + bytes.Count(c, []byte{'\\'})
	}
	return n
}

// appendCopyLine appends a row in the text format of COPY.
func appendCopyLine(b []byte, r *row) []byte {
	b = appendCopyText(b, []byte(r.id))
	for i, c := range r.columns {
		b = append(b, '\t')
		switch {
		case c == nil:
			b = append(b, `\N`...)
		case i == atPayload || i == atMeta:
			b = appendCopyJSON(b, c)
		default:
			b = appendCopyText(b, c)
		}
	}
	return append(b, '\n')
}

// appendCopyJSON appends JSON, in whose strings nothing but the backslash means
// something to COPY; between them, a record may have a tab.
func appendCopyJSON(b, text []byte) []byte {
	for {
		i := bytes.IndexByte(text, '\\')
		if i < 0 {
			return append(b, text...)
		}
		b = append(append(b, text[:i]...), '\\', '\\')
		text = text[i+1:]
	}
}

func appendCopyText(b, text []byte) []byte {
	for {
		i := bytes.IndexAny(text, "\\\t\n\r")
		if i < 0 {
			return append(b, text...)
		}
		b = append(b, text[:i]...)
		switch text[i] {
		case '\t':
			b = append(b, '\\', 't')
		case '\n':
			b = append(b, '\\', 'n')
		case '\r':
			b = append(b, '\\', 'r')
		default:
			b = append(b, '\\', '\\')
		}
		text = text[i+1:]
	}
}

// copyLine finds the row that a failed COPY names: "COPY readsync_staging, line 7, column payload". It
// is -1 if it names none.
func copyLine(err error, rows int) int {
	pe, ok := errors.AsType[*pq.Error](err)
	if !ok {
		return -1
	}
	_, rest, ok := strings.Cut(pe.Where, "COPY readsync_staging, line ")
	if !ok {
		_, rest, ok = strings.Cut(pe.Where, "COPY reading_analytics, line ")
	}
	if !ok {
		return -1
	}
	end := 0
	for end < len(rest) && rest[end] >= '0' && rest[end] <= '9' {
		end++
	}
	n, err := strconv.Atoi(rest[:end])
	if err != nil || n < 1 || n > rows {
		return -1
	}
	return n - 1
}

// compare returns the outcome of each row, given the numbers of those that
// were not inserted.
func (t *target) compare(rows []*row, skipped []string) ([]outcome, error) {
	outcomes := slices.Repeat([]outcome{inserted}, len(rows))
	if len(skipped) == 0 {
		return outcomes, nil
	}
	differ, err := t.differing(skipped, outcomes)
	if err != nil || len(differ) == 0 {
		return outcomes, err
	}
	// They may be there as hubs before this tool wrote them.
	var old []*row
	var numbers []string
	for _, i := range differ {
		r := legacyRow(rows[i])
		if r == nil {
			r = rows[i]
		}
		numbers = append(numbers, strconv.Itoa(len(old)))
		old = append(old, r)
	}
	if err := t.exec("DELETE FROM readsync_staging"); err != nil {
		return nil, err
	}
	if err := t.copy(copySQL, old); err != nil {
		return nil, err
	}
	again := make([]outcome, len(old))
	if _, err := t.differing(numbers, again); err != nil {
		return nil, err
	}
	for at, i := range differ {
		outcomes[i] = again[at]
	}
	return outcomes, nil
}

// differing compares rows with the table, sets the outcome of each, and
// returns the differing ones.
func (t *target) differing(numbers []string, outcomes []outcome) (differ []int, err error) {
	verdicts, err := t.column(fmt.Sprintf(compareSQL, strings.Join(numbers, ",")))
	if err != nil {
		return nil, err
	}
	if len(verdicts) != len(numbers) {
		return nil, fmt.Errorf("compare rows: %d of %d are in the staging table", len(verdicts), len(numbers))
	}
	for _, v := range verdicts {
		n, err := strconv.Atoi(v[:len(v)-1])
		if err != nil || n >= len(outcomes) {
			return nil, fmt.Errorf("compare rows: %q", v)
		}
		switch v[len(v)-1] {
		case 't':
			outcomes[n] = identical
		case 'f':
			outcomes[n] = differing
			differ = append(differ, n)
		default:
			return nil, errGone
		}
	}
	slices.Sort(differ)
	return differ, nil
}

// legacyRow returns the row that a hub before this tool made of a document, if
// that is known.
func legacyRow(r *row) *row {
	if r.doc == nil {
		return nil
	}
	old := *r
	c := converter{dialect: legacy}
	for _, i := range []int{atPayload, atMeta} {
		v := r.fields[i]
		if v.isNull() {
			continue
		}
		text, err := c.append(nil, v)
		if err != nil {
			text = nil // it stored NULL for what it could not marshal
		}
		if text != nil && checkJSON(text, nulReject) != nil {
			return nil
		}
		old.columns[i] = text
	}
	for _, i := range []int{atSource, atEventType} {
		if r.fields[i].kind != bson.TypeString {
			old.columns[i] = nil // it took nothing but strings
		}
	}
	return &old
}

// refusesContent tells an error that the content of a row causes from one of
// the database's state: data exceptions, violated constraints, exceeded limits.
func refusesContent(err error) bool {
	pe, ok := errors.AsType[*pq.Error](err)
	if !ok {
		return false
	}
	switch class(pe) {
	case "22", "23", "54", "P0":
		return true
	}
	return false
}

func hasCode(err error, codes ...string) bool {
	pe, ok := errors.AsType[*pq.Error](err)
	return ok && slices.Contains(codes, string(pe.Code))
}

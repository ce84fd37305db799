package main

import (
	"bytes"
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
	"time"

	"github.com/lib/pq"
	"github.com/lib/pq/pqerror"
)

// insert puts entries into the table and returns how many were not there yet.
// What the database refuses for its content goes to reject, one by one; the
// rest still goes in.
func (d *database) insert(batch []entry, reject func(entry, error) error) (inserted int64, err error) {
	n, err := int64(0), errNUL
	if !slices.ContainsFunc(batch, entry.hasNUL) {
		n, err = d.exec(insertSQL(batch))
	}
	var unmade error // why a partition could not be made
	if pe, ok := errors.AsType[*pq.Error](err); ok {
		again := true
		switch {
		case pe.Code == "42P01": // undefined_table
			err = d.makeTable()
		case noPartition(err):
			unmade, err = d.makePartitions(partitionSQL(batch, time.Now()))
		default:
			again = false
		}
		if again && err == nil {
			n, err = d.exec(insertSQL(batch))
		}
	}
	if err == nil {
		return n, nil
	}
	if !refusesContent(err) {
		return 0, databaseError(err)
	}
	if len(batch) == 1 {
		if noPartition(err) {
			err = explain(batch[0], err, unmade)
		}
		return 0, reject(batch[0], err)
	}
	half := len(batch) / 2
	for _, part := range [][]entry{batch[:half], batch[half:]} {
		n, err := d.insert(part, reject)
		inserted += n
		if err != nil {
			return inserted, err
		}
	}
	return inserted, nil
}

// errNUL refuses a record ahead of the server: a NUL byte ends the statement
// there, and its answer, a protocol error, is also what a pooler says of a
// passing trouble. No JSON holds one; a spool on a disk that lost power may.
var errNUL = errors.New("a NUL byte in the record")

func (e entry) hasNUL() bool { return bytes.IndexByte(e.line, 0) >= 0 }

// makeTable makes the table if there is none.
func (d *database) makeTable() error {
	_, err := d.exec(tableSQL)
	if isThere(err) {
		return nil
	}
	return err
}

// makePartitions makes partitions, each on its own. That one cannot be made
// beside what is there is no error, but the reason that it returns, should a
// row still find none.
func (d *database) makePartitions(statements []string) (reason, err error) {
	for _, sql := range statements {
		switch _, err := d.exec(sql); {
		case err == nil:
		case isThere(err) || hasCode(err, "42P16", "42P17"): // another kind of partitions, an overlap with one
			reason = err
		default:
			return nil, err
		}
	}
	return reason, nil
}

// isThere reports whether something exists already. Where two hosts make it at
// once, whoever comes second finds it done.
func isThere(err error) bool { return hasCode(err, "42P07", "23505") } // duplicate_table, unique_violation

func hasCode(err error, codes ...pqerror.Code) bool {
	pe, ok := errors.AsType[*pq.Error](err)
	return ok && slices.Contains(codes, pe.Code)
}

// explain says why a record has found no partition.
func explain(e entry, err, unmade error) error {
	switch {
	case !partitionable(partitionDay(e), time.Now()):
		return fmt.Errorf("its time is more than %.0f days ago or %.0f ahead, for which no partition is made: is the clock of its host right? %w",
			partitionPast.Hours()/24, partitionFuture.Hours()/24, err)
	case unmade != nil:
		return fmt.Errorf("no partition takes its time, and one could not be made: %w (%w)", unmade, err)
	}
	return fmt.Errorf("no partition takes it, although there is one for its day: %w", err)
}

// noPartition reports whether a row has found none: a check_violation of no
// constraint that has a name.
func noPartition(err error) bool {
	pe, ok := errors.AsType[*pq.Error](err)
	return ok && pe.Code == "23514" && pe.Constraint == ""
}

// refusesContent tells an error that the content of a record causes from one
// of the database's state, which passes: data exceptions, violated
// constraints, exceeded limits (PostgreSQL, appendix A).
func refusesContent(err error) bool {
	if err == errNUL {
		return true
	}
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

// insertSQL returns one message for the database that inserts the records
// which are not there yet.
//
// A record is there if a row has its time, host and metric type; where the
// column holds whole seconds only, as in tables of older hubs, the payload must
// be the same too, as two samples may share a second. The rows are cast to the
// table's own types first, so that a time is compared as it would be stored: of
// each record the five fields, as a further column may be called like another.
//
// The table need not have a unique index, so the check must not race with
// another session: above all not with the one of a killed run, whose statement
// the server may yet execute. The advisory lock of each host makes them take
// turns, and the INSERT, a statement of its own, sees what the turn before
// committed. The bounds on time let partitions, chunks and indexes be skipped.
func insertSQL(batch []entry) string {
	var b strings.Builder
	records := make([]string, len(batch))
	var locks []string
	from, to := batch[0].time, batch[0].time
	for i, e := range batch {
		records[i] = string(e.line)
		from, to = minTime(from, e.time), maxTime(to, e.time)
		locks = append(locks, fmt.Sprintf("pg_advisory_xact_lock(%d)", lockKey(e.host)))
	}
	// In one order everywhere, so that two sessions cannot wait for each other.
	slices.Sort(locks)
	locks = slices.Compact(locks)
	// Where a database's default is repeatable read, the snapshot would be older than the lock.
	fmt.Fprintf(&b, "SET TRANSACTION ISOLATION LEVEL READ COMMITTED;\nSELECT %s;\n", strings.Join(locks, ", "))
	b.WriteString("INSERT INTO system_metrics (time, host, os, metric_type, payload)\n" +
		"SELECT DISTINCT r.time, r.host, coalesce(r.os, ''), r.metric_type, r.payload\n" +
		"FROM json_to_recordset(")
	b.WriteString(pq.QuoteLiteral("[" + strings.Join(records, ",") + "]"))
	fmt.Fprintf(&b, ") AS e(time json, host json, os json, metric_type json, payload json),\n"+
		"json_populate_record(NULL::system_metrics, row_to_json(e)) r\n"+
		"WHERE NOT EXISTS (SELECT FROM system_metrics m\n"+
		"WHERE m.time = r.time AND m.host = r.host AND m.metric_type = r.metric_type\n"+
		"AND (m.payload = r.payload OR r.time <> date_trunc('second', r.time))\n"+
		"AND m.time BETWEEN %s AND %s)\n"+
		"ORDER BY 1\nON CONFLICT DO NOTHING",
		timeLiteral(from.Add(-time.Second)), timeLiteral(to.Add(time.Second)))
	return b.String()
}

// lockKey is the advisory lock of a host's rows.
func lockKey(host string) int64 {
	h := fnv.New64a()
	h.Write([]byte("system_metrics\x00" + host))
	return int64(h.Sum64())
}

func timeLiteral(t time.Time) string {
	return "'" + t.UTC().Format("2006-01-02 15:04:05.999999") + "+00'"
}

func minTime(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func maxTime(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// Partitions are made for days in this range around now. A record of another
// time has a wrong clock; a table for its day would stay for ever.
const (
	partitionPast   = 400 * 24 * time.Hour
	partitionFuture = 2 * 24 * time.Hour
)

func partitionDay(e entry) time.Time { return e.time.UTC().Truncate(24 * time.Hour) }

func partitionable(day, now time.Time) bool {
	return !day.Before(now.Add(-partitionPast)) && !day.After(now.Add(partitionFuture))
}

// partitionSQL returns the statements that make the daily partitions (UTC) of
// a batch.
func partitionSQL(batch []entry, now time.Time) (statements []string) {
	for _, e := range batch {
		day := partitionDay(e)
		// Without IF NOT EXISTS: a table of that name that is no partition is to be an error.
		sql := fmt.Sprintf("CREATE TABLE %s PARTITION OF system_metrics FOR VALUES FROM (%s) TO (%s)",
			partitionPrefix+day.Format("20060102"), timeLiteral(day), timeLiteral(day.Add(24*time.Hour)))
		if partitionable(day, now) && !slices.Contains(statements, sql) {
			statements = append(statements, sql)
		}
	}
	return statements
}

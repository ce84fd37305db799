package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/lib/pq"
	"github.com/lib/pq/pqerror"

	"observability-hub/lib/sysexits"
)

// insert inserts entries into the table and returns how many of them were not in
// the table before. It calls reject for each entry that the database refuses
// because of its content, and for each entry that the table discards. It
// inserts all other entries. If sampled is not zero, it is the time at which
// this host took the entries; if the server's clock differs from this host's,
// insert inserts nothing and returns an [errClock].
func (d *database) insert(batch []entry, sampled time.Time, reject func(entry, error) error) (inserted int64, err error) {
	n, err := int64(0), errNUL
	if !slices.ContainsFunc(batch, entry.hasNUL) {
		n, err = d.send(batch, sampled)
	}
	var unmade error // why a partition could not be made
	var now time.Time
	if hasCode(err, "42P01") { // undefined_table
		if err = d.makeTable(err); err == nil {
			n, err = d.send(batch, sampled)
		}
	}
	if noPartition(err) {
		if now, err = d.now(); err == nil {
			unmade, err = d.makePartitions(partitionSQL(batch, now))
		}
		if err == nil {
			n, err = d.send(batch, sampled)
		}
	}
	switch {
	case err == nil && n == int64(len(batch)):
		return n, nil
	case err == nil:
		if n == 0 {
			if err := d.confirm(); err != nil {
				return 0, databaseError(err)
			}
		}
		return n, d.discarded(batch, n, reject)
	}
	if err := guarded(err); err != nil {
		return 0, err
	}
	if !refusesContent(err) {
		refused := databaseError(err)
		if e, ok := errors.AsType[*sysexits.Error](refused); ok && errors.Is(err, os.ErrDeadlineExceeded) {
			e.Hint += "; a large table without an index is slow too: sysmetrics schema | psql adds the index"
		}
		return 0, refused
	}
	if len(batch) == 1 {
		if noPartition(err) {
			err = explain(batch[0], err, unmade, now)
		}
		return 0, reject(batch[0], err)
	}
	half := len(batch) / 2
	for _, part := range [][]entry{batch[:half], batch[half:]} {
		n, err := d.insert(part, sampled, reject)
		inserted += n
		if err != nil {
			return inserted, err
		}
	}
	return inserted, nil
}

// confirm returns after the synchronous standbys have all that is committed.
//
// A crashed primary shows the rows that it had committed locally after its
// restart, although no standby may have them yet. A transaction that finds these
// rows writes nothing, so its COMMIT waits for no standby. A message in the WAL
// makes it wait.
func (d *database) confirm() error {
	_, err := d.exec("SELECT CASE WHEN current_setting('synchronous_standby_names') <> '' THEN pg_logical_emit_message(true, 'sysmetrics', '') END")
	return err
}

// discarded calls reject for the entries that the server accepted but that are
// not in the table, because a trigger or a rule discarded them. If the table
// changes the keys of its rows, these entries cannot be found, and discarded
// does nothing.
func (d *database) discarded(batch []entry, inserted int64, reject func(entry, error) error) error {
	missing, err := d.column(missingSQL(batch))
	if err != nil {
		return databaseError(err)
	}
	if int64(len(batch)-len(missing)) < inserted {
		return nil
	}
	for _, text := range missing {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > len(batch) {
			return fmt.Errorf("look for discarded rows: the server returned row number %q of %d", text, len(batch))
		}
		if err := reject(batch[n-1], errDiscarded); err != nil {
			return err
		}
	}
	return nil
}

var errDiscarded = errors.New("a trigger or a rule of system_metrics discards the row")

// clockSlack is the largest accepted difference between this host's clock and
// the server's. Beyond it prune deletes nothing, and records are marked.
const clockSlack = 5 * time.Minute

// errClock says that the two clocks differ. ahead is negative if this host's
// clock is behind the server's.
type errClock struct{ ahead time.Duration }

func (e errClock) Error() string {
	direction := "ahead of"
	if e.ahead < 0 {
		direction = "behind"
	}
	return fmt.Sprintf("the clock of this host is %v %s the database server's", e.ahead.Abs().Round(time.Second), direction)
}

// now returns the server's time.
func (d *database) now() (time.Time, error) {
	text, err := d.column("SELECT extract(epoch FROM now())::text")
	if err != nil {
		return time.Time{}, err
	}
	return parseEpoch(strings.Join(text, ""))
}

func parseEpoch(text string) (time.Time, error) {
	s, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("ask the database for its time: %w", err)
	}
	return time.UnixMilli(int64(s * 1000)), nil
}

// compareClocks returns an errClock if this host's clock and the server's differ.
func compareClocks(here, server time.Time) error {
	if ahead := here.Sub(server); ahead.Abs() > clockSlack {
		return errClock{ahead}
	}
	return nil
}

// send sends the message that inserts a batch. PostgreSQL searches pg_temp first
// unless the search_path names it, and rows of a temporary table are lost when the
// session ends. If there is a temporary table of that name, the message is sent
// again with a search_path that ends in pg_temp.
func (d *database) send(batch []entry, sampled time.Time) (int64, error) {
	n, err := d.exec(insertSQL(batch, sampled, d.shadowed))
	if !d.shadowed && stoppedBy(err, guardTemporary) {
		d.shadowed = true
		return d.exec(insertSQL(batch, sampled, true))
	}
	return n, err
}

// The guards of an insert stop it with a cast that fails. The server's error
// message quotes the text that could not be cast, in every language.
const (
	guardTemporary = "sysmetrics-temporary "
	guardClock     = "sysmetrics-clock "
)

// guardSQL returns an expression that precedes an insert. It makes the insert fail
// if there is a temporary table system_metrics and, if sampled is not zero, if the
// server's clock differs from this host's. If shadowed, the search_path ends in
// pg_temp, and only a temporary table without a real one makes the insert fail.
//
// A session looks up each function, operator and type once in the catalogs. Most
// sessions insert only once, so a guard with fewer of them is a cheaper guard.
func guardSQL(sampled time.Time, shadowed bool) string {
	temporary := "to_regclass('pg_temp.system_metrics') IS NOT NULL"
	if shadowed {
		temporary = "(SELECT relpersistence FROM pg_class WHERE oid = to_regclass('system_metrics')) = 't'"
	}
	sql := "CASE WHEN " + temporary + " THEN ('" + guardTemporary + "' || extract(epoch FROM now()))::int"
	if !sampled.IsZero() {
		sql += fmt.Sprintf("\nWHEN now() NOT BETWEEN %s AND %s THEN ('%s' || extract(epoch FROM now()))::int",
			timeLiteral(sampled.Add(-clockSlack)), timeLiteral(sampled.Add(clockSlack)), guardClock)
	}
	return sql + " END"
}

// shadowedSQL sets a search_path that ends in pg_temp, until the end of the
// transaction.
const shadowedSQL = "SELECT set_config('search_path', concat_ws(', ', (SELECT string_agg(quote_ident(s), ', ')" +
	" FROM unnest(current_schemas(false)) s WHERE s !~ '^pg_temp'), 'pg_temp'), true);\n"

// stoppedBy reports whether err is from the guard whose text begins with mark.
func stoppedBy(err error, mark string) bool {
	pe, ok := errors.AsType[*pq.Error](err)
	return ok && pe.Code == "22P02" && strings.Contains(pe.Message, mark)
}

// guarded returns the error for the guard that stopped an insert, or nil if err
// is not from a guard.
func guarded(err error) error {
	if stoppedBy(err, guardTemporary) {
		return sysexits.New(sysexits.Config, "database_refused", errors.New("insert into system_metrics: in this session it is a temporary table, and its rows would be lost")).
			WithHint("give the role a search_path with the schema of the real table: ALTER ROLE … SET search_path = …")
	}
	if !stoppedBy(err, guardClock) {
		return nil
	}
	pe, _ := errors.AsType[*pq.Error](err)
	_, text, _ := strings.Cut(pe.Message, guardClock)
	if end := strings.IndexFunc(text, func(r rune) bool { return r != '.' && (r < '0' || r > '9') }); end >= 0 {
		text = text[:end] // the quotation marks depend on the server's language
	}
	server, err := parseEpoch(text)
	if err != nil {
		return err
	}
	return errClock{time.Since(server)}
}

// errNUL rejects a record before it is sent. A NUL byte would end the statement
// on the server, which would answer with a protocol error. That error is not
// proof of a bad record: a pooler returns it for temporary trouble too. JSON
// holds no NUL byte, but a spool may, after the disk has lost power.
var errNUL = errors.New("a NUL byte in the record")

func (e entry) hasNUL() bool { return bytes.IndexByte(e.line, 0) >= 0 }

// makeTable creates the table with schema.sql if it does not exist. cause is the
// error that says that a relation is missing. If the table exists, makeTable
// returns cause, because the missing relation may be one that a trigger of the
// table uses.
func (d *database) makeTable(cause error) error {
	there, err := d.column("SELECT to_regclass('system_metrics')::text")
	if err != nil {
		return err
	}
	if strings.Join(there, "") != "" {
		return cause
	}
	if _, err = d.exec(schemaSQL); isThere(err) {
		return nil
	}
	return err
}

// makePartitions creates partitions, each in its own transaction. If a partition
// conflicts with an existing table, that is not an error: makePartitions returns
// it as reason, for the case that a row still has no partition.
func (d *database) makePartitions(statements []string) (reason, err error) {
	for _, sql := range statements {
		switch _, err := d.exec(sql); {
		case err == nil:
		case isThere(err) || hasCode(err, "42P16", "42P17"): // the table has another kind of partitions, or the ranges overlap
			reason = err
		default:
			return nil, err
		}
	}
	return reason, nil
}

// isThere reports whether something exists already. If two hosts create it at
// the same time, the second one gets this error.
func isThere(err error) bool { return hasCode(err, "42P07", "23505") } // duplicate_table, unique_violation

func hasCode(err error, codes ...pqerror.Code) bool {
	pe, ok := errors.AsType[*pq.Error](err)
	return ok && slices.Contains(codes, pe.Code)
}

// explain returns an error that says why a record has no partition.
func explain(e entry, err, unmade error, now time.Time) error {
	switch {
	case !partitionable(partitionDay(e), now):
		return fmt.Errorf("its time is more than %.0f days ago or more than %.0f days ahead, and no partition is made for such a time; check the clock of its host: %w",
			partitionPast.Hours()/24, partitionFuture.Hours()/24, err)
	case unmade != nil:
		return fmt.Errorf("no partition holds its time, and none could be made: %w (%w)", unmade, err)
	}
	return fmt.Errorf("no partition accepts it, although there is one for its day: %w", err)
}

// noPartition reports whether err says that a row has no partition: it is a
// check_violation that names no constraint.
func noPartition(err error) bool {
	pe, ok := errors.AsType[*pq.Error](err)
	return ok && pe.Code == "23514" && pe.Constraint == ""
}

// refusesContent reports whether the content of a record caused the error: a data
// exception, a violated constraint or an exceeded limit (PostgreSQL, appendix
// A). Other errors come from the state of the database, which can change.
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

// insertSQL returns one message for the database. It inserts the records that
// are not in the table yet.
//
// A record is in the table if a row has its time, host and metric type. If the
// time is a whole second, the payload must be the same too: in the tables of
// older hubs every time is a whole second, and two samples may share it. The
// server casts the records to the types of the table, so that a time is compared
// as it would be stored.
//
// The table need not have a unique index, so the check must not race with
// another session. In particular it must not race with the session of a killed
// run, whose statement the server may still execute. An advisory lock for each
// host makes the sessions take turns. The INSERT is a separate statement after
// the lock, so it sees what the previous session committed. The condition on
// time lets the server skip partitions, chunks and parts of indexes.
func insertSQL(batch []entry, sampled time.Time, shadowed bool) string {
	var b strings.Builder
	locks := make([]string, len(batch))
	for i, e := range batch {
		locks[i] = fmt.Sprintf("pg_advisory_xact_lock(%d)", lockKey(e.host))
	}
	// All sessions lock in the same order, so that they cannot deadlock.
	slices.Sort(locks)
	locks = slices.Compact(locks)
	// With repeatable read, which may be the database's default, the snapshot
	// would be older than the lock.
	b.WriteString("SET TRANSACTION ISOLATION LEVEL READ COMMITTED;\n")
	if shadowed {
		b.WriteString(shadowedSQL)
	}
	fmt.Fprintf(&b, "SELECT %s, %s;\n", strings.Join(locks, ", "), guardSQL(sampled, shadowed))
	records, repeated := rowsLiteral(batch)
	distinct, order := "", ""
	if repeated {
		distinct, order = "DISTINCT ", "ORDER BY 1\n"
	}
	fmt.Fprintf(&b, "INSERT INTO system_metrics (time, host, os, metric_type, payload)\n"+
		"SELECT %sr.time, r.host, coalesce(r.os, ''), r.metric_type, r.payload\n"+
		"FROM json_populate_recordset(NULL::system_metrics, %s) r\n"+
		"WHERE NOT EXISTS (SELECT FROM system_metrics m\n"+
		"WHERE m.time = r.time AND m.host = r.host AND m.metric_type = r.metric_type\n"+
		"AND (m.payload = r.payload OR r.time <> date_trunc('second', r.time))\n"+
		"AND %s)\n%sON CONFLICT DO NOTHING", distinct, records, timeBounds(batch), order)
	return b.String()
}

// rowsLiteral returns the records of a batch as an SQL literal that holds a JSON
// array. Each object has only the fields that become columns, because the table
// may have another column with the name of another field. A record that is not
// valid JSON is passed on as it is, so that the server refuses it. repeated
// reports whether two of the records may become the same row. The samples of one
// host never do, and then the server need not sort and compare the payloads.
func rowsLiteral(batch []entry) (literal string, repeated bool) {
	var b bytes.Buffer
	last := make(map[string]time.Time) // by host and metric type
	for i, e := range batch {
		b.WriteByte("[,"[min(i, 1)])
		var all map[string]json.RawMessage
		if json.Unmarshal(e.line, &all) != nil || all == nil {
			b.Write(e.line)
			repeated = true
			continue
		}
		var kind string
		if e.host == "" || e.time.IsZero() || json.Unmarshal(all["metric_type"], &kind) != nil {
			repeated = true // not known
		}
		key := e.host + "\x00" + kind
		// A table may store whole seconds.
		if before, ok := last[key]; ok && e.time.Sub(before) < 2*time.Second {
			repeated = true
		}
		last[key] = e.time
		sep := byte('{')
		for _, name := range []string{"time", "host", "os", "metric_type", "payload"} {
			if value, ok := all[name]; ok {
				b.WriteByte(sep)
				fmt.Fprintf(&b, "%q:%s", name, value)
				sep = ','
			}
		}
		if sep == '{' {
			b.WriteByte(sep)
		}
		b.WriteByte('}')
	}
	b.WriteByte(']')
	return pq.QuoteLiteral(b.String()), repeated
}

// missingSQL returns a query for the numbers, counted from 1, of the records
// whose key is not in the table.
func missingSQL(batch []entry) string {
	return "SELECT e.n::text FROM ROWS FROM (json_to_recordset(" + recordsLiteral(batch) +
		") AS (time json, host json, os json, metric_type json, payload json)) WITH ORDINALITY AS e(time, host, os, metric_type, payload, n),\n" +
		"json_populate_record(NULL::system_metrics, json_build_object('time', e.time, 'host', e.host, 'metric_type', e.metric_type)) r\n" +
		"WHERE NOT EXISTS (SELECT FROM system_metrics m WHERE m.time = r.time AND m.host = r.host AND m.metric_type = r.metric_type AND " +
		timeBounds(batch) + ") ORDER BY e.n"
}

// recordsLiteral returns the records of a batch as an SQL literal that holds a
// JSON array.
func recordsLiteral(batch []entry) string {
	records := make([]string, len(batch))
	for i, e := range batch {
		records[i] = string(e.line)
	}
	return pq.QuoteLiteral("[" + strings.Join(records, ",") + "]")
}

// timeBounds returns a condition on m.time that is true for the rows of a batch.
func timeBounds(batch []entry) string {
	from, to := batch[0].time, batch[0].time
	for _, e := range batch {
		from, to = minTime(from, e.time), maxTime(to, e.time)
	}
	return fmt.Sprintf("m.time BETWEEN %s AND %s", timeLiteral(from.Add(-time.Second)), timeLiteral(to.Add(time.Second)))
}

// lockKey returns the key of the advisory lock for a host's rows.
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

// Partitions are made only for days in this range around now. A record outside
// of it comes from a wrong clock, and the table for its day would never be
// removed.
const (
	partitionPast   = 400 * 24 * time.Hour
	partitionFuture = 2 * 24 * time.Hour
)

func partitionDay(e entry) time.Time { return e.time.UTC().Truncate(24 * time.Hour) }

func partitionable(day, now time.Time) bool {
	return !day.Before(now.Add(-partitionPast)) && !day.After(now.Add(partitionFuture))
}

// partitionSQL returns the statements that create the daily partitions (UTC)
// for a batch.
func partitionSQL(batch []entry, now time.Time) (statements []string) {
	for _, e := range batch {
		day := partitionDay(e)
		// No IF NOT EXISTS: a table of that name that is not a partition must be an error.
		sql := fmt.Sprintf("CREATE TABLE %s PARTITION OF system_metrics FOR VALUES FROM (%s) TO (%s)",
			partitionPrefix+day.Format("20060102"), timeLiteral(day), timeLiteral(day.Add(24*time.Hour)))
		if partitionable(day, now) && !slices.Contains(statements, sql) {
			statements = append(statements, sql)
		}
	}
	return statements
}

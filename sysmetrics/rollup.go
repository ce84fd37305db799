package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"observability-hub/lib/cli"
	"observability-hub/lib/record"
	"observability-hub/lib/sysexits"
)

//go:embed rollup.sql
var rollupSQL string

// rollupCmd fills the table of hourly means.
type rollupCmd struct {
	Timeout time.Duration `default:"5m"`
	Since   cli.Age       `default:"2d" placeholder:"AGE"`
}

// recent is the default of --since, and the age of the hours that prune sums up
// although it does not delete them. It is longer than the time from one run of a
// daily timer to the next.
const recent = 48 * time.Hour

// Validate is called by kong after parsing.
func (r *rollupCmd) Validate() error {
	if time.Duration(r.Since) < time.Hour {
		return fmt.Errorf("--since must be at least 1h, got %v", time.Duration(r.Since))
	}
	return databaseFlags{Timeout: r.Timeout}.Validate()
}

// Run sums up each hour that has records which are not in its means yet.
func (r *rollupCmd) Run(ctx context.Context, env *cli.Env) error {
	ctx, cancel := context.WithTimeout(ctx, r.Timeout)
	defer cancel()
	db, server, err := configured(ctx)
	if err != nil {
		return err
	}
	defer db.close()
	there, err := db.hasRollup()
	if err != nil {
		return databaseError(err)
	}
	if !there {
		return sysexits.New(sysexits.Config, "no_rollup", errors.New("there is no table system_metrics_hourly")).
			WithHint(makeRollup)
	}
	since := server.Add(-time.Duration(r.Since))
	return db.rollUp(env, since, between(since.Truncate(time.Hour), server))
}

// rollupError is [databaseError] for the tables of hourly means.
func rollupError(err error) error {
	return tableError(err, "SELECT, INSERT, UPDATE, DELETE", makeRollup)
}

const makeRollup = "run: sysmetrics schema --rollup | psql, as the role that inserts the records"

// hasRollup reports whether the database has the table of hourly means.
func (d *database) hasRollup() (bool, error) {
	found, err := d.column("SELECT to_regclass('system_metrics_hourly')::text")
	return err == nil && strings.Join(found, "") != "", err
}

// rollUp sums up the hours of the rows that meet a condition, and prints one
// rolled_up record. since is the time of the first hour. Each hour is a transaction,
// oldest first, so a run that is killed or has no more time keeps what it has done.
//
// An hour is summed up if it has more records than its means contain: the present
// hour at each run, and an hour for which a host sent its spool late. prune has
// deleted records of an hour that has fewer, and the hour keeps its means.
func (d *database) rollUp(env *cli.Env, since time.Time, condition string) error {
	hours, err := d.column("SELECT extract(epoch FROM r.hour)::bigint::text FROM (" +
		"SELECT date_trunc('hour', time AT TIME ZONE 'UTC') AT TIME ZONE 'UTC' AS hour, count(*) AS records FROM system_metrics WHERE " + sums + " AND (" + condition + ") GROUP BY 1" +
		") r LEFT JOIN system_metrics_hours h ON h.time = r.hour WHERE r.records > coalesce(h.records, 0) ORDER BY r.hour")
	if err != nil {
		return rollupError(err)
	}
	var means int64
	for _, text := range hours {
		epoch, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return fmt.Errorf("read the hours to sum up: %w", err)
		}
		n, err := d.exec(hourSQL(time.Unix(epoch, 0)))
		if err != nil {
			return rollupError(err)
		}
		means += n
	}
	l := record.New(time.Now(), record.Info, "rolled_up", env.Service)
	l.String("since", since.UTC().Truncate(time.Hour).Format(record.TimeFormat))
	l.Int("hours", int64(len(hours)))
	l.Int("means", means)
	return env.Stdout.Record(record.Info, l.End())
}

// between returns a condition for the rows of a range of time. The end is not part
// of it.
func between(from, to time.Time) string {
	return "time >= " + timeLiteral(from) + " AND time < " + timeLiteral(to)
}

// sums is a condition for the rows that have hourly means. The table of an older hub
// may have rows without a host.
const sums = "metric_type IN ('cpu', 'memory', 'disk', 'network') AND host IS NOT NULL"

// hourSQL returns the statements that sum up one hour. One statement counts the
// rows and sums them up, so both see the same rows. It changes nothing if the means
// contain as many rows already: another run may have summed up the hour while this
// one waited for the lock, and prune may have deleted some of its rows since.
//
// Values that are not numbers and objects of another form are left out: rows of older
// collectors lack most keys, and other programs may have written rows. So are numbers
// of 100 digits or more, because double precision or the mean would overflow, and
// names that do not fit into the index.
func hourSQL(hour time.Time) string {
	rows := "FROM system_metrics WHERE " + sums + " AND " + between(hour, hour.Add(time.Hour))
	object := func(path string) string {
		return "jsonb_each(CASE WHEN jsonb_typeof(" + path + ") = 'object' THEN " + path + " ELSE '{}' END)"
	}
	// The statement must see what was committed before it got the lock, as in insertSQL.
	return "SET TRANSACTION ISOLATION LEVEL READ COMMITTED;\n" + fmt.Sprintf("SELECT pg_advisory_xact_lock(%d);\n", lockKey("\x00hourly")) +
		"WITH counted AS (\n" +
		"INSERT INTO system_metrics_hours (time, records) SELECT " + timeLiteral(hour) + "::timestamptz, count(*) " + rows + "\n" +
		"ON CONFLICT (time) DO UPDATE SET records = excluded.records WHERE excluded.records > system_metrics_hours.records RETURNING 1\n" +
		"), raw AS (SELECT time, host, metric_type, payload " + rows + " AND EXISTS (SELECT FROM counted)), found AS (\n" +
		"SELECT time, host, v.metric, '' AS name, v.value FROM raw, LATERAL (VALUES\n" +
		"('cpu_usage', payload->'usage'), ('cpu_iowait', payload->'modes'->'iowait'), ('cpu_pressure', payload->'pressure'->'some'->'percent'), ('load1', payload->'load1')) v(metric, value)\n" +
		"WHERE metric_type = 'cpu'\n" +
		"UNION ALL SELECT time, host, v.metric, '', v.value FROM raw, LATERAL (VALUES\n" +
		"('memory_used_percent', payload->'used_percent'), ('swap_used_percent', payload->'swap_used_percent'), ('memory_pressure', payload->'pressure'->'some'->'percent')) v(metric, value)\n" +
		"WHERE metric_type = 'memory'\n" +
		"UNION ALL SELECT time, host, 'disk_pressure', '', payload->'_pressure'->'some'->'percent' FROM raw WHERE metric_type = 'disk'\n" +
		"UNION ALL SELECT time, host, v.metric, m.key, v.value FROM raw, " + object("payload") + " m, LATERAL (VALUES\n" +
		"('disk_used_percent', m.value->'used_percent'), ('disk_used', m.value->'used'), ('disk_free', m.value->'free')) v(metric, value)\n" +
		"WHERE metric_type = 'disk' AND left(m.key, 1) <> '_'\n" +
		"UNION ALL SELECT time, host, v.metric, m.key, v.value FROM raw, " + object("payload->'_io'") + " m, LATERAL (VALUES\n" +
		"('disk_util_percent', m.value->'util_percent'), ('disk_await_ms', m.value->'await_ms')) v(metric, value)\n" +
		"WHERE metric_type = 'disk'\n" +
		"UNION ALL SELECT time, host, v.metric, m.key, v.value FROM raw, " + object("payload") + " m, LATERAL (VALUES\n" +
		"('rx_bytes_per_s', m.value->'rx_bytes_per_s'), ('tx_bytes_per_s', m.value->'tx_bytes_per_s')) v(metric, value)\n" +
		"WHERE metric_type = 'network' AND left(m.key, 1) <> '_'\n" +
		"), numbers AS (SELECT time, host, metric, name, CASE WHEN jsonb_typeof(value) = 'number' AND length(value #>> '{}') < 100 THEN (value #>> '{}')::float8 END AS value FROM found)\n" +
		"INSERT INTO system_metrics_hourly (time, host, metric, name, samples, mean, highest, last)\n" +
		"SELECT " + timeLiteral(hour) + "::timestamptz, host, metric, name, count(*), avg(value), max(value), (array_agg(value ORDER BY time DESC))[1]\n" +
		"FROM numbers WHERE value IS NOT NULL AND octet_length(host) + octet_length(name) < 2000 GROUP BY host, metric, name\n" +
		"ON CONFLICT (host, metric, name, time) DO UPDATE SET samples = excluded.samples, mean = excluded.mean, highest = excluded.highest, last = excluded.last"
}

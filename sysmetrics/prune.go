package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"observability-hub/lib/cli"
	"observability-hub/lib/record"
	"observability-hub/lib/sysexits"
)

// pruneCmd deletes old rows, of all hosts.
type pruneCmd struct {
	databaseFlags
	Keep       cli.Age `required:"" placeholder:"AGE"`
	KeepHourly cli.Age `placeholder:"AGE"`
}

// Validate is called by kong after parsing. It rejects an age of less than an
// hour: that is a typing error, and it would delete almost all rows.
func (p *pruneCmd) Validate() error {
	if p.Keep == 0 {
		return errors.New("prune needs --keep, for example --keep 90d")
	}
	if time.Duration(p.Keep) < time.Hour {
		return fmt.Errorf("--keep must be at least 1h, got %v", time.Duration(p.Keep))
	}
	if p.KeepHourly != 0 && p.KeepHourly < p.Keep {
		return fmt.Errorf("--keep-hourly must be at least --keep, got %v and %v", time.Duration(p.KeepHourly), time.Duration(p.Keep))
	}
	return p.databaseFlags.Validate()
}

// Run drops whole partitions and chunks if all their rows are old, and deletes
// the other old rows.
func (p *pruneCmd) Run(ctx context.Context, env *cli.Env) error {
	ctx, cancel := context.WithTimeout(ctx, p.Timeout)
	defer cancel()
	db, server, err := configured(ctx)
	if err != nil {
		return err
	}
	defer db.close()
	// With a wrong clock on either side, rows that are not old would be deleted.
	if err := compareClocks(time.Now(), server); err != nil {
		return sysexits.New(sysexits.Config, "prune_refused", fmt.Errorf("%w: nothing is deleted", err)).
			WithHint("correct the clock that is wrong: timedatectl shows this host's clock, SELECT now() shows the server's")
	}
	cutoff := server.Add(-time.Duration(p.Keep))
	if err := p.rollUp(env, db, server, cutoff); err != nil {
		return err
	}
	partitions, err := db.oldPartitions(cutoff)
	if err != nil {
		return databaseError(err)
	}
	for _, name := range partitions {
		if _, err := db.exec("DROP TABLE IF EXISTS " + name); err != nil {
			return databaseError(err)
		}
	}
	rows, err := db.deleteBefore(cutoff)
	if err != nil {
		return tableError(err, "SELECT, INSERT, DELETE", makeTable)
	}
	l := record.New(time.Now(), record.Info, "pruned", env.Service)
	l.String("before", cutoff.UTC().Format(record.TimeFormat))
	l.Int("partitions", int64(len(partitions)))
	l.Int("rows", rows)
	return env.Stdout.Record(record.Info, l.End())
}

// rollUp brings the hourly means up to date, if the database has them, and deletes
// the old means. The hours that prune is about to delete are summed up first.
func (p *pruneCmd) rollUp(env *cli.Env, db *database, server, cutoff time.Time) error {
	there, err := db.hasRollup()
	if err != nil {
		return databaseError(err)
	}
	if !there {
		return nil
	}
	// Rows of other programs may have an infinite time, or one before the first year.
	oldest, err := db.column("SELECT coalesce(extract(epoch FROM min(time)), extract(epoch FROM now()))::text FROM system_metrics WHERE time >= '0001-01-01 00:00:00+00'")
	if err != nil {
		return databaseError(err)
	}
	from, err := parseEpoch(strings.Join(oldest, ""))
	if err != nil {
		return err
	}
	since := server.Add(-recent).Truncate(time.Hour)
	condition := between(since, server)
	if from.Before(cutoff) {
		// The hour of cutoff is deleted in part.
		condition += " OR " + between(from.Truncate(time.Hour), cutoff.Truncate(time.Hour).Add(time.Hour))
		since = minTime(since, from)
	}
	if err := db.rollUp(env, since, condition); err != nil {
		return err
	}
	if p.KeepHourly == 0 {
		return nil
	}
	before := timeLiteral(server.Add(-time.Duration(p.KeepHourly)))
	_, err = db.exec("DELETE FROM system_metrics_hours WHERE time < " + before + ";\nDELETE FROM system_metrics_hourly WHERE time < " + before)
	if err != nil {
		return rollupError(err)
	}
	return nil
}

// oldPartitions returns the partitions whose rows are all before cutoff. It
// compares their bounds, because the name does not say whether a partition holds
// a day or a month. It leaves out DEFAULT partitions and bounds of MAXVALUE. The
// CASE leaves out all partitions if the key is not the time, because their
// bounds cannot be cast to a time.
func (d *database) oldPartitions(cutoff time.Time) ([]string, error) {
	return d.column(`SELECT c.oid::regclass::text FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
		WHERE i.inhparent = to_regclass('system_metrics') AND c.relkind IN ('r', 'p')
		AND CASE WHEN pg_get_partkeydef(i.inhparent) = 'RANGE ("time")'
		THEN (regexp_match(pg_get_expr(c.relpartbound, c.oid), 'TO [(]''([^'']+)''[)]'))[1]::timestamptz <= ` + timeLiteral(cutoff) + ` END
		ORDER BY 1`)
}

// deleteBefore deletes the rows before cutoff. In a hypertable it first drops
// whole chunks, which is cheap, and then deletes the remaining rows.
func (d *database) deleteBefore(cutoff time.Time) (int64, error) {
	hyper, err := d.column("SELECT to_regclass('timescaledb_information.hypertables')::text")
	if err != nil {
		return 0, err
	}
	before := timeLiteral(cutoff)
	if len(hyper) == 1 && hyper[0] != "" {
		is, err := d.column("SELECT 'yes' FROM timescaledb_information.hypertables WHERE hypertable_name = 'system_metrics'")
		if err != nil {
			return 0, err
		}
		if len(is) > 0 {
			if _, err := d.column("SELECT drop_chunks('system_metrics', older_than => " + before + "::timestamptz)::text"); err != nil {
				return 0, err
			}
		}
	}
	return d.exec("DELETE FROM system_metrics WHERE time < " + before)
}

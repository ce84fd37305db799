package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"observability-hub/lib/cli"
	"observability-hub/lib/record"
	"observability-hub/lib/sysexits"
)

// pruneCmd deletes old rows, of all hosts.
type pruneCmd struct {
	databaseFlags
	Keep cli.Age `required:"" placeholder:"AGE"`
}

// Validate is kong's check after parsing: less is a typing error, and would be expensive.
func (p *pruneCmd) Validate() error {
	if p.Keep == 0 {
		return errors.New("--keep is missing, or nothing would be kept")
	}
	if time.Duration(p.Keep) < time.Hour {
		return fmt.Errorf("--keep %v: less than an hour", time.Duration(p.Keep))
	}
	return p.databaseFlags.Validate()
}

// Run drops whole partitions and chunks where it can, and deletes the rest.
func (p *pruneCmd) Run(ctx context.Context, env *cli.Env) error {
	return p.run(ctx, env)
}

func (p *pruneCmd) run(ctx context.Context, env *cli.Env) error {
	cfg, ok, err := databaseConfig()
	if err != nil {
		return err
	}
	if !ok {
		return sysexits.New(sysexits.Config, "no_database", fmt.Errorf("no database is configured")).
			WithHint("set DATABASE_URL or libpq's PGHOST, PGDATABASE, …")
	}
	ctx, cancel := context.WithTimeout(ctx, p.Timeout)
	defer cancel()
	db, err := connect(ctx, cfg)
	if err != nil {
		return err
	}
	defer db.close()
	// A wrong clock on either side would delete what is not old.
	server, err := db.now()
	if err != nil {
		return databaseError(err)
	}
	if err := compareClocks(time.Now(), server); err != nil {
		return sysexits.New(sysexits.Config, "prune_refused", fmt.Errorf("%w: nothing is deleted", err)).
			WithHint("set the clock that is wrong: timedatectl shows this host's, SELECT now() the server's")
	}
	cutoff := server.Add(-time.Duration(p.Keep))
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
		return databaseError(err)
	}
	l := record.New(time.Now(), record.Info, "pruned", env.Service)
	l.String("before", cutoff.UTC().Format(record.TimeFormat))
	l.Int("partitions", int64(len(partitions)))
	l.Int("rows", rows)
	return env.Stdout.Record(record.Info, l.End())
}

// oldPartitions returns the partitions all of whose rows are before cutoff: by
// their bounds, which the server tells, as a name may mean a day or a month. A
// bound of another form is none, such as DEFAULT or MAXVALUE, nor is one of
// another key, which the CASE keeps from being read as a time.
func (d *database) oldPartitions(cutoff time.Time) ([]string, error) {
	return d.column(`SELECT c.oid::regclass::text FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
		WHERE i.inhparent = to_regclass('system_metrics') AND c.relkind IN ('r', 'p')
		AND CASE WHEN pg_get_partkeydef(i.inhparent) = 'RANGE ("time")'
		THEN (regexp_match(pg_get_expr(c.relpartbound, c.oid), 'TO [(]''([^'']+)''[)]'))[1]::timestamptz <= ` + timeLiteral(cutoff) + ` END
		ORDER BY 1`)
}

// deleteBefore deletes the rows before cutoff: a hypertable's whole chunks
// first, which costs nothing, then what is left.
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

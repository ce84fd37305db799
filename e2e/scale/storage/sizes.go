package main

import (
	"bytes"
	"fmt"
	"io"
	"os/exec"
	"strconv"
)

// number runs a query for one number.
func (b *bench) number(query string) (float64, error) {
	rows, err := b.db.Query(query)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", query, err)
	}
	return strconv.ParseFloat(rows[0][0], 64)
}

// sizes prints the bytes of a host and day, from the last day.
func (b *bench) sizes(w io.Writer) error {
	day := "system_metrics_p" + b.end.AddDate(0, 0, -1).Format("20060102")
	fmt.Fprintf(w, "### Bytes of a host and day\n\n| | rows | payload, bytes a row | row, bytes | MB of a host and day |\n|---|---:|---:|---:|---:|\n")
	rows, err := b.db.Query("SELECT metric_type, (count(*) / $1::float8)::numeric(10, 0), avg(pg_column_size(payload))::numeric(10, 0), avg(pg_column_size(s.*))::numeric(10, 0), (sum(pg_column_size(s.*)) / $1::float8 / 1e6)::numeric(10, 2) FROM "+day+" s GROUP BY 1 ORDER BY 5 DESC", b.hosts)
	if err != nil {
		return err
	}
	for _, r := range rows {
		fmt.Fprintf(w, "| %s | %s | %s | %s | %s |\n", r[0], r[1], r[2], r[3], r[4])
	}
	perHost := func(query string) (float64, error) {
		n, err := b.number(query)
		return n / float64(b.hosts) / 1e6, err
	}
	parts := []struct{ name, query string }{
		{"heap", "SELECT pg_relation_size('" + day + "')"},
		{"TOAST", "SELECT coalesce(pg_total_relation_size(reltoastrelid), 0) FROM pg_class WHERE oid = '" + day + "'::regclass"},
		{"unique index (host, metric_type, time)", "SELECT sum(pg_relation_size(indexrelid)) FROM pg_index WHERE indrelid = '" + day + "'::regclass AND indisunique"},
		{"BRIN index (time)", "SELECT sum(pg_relation_size(indexrelid)) FROM pg_index WHERE indrelid = '" + day + "'::regclass AND NOT indisunique"},
	}
	fmt.Fprintf(w, "\n| part | MB of a host and day |\n|---|---:|\n")
	for _, p := range parts {
		n, err := perHost(p.query)
		if err != nil {
			return err
		}
		fmt.Fprintf(w, "| %s | %.3f |\n", p.name, n)
	}
	// Variants of the same day.
	fmt.Fprintf(w, "\n| variant | MB of a host and day |\n|---|---:|\n")
	total, err := perHost("SELECT pg_total_relation_size('" + day + "')")
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "| as sysmetrics stores it: partition, unique index, BRIN | %.2f |\n", total)
	const few = 10 // hosts
	for _, v := range []struct{ name, make string }{
		{"the same, with indexes built afterwards, as all of the following", "CREATE TABLE variant AS SELECT * FROM part ORDER BY time; CREATE UNIQUE INDEX ON variant (host, metric_type, time); CREATE INDEX ON variant USING brin (time)"},
		{"one B-tree (time) instead of both indexes", "CREATE TABLE variant AS SELECT * FROM part ORDER BY time; CREATE INDEX ON variant (time)"},
		{"no index but BRIN", "CREATE TABLE variant AS SELECT * FROM part ORDER BY time; CREATE INDEX ON variant USING brin (time)"},
		{"payload with COMPRESSION lz4", "CREATE TABLE variant (LIKE part); ALTER TABLE variant ALTER payload SET COMPRESSION lz4; INSERT INTO variant SELECT * FROM part ORDER BY time; CREATE UNIQUE INDEX ON variant (host, metric_type, time); CREATE INDEX ON variant USING brin (time)"},
		{"without boot_id and machine_id in _meta", "CREATE TABLE variant AS SELECT time, host, os, metric_type, payload #- '{_meta,boot_id}' #- '{_meta,machine_id}' AS payload FROM part ORDER BY time; CREATE UNIQUE INDEX ON variant (host, metric_type, time); CREATE INDEX ON variant USING brin (time)"},
		{"sorted by host afterwards (CLUSTER)", "CREATE TABLE variant AS SELECT * FROM part ORDER BY host, metric_type, time; CREATE UNIQUE INDEX ON variant (host, metric_type, time); CREATE INDEX ON variant USING brin (time)"},
	} {
		if err := b.db.Exec(fmt.Sprintf("DROP TABLE IF EXISTS variant; DROP VIEW IF EXISTS part; CREATE VIEW part AS SELECT * FROM %s WHERE host < 'web%04d'; %s", day, few, v.make)); err != nil {
			return fmt.Errorf("%s: %w", v.name, err)
		}
		n, err := b.number("SELECT pg_total_relation_size('variant')")
		if err != nil {
			return err
		}
		fmt.Fprintf(w, "| %s | %.2f |\n", v.name, n/few/1e6)
	}
	compressed, err := b.zstd(day)
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "| the heap on a file system with zstd (blocks of 128 KiB) | %.2f |\n", compressed/float64(b.hosts)/1e6)
	hourly, err := b.number("SELECT pg_total_relation_size('system_metrics_hourly')")
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "| hourly means | %.3f |\n", hourly/float64(b.hosts*b.days)/1e6)
	fmt.Fprintf(w, "\nThe hourly means of %d hosts and %d days: %d rows, made in %.0f s from %d rows.\n\n", b.hosts, b.days, b.means, b.rolledUp.Seconds(), b.rows)
	return b.db.Exec("DROP TABLE variant; DROP VIEW part")
}

// zstd returns the size of the first 64 MiB of a heap that were compressed in blocks, for the whole heap.
func (b *bench) zstd(table string) (float64, error) {
	rows, err := b.db.Query("SELECT current_setting('data_directory') || '/' || pg_relation_filepath($1), pg_relation_size($1)", table)
	if err != nil {
		return 0, err
	}
	size, err := strconv.ParseFloat(rows[0][1], 64)
	if err != nil {
		return 0, err
	}
	if err := b.db.Exec("CHECKPOINT"); err != nil {
		return 0, err
	}
	out, err := exec.Command("sh", "-c", `head -c 67108864 "$1" | split -b 131072 --filter 'zstd -q -c' | wc -c; head -c 67108864 "$1" | wc -c`, "sh", rows[0][0]).Output()
	if err != nil {
		return 0, err
	}
	var small, large float64
	if _, err := fmt.Fscan(bytes.NewReader(out), &small, &large); err != nil {
		return 0, err
	}
	return size * small / large, nil
}

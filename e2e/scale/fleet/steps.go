package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/lib/pq"

	"observability-hub/e2e/fleet"
	"observability-hub/e2e/postgres"
)

// steps prints what the parts of a flush cost the server: its CPU time for a session alone and for a whole flush, and what
// pg_stat_statements says of the statements in between. Hosts send one after the other, so that the times are not those of a queue.
func steps(hosts *fleet.Binary, dir string) error {
	c, p, stop, err := start(append([]string{"shared_preload_libraries = 'pg_stat_statements'", "pg_stat_statements.track_planning = on"}, server...))
	if err != nil {
		return err
	}
	defer stop()
	if _, err := c.PSQL("CREATE EXTENSION pg_stat_statements"); err != nil {
		return err
	}
	fmt.Printf("\nWhat the parts of a flush cost the server, in ms, with one sample and one host at a time. The first and the last row are CPU time,\n" +
		"the others are the times of pg_stat_statements:\n\n| part | without a pooler | through PgBouncer |\n|---|---|---|\n")
	names := []string{"a session that does nothing", "three SET", "the lock and the guards", "INSERT: plan", "INSERT: execute", "the whole flush"}
	columns := [2][]string{}
	for i, url := range []string{c.TCPURL(), p.URL()} {
		if columns[i], err = stepsOf(hosts, dir, c, []string{"direct", "pooled"}[i], url); err != nil {
			return err
		}
	}
	for i, name := range names {
		fmt.Printf("| %s | %s | %s |\n", name, columns[0][i], columns[1][i])
	}
	return nil
}

// stepsOf returns the column of one way to the server. name begins the names of the hosts.
func stepsOf(hosts *fleet.Binary, dir string, c *postgres.Cluster, name, url string) ([]string, error) {
	const n = 400
	if _, err := hosts.Run(dir, url, fleet.Order{Name: "warm", Hosts: 20, Seconds: 0.5, Samples: 1}); err != nil {
		return nil, err
	}
	connector, err := pq.NewConnector(url + "?sslmode=disable")
	if err != nil {
		return nil, err
	}
	before, err := c.CPU()
	if err != nil {
		return nil, err
	}
	for range n {
		session, err := connector.Connect(context.Background())
		if err != nil {
			return nil, err
		}
		if err := session.Close(); err != nil {
			return nil, err
		}
	}
	time.Sleep(200 * time.Millisecond) // until the last backends have ended
	between, err := c.CPU()
	if err != nil {
		return nil, err
	}
	if _, err := c.PSQL("SELECT pg_stat_statements_reset()"); err != nil {
		return nil, err
	}
	if _, err := hosts.Run(dir, url, fleet.Order{Name: name, Hosts: n, Seconds: 20, Samples: 1}); err != nil {
		return nil, err
	}
	time.Sleep(200 * time.Millisecond)
	after, err := c.CPU()
	if err != nil {
		return nil, err
	}
	out, err := c.PSQL(fmt.Sprintf(`SELECT to_char(sum(total_exec_time) FILTER (WHERE query LIKE 'SET%%') / %[1]d, '990.00'), to_char(sum(total_exec_time + total_plan_time) FILTER (WHERE query LIKE 'SELECT pg_advisory%%') / %[1]d, '990.00'),
		to_char(sum(total_plan_time) FILTER (WHERE query LIKE 'INSERT%%') / %[1]d, '990.00'), to_char(sum(total_exec_time) FILTER (WHERE query LIKE 'INSERT%%') / %[1]d, '990.00') FROM pg_stat_statements`, n), "-At")
	if err != nil {
		return nil, err
	}
	milliseconds := func(d time.Duration) string { return fmt.Sprintf("%.2f", d.Seconds()*1e3/n) }
	fields := strings.Split(strings.ReplaceAll(strings.TrimSpace(out), " ", ""), "|")
	return append(append([]string{milliseconds(between - before)}, fields...), milliseconds(after-between)), nil
}

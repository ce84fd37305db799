// Storage measures the table of sysmetrics: the bytes of a host and day, and the time of each query of the dashboards over a
// day and over a month of 100 hosts. The samples are those of this machine, with varied numbers.
//
// Run it as root from the project's directory: make bench-storage, or go run ./e2e/scale/storage. It takes about four minutes
// and 3 GB of disk. The last day has a sample a minute of each host. The days before have a part of that, which -thin sets, so
// that the table fits on a small machine. So the times of queries of a month are multiplied by the rows that are missing; both
// figures are printed.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	"observability-hub/e2e/postgres"
	"observability-hub/e2e/workspace"
)

// bench is one run.
type bench struct {
	hosts, days, thin int
	db                *postgres.Cluster
	tool              string
	end               time.Time // of the samples
	rows              int64     // in system_metrics, of sysmetrics
	rolledUp          time.Duration
	means             int64
}

func main() {
	b := &bench{}
	flag.IntVar(&b.hosts, "hosts", 100, "number of hosts")
	flag.IntVar(&b.days, "days", 30, "number of days")
	flag.IntVar(&b.thin, "thin", 15, "minutes between two samples of a host, before the last day")
	explain := flag.String("explain", "", "print the plan of the queries of the panels with this title")
	flag.Parse()
	if err := errors.Join(b.run(os.Stdout, *explain), workspace.Clean()); err != nil {
		fmt.Fprintln(os.Stderr, "storage: error:", err)
		os.Exit(1)
	}
}

func (b *bench) run(w io.Writer, explain string) (err error) {
	if b.tool, err = workspace.Binary("sysmetrics"); err != nil {
		return err
	}
	// A small server. Debian's default of shared_buffers is 128 MB.
	b.db, err = postgres.New(postgres.Config{OnDisk: true, Conf: []string{"shared_buffers = '512MB'", "effective_cache_size = '2GB'", "work_mem = '16MB'",
		"wal_level = minimal", "max_wal_senders = 0", "max_wal_size = '4GB'", "maintenance_work_mem = '256MB'", "random_page_cost = 1.1"}})
	if err != nil {
		return err
	}
	defer b.db.Close()
	begun := time.Now()
	if err := b.fill(); err != nil {
		return err
	}
	loaded := time.Since(begun)
	if err := b.rollUp(); err != nil {
		return err
	}
	fmt.Fprintf(w, "%d hosts, %d days: %d rows of samples (%d with a sample a minute), loaded in %.0f s.\n\n", b.hosts, b.days, b.rows, b.fullRows(), loaded.Seconds())
	if explain != "" {
		return b.explain(w, explain)
	}
	if err := b.sizes(w); err != nil {
		return err
	}
	return b.panels(w)
}

// fullRows is the number of rows with a sample a minute.
func (b *bench) fullRows() int64 { return int64(b.hosts) * int64(b.days) * 1440 * 4 }

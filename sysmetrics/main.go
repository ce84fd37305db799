// Sysmetrics samples a host: it reads /proc and /sys once, prints one record
// for each of CPU, memory, disk and network, and exits.
//
// Synopsis:
//
//	sysmetrics [collect] [--flush] [--interval D]
//	sysmetrics flush < RECORDS
//	sysmetrics schema | psql
//	sysmetrics rollup
//	sysmetrics prune --keep 90d
//	sysmetrics status
//
// Without --interval it never sleeps. A rate is the difference between the
// kernel's counters now and the counters that the previous run kept in the
// state directory. collect --flush and the flush command insert the records as
// rows of the table system_metrics. While no database can be reached, the
// records wait in a spool. sysmetrics(1) is the manual.
package main

import (
	"errors"
	"fmt"
	"os"
	"time"

	"observability-hub/lib/cli"
)

// stateFlags set the state directory and the size of the spool in it.
type stateFlags struct {
	StateDir string `placeholder:"DIR"`
	SpoolMax int64  `default:"64" placeholder:"MIB"`
}

func (s stateFlags) Validate() error {
	if s.SpoolMax < 1 || s.SpoolMax > 1<<20 {
		return fmt.Errorf("--spool-max must be from 1 to 1048576 MiB, got %d", s.SpoolMax)
	}
	return nil
}

// databaseFlags limit the time for all work on the database. The database
// itself is named by the credential database_url, $DATABASE_URL or libpq's PG*
// variables, never by a flag.
type databaseFlags struct {
	Timeout time.Duration `default:"20s"`
}

func (d databaseFlags) Validate() error {
	if d.Timeout <= 0 {
		return fmt.Errorf("--timeout must be greater than 0, got %v", d.Timeout)
	}
	return nil
}

func main() {
	os.Exit(cli.Main(app(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// app returns the whole command line. The flags of a command are the fields of
// its struct.
func app() cli.App {
	return cli.App{
		Name:        name,
		Service:     "system-metrics",
		Description: "Sample CPU, memory, disks and network from /proc: JSON lines to stdout, or rows to PostgreSQL.",
		Commands: []cli.Command{
			{Name: "collect", Help: "Sample this host and print the records (the default).", Default: true, Grammar: &collectCmd{}},
			{Name: "flush", Help: "Insert the records on stdin, from this host or from other hosts.", Grammar: &flushCmd{}},
			{Name: "schema", Help: "Print the SQL that creates the table, for psql.", Grammar: &schemaCmd{}},
			{Name: "rollup", Help: "Sum up hours in the table system_metrics_hourly.", Grammar: &rollupCmd{}},
			{Name: "prune", Help: "Delete the rows that are older than --keep.", Grammar: &pruneCmd{}},
			{Name: "status", Help: "Count the records that wait in the spool.", Grammar: &statusCmd{}},
		},
		Flags: flagHelp,
		Examples: `  sysmetrics | jq 'select(.metric_type == "cpu").payload.usage'
  sysmetrics --interval 1s
  sysmetrics schema | psql hub
  DATABASE_URL=postgres:///hub sysmetrics --flush
  ssh web2 sysmetrics | sysmetrics flush
  DATABASE_URL=postgres:///hub sysmetrics prune --keep 90d
`,
	}
}

// validate checks the flags of the two embedded structs.
func validate(s stateFlags, d databaseFlags) error {
	return errors.Join(s.Validate(), d.Validate())
}

// name is the command, and the application_name of its database sessions.
const name = "sysmetrics"

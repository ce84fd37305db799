// Sysmetrics samples a host: it reads /proc and /sys once, prints one record
// for each of CPU, memory, disk and network, and exits.
//
// Synopsis:
//
//	sysmetrics [collect] [--flush] [--interval D]
//	sysmetrics flush < RECORDS
//	sysmetrics schema | psql
//	sysmetrics prune --keep 90d
//
// It never sleeps: rates are the difference between the kernel's counters now
// and those that the previous run kept in the state directory. With --flush,
// or through the flush command, records become rows of the table
// system_metrics; while no database can be reached they wait in a spool.
// sysmetrics(1) is the manual.
package main

import (
	"errors"
	"fmt"
	"os"
	"time"

	"observability-hub/lib/cli"
)

// stateFlags say where the tool keeps what it must remember.
type stateFlags struct {
	StateDir string `placeholder:"DIR"`
	SpoolMax int64  `default:"64" placeholder:"MIB"`
}

func (s stateFlags) Validate() error {
	if s.SpoolMax < 1 || s.SpoolMax > 1<<20 {
		return fmt.Errorf("--spool-max %d: not between 1 MiB and 1 TiB", s.SpoolMax)
	}
	return nil
}

// databaseFlags bound the conversation with the database. Which database it is
// comes from the credential database_url, $DATABASE_URL or libpq's PG* variables.
type databaseFlags struct {
	Timeout time.Duration `default:"20s"`
}

func (d databaseFlags) Validate() error {
	if d.Timeout <= 0 {
		return fmt.Errorf("--timeout %v: not a time span above 0", d.Timeout)
	}
	return nil
}

func main() {
	os.Exit(cli.Main(app(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// app is everything that can be said to the tool. The flags of a command are
// the fields of its struct.
func app() cli.App {
	return cli.App{
		Name:        name,
		Service:     "system-metrics",
		Description: "Sample CPU, memory, disks and network from /proc: JSON lines to stdout, or rows to PostgreSQL.",
		Commands: []cli.Command{
			{Name: "collect", Help: "Sample this host and print the records (the default).", Default: true, Grammar: &collectCmd{}},
			{Name: "flush", Help: "Insert the records that stdin holds, of this host or of others.", Grammar: &flushCmd{}},
			{Name: "schema", Help: "Print the SQL that makes the table, for psql.", Grammar: &schemaCmd{}},
			{Name: "prune", Help: "Delete rows that are older than --keep.", Grammar: &pruneCmd{}},
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

// validate checks the flags that two embedded structs hold.
func validate(s stateFlags, d databaseFlags) error {
	return errors.Join(s.Validate(), d.Validate())
}

// name is the command, and how the database knows its sessions.
const name = "sysmetrics"

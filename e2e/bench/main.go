// Bench measures the cost of the tools, beside that of other programs that could do their work:
//
//   - sysmetrics: an empty Go program, a pipe of sysstat's sadc and sadf with psql, one scrape of node-exporter, and psql
//     with one row; without and with a database.
//   - volbackup: a pipe of tar with zstd or gzip, restic and borg, on a GiB and on many small files.
//   - gitsync: git fetch of the same repositories, small and large, and a plan and an apply with nothing to do.
//   - readsync: a statement to each side for each document, as in older hubs; COPY alone; a cursor alone; and how time and memory grow.
//
// Run it as root from the project's directory: go run ./e2e/bench, followed by the names of tools if not all are wanted. It
// starts its own PostgreSQL and git daemon, changes nothing else on the host, and takes about two minutes for each tool. The
// candidates take turns, round by round, so that a noisy moment affects all of them. Figures are medians. Their ratios mean
// more than the milliseconds, which are those of this machine.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"observability-hub/e2e/postgres"
	"observability-hub/e2e/workspace"
)

func main() {
	rounds := flag.Int("rounds", 200, "how often each candidate runs; those that take long a part of that")
	check := flag.Bool("check", false, "exit 1 if a target is missed")
	loaded := flag.Bool("in-loaded-host", false, "internal: run commands from stdin in a host with many interfaces and mounts")
	client := flag.String("client", "", "internal: be a candidate of readsync's: cursor or old")
	flag.Parse()
	var err error
	if *client != "" {
		err = syncClient(context.Background(), *client)
	} else if *loaded {
		err = serveLoadedHost(os.Stdin, os.Stdout, flag.Args())
	} else {
		tools := flag.Args()
		if len(tools) == 0 {
			tools = []string{"sysmetrics", "gitsync", "readsync", "volbackup"}
		}
		for _, tool := range tools {
			if benchmarks[tool] == nil {
				*rounds = 0
			}
		}
		if *rounds < 1 {
			flag.Usage()
			os.Exit(64)
		}
		err = run(tools, *rounds, *check)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench: error:", err)
		os.Exit(1)
	}
}

// benchmarks are the benchmarks by tool. Each prints its figures and returns how many targets are missed.
var benchmarks = map[string]func(work string, rounds int, w io.Writer) (missed int, err error){
	"sysmetrics": benchSysmetrics,
	"gitsync":    benchGitsync,
	"readsync":   benchReadsync,
	"volbackup":  benchVolbackup,
}

func run(tools []string, rounds int, check bool) error {
	work, err := os.MkdirTemp("", "hub-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	defer workspace.Clean()
	missed := 0
	for i, tool := range tools {
		if i > 0 {
			fmt.Println()
		}
		n, err := benchmarks[tool](work, rounds, os.Stdout)
		if err != nil {
			return err
		}
		missed += n
	}
	if check && missed > 0 {
		return fmt.Errorf("%d targets are missed", missed)
	}
	return nil
}

func benchSysmetrics(work string, rounds int, w io.Writer) (missed int, err error) {
	if os.Geteuid() != 0 {
		return 0, fmt.Errorf("the host with many interfaces and mounts needs namespaces: run as root")
	}
	// As on a real server: it takes the client no CPU time, but wall time.
	db, err := postgres.New(postgres.Config{OnDisk: true, Conf: []string{"fsync = on"}})
	if err != nil {
		return 0, err
	}
	defer db.Close()
	b := &bench{work: work, db: db, rounds: rounds}
	if err := b.prepare(); err != nil {
		return 0, err
	}
	if err := b.measureAll(); err != nil {
		return 0, err
	}
	if err := b.measureLoaded(); err != nil {
		return 0, err
	}
	return b.report(w), nil
}

// bench is the benchmark of sysmetrics.
type bench struct {
	work   string
	db     *postgres.Cluster
	rounds int

	candidates []*candidate
	exporter   *exporter
	plain      map[string]*figures // on this host, by the candidate's name, in turns with:
	loaded     map[string]*figures // on the host with many interfaces and mounts
	perf       map[string]string   // why perf does not count an event, "" if it does
}

// Names of the candidates, which the report looks up.
const (
	emptyName   = "empty Go program"
	collectName = "sysmetrics"
	flushName   = "sysmetrics --flush"
	chainName   = "sadc | sadf | psql"
	psqlName    = "psql, one row"
)

// prepare builds and finds the programs, and provides the files that each needs from an earlier run.
func (b *bench) prepare() error {
	empty, err := buildEmpty(b.work)
	if err != nil {
		return err
	}
	tool, err := workspace.Binary("sysmetrics")
	if err != nil {
		return err
	}
	psql, err := findProgram("/usr/lib/postgresql/*/bin/psql") // psql in PATH is a script that searches for this program
	if err != nil {
		return err
	}
	sadc, err := findProgram("/usr/lib/sysstat/sadc")
	if err != nil {
		return err
	}
	sadf, err := findProgram("/usr/bin/sadf")
	if err != nil {
		return err
	}
	if err := b.makeTables(tool); err != nil {
		return err
	}
	socket := filepath.Dir(b.db.Socket())
	env := []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C", "HOME=" + b.work}
	pgEnv := append([]string{"PGHOST=" + socket, fmt.Sprintf("PGPORT=%d", b.db.Port), "PGUSER=hub", "PGDATABASE=hub"}, env...)
	dataFile := filepath.Join(b.work, "sa")
	seed := filepath.Join(b.work, "sa.seed")
	// The activities that records of sysmetrics contain too. The seed is the previous minute: rates need two snapshots.
	snapshot := sadc + " -S DISK,XDISK,SNMP 1 1 "
	if _, err := measure(command{Argv: []string{"sh", "-c", snapshot + seed}, Env: env}); err != nil {
		return err
	}
	chain := snapshot + dataFile + " && { printf \"INSERT INTO system_metrics SELECT now(), 'chain', 'linux', 'sadf', \\$json\\$\"; " +
		sadf + " -j " + dataFile + " -- -u ALL -P ALL -q ALL -w -r ALL -S -B -d -F -n DEV,EDEV,TCP,UDP,SOCK; " +
		"printf '$json$'; } | " + psql + " -X -q"
	b.candidates = []*candidate{
		{name: emptyName, shown: "func main() {}", command: command{Argv: []string{empty}, Env: env}, programs: []string{empty}},
		{name: collectName, shown: "sysmetrics", command: command{Argv: []string{tool},
			Env: append([]string{"SYSMETRICS_STATE_DIR=" + filepath.Join(b.work, "collect")}, env...)}, programs: []string{tool}},
		{name: flushName, shown: "sysmetrics collect --flush", command: command{Argv: []string{tool, "collect", "--flush"},
			Env: append([]string{"SYSMETRICS_STATE_DIR=" + filepath.Join(b.work, "flush"), "DATABASE_URL=" + b.db.URL()}, env...)}, programs: []string{tool}, client: true},
		{name: chainName, shown: chain, command: command{Argv: []string{"sh", "-c", chain}, Env: pgEnv}, programs: []string{sadc, sadf, psql}, client: true,
			before: func() error { return copyFile(seed, dataFile) }},
		{name: psqlName, shown: "psql -X -q -c \"INSERT …\"", command: command{Argv: []string{psql, "-X", "-q", "-c",
			"INSERT INTO system_metrics VALUES (now(), 'psql', 'linux', 'psql', '{\"usage\":1}')"}, Env: pgEnv}, programs: []string{psql}, client: true},
	}
	exporter, err := findProgram("/usr/bin/prometheus-node-exporter")
	if err != nil {
		return err
	}
	b.exporter = newExporter(exporter)
	return nil
}

// makeTables creates the table as a user would, and today's partition.
func (b *bench) makeTables(tool string) error {
	out, err := output(command{Argv: []string{tool, "schema"}, Env: []string{}})
	if err != nil {
		return err
	}
	if _, err := b.db.PSQL("SET ROLE hub;\n" + out); err != nil {
		return err
	}
	_, err = measure(command{Argv: []string{tool, "collect", "--flush"},
		Env: []string{"SYSMETRICS_STATE_DIR=" + filepath.Join(b.work, "flush"), "DATABASE_URL=" + b.db.URL()}})
	return err
}

// Fleet measures how many hosts one PostgreSQL server takes, for docs/scale.md. It prints tables in Markdown.
//
// Run it as root from the project's directory: make bench-fleet, or go run ./e2e/scale/fleet.
//
// Each host sends as the tool does: it opens a session with a SCRAM password, inserts in one statement, and closes the session. The
// hosts send at random moments, as their timers make them, and none waits for another. Server, pooler and all hosts share this
// machine, so the CPU time of each is shown. After each row every record must be in the table once.
package main

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"observability-hub/e2e/fleet"
	"observability-hub/e2e/postgres"
)

// spread is the RandomizedDelaySec= of system-metrics.timer: the hosts send in this part of each minute.
const spread = 50 * time.Second

// server has the settings that matter here: those of a small server with Debian's defaults, which syncs each commit to disk.
var server = []string{"fsync = on", "autovacuum = on", "max_connections = 100", "shared_buffers = '512MB'", "max_wal_size = '4GB'", "min_wal_size = '1GB'"}

// pooler has PgBouncer's default number of sessions, and a file descriptor for each host of a burst.
var pooler = []string{"max_client_conn = 10000", "default_pool_size = 20", "log_connections = 0", "log_disconnections = 0"}

// scene is one row of a table.
type scene struct {
	hosts   int
	pooled  bool
	minutes int // --flush-every, at least 1
	samples int // that each host has to send
}

// rate is the number of flushes in a second, while the hosts of a minute send.
func (s scene) rate() float64 { return float64(s.hosts) / float64(s.minutes) / spread.Seconds() }

func main() {
	seconds := flag.Float64("seconds", 10, "length of each measurement")
	only := flag.String("only", "", "measure only the tables whose titles contain this text")
	flag.Parse()
	if err := run(*seconds, *only); err != nil {
		fmt.Fprintln(os.Stderr, "fleet: error:", err)
		os.Exit(1)
	}
}

func run(seconds float64, only string) error {
	dir, err := os.MkdirTemp("/dev/shm", "hub-fleet-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	// After a signal, e2e/postgres stops the servers and ends this process.
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-signals
		_ = os.RemoveAll(dir)
	}()
	hosts, err := fleet.Build(dir)
	if err != nil {
		return err
	}
	c, p, stop, err := start(server)
	if err != nil {
		return err
	}
	defer stop()
	b := &bench{hosts: hosts, dir: dir, c: c, p: p, seconds: seconds}

	fmt.Printf("Measured with `make bench-fleet` at %s: %s, %d CPUs, %s. %g seconds for each row.\n",
		time.Now().UTC().Format("2006-01-02 15:04 UTC"), b.version(), runtime.NumCPU(), memory(), seconds)
	if only == "" {
		if err := steps(hosts, dir); err != nil {
			return err
		}
	}
	for _, table := range []struct {
		title   string
		pooled  bool
		minutes int
		samples int
		hosts   []int
	}{
		{"Every minute, without a pooler", false, 1, 1, []int{100, 1000, 2500, 5000, 10_000, 15_000}},
		{"Every minute, through PgBouncer", true, 1, 1, []int{100, 1000, 5000, 10_000, 20_000, 30_000, 50_000}},
		{"`--flush-every 10m`, through PgBouncer", true, 10, 10, []int{10_000, 50_000, 100_000, 150_000, 200_000, 300_000}},
		{"Every minute, through PgBouncer, in the first minute after the database was down for half an hour", true, 1, 30, []int{1000, 5000, 10_000}},
	} {
		if !strings.Contains(strings.ToLower(table.title), strings.ToLower(only)) {
			continue
		}
		fmt.Printf("\n%s:\n\n%s\n%s\n", table.title, header, strings.Repeat("|---", strings.Count(header, "|")-1)+"|")
		var last *result
		for _, n := range table.hosts {
			r, err := b.measure(scene{n, table.pooled, table.minutes, table.samples})
			if err != nil {
				return err
			}
			fmt.Println(r)
			if r.over() {
				fmt.Printf("\nHere it breaks: %s.\n", r.broken())
				break
			}
			last = r
		}
		if last != nil {
			// The hosts and the pooler share the machine here. This is what the database alone could do.
			each := last.database / last.done()
			fmt.Printf("\nThe database uses %.1f ms of CPU for a flush, so two CPUs of it are used up by %s hosts, without room for anything else.\n",
				each*1e3, thousands(int(2/each*spread.Seconds()*float64(table.minutes))/1000*1000))
		}
	}
	return nil
}

// start starts a server, and a pooler before it. The caller calls stop after the last use of them.
func start(conf []string) (c *postgres.Cluster, p *postgres.Pooler, stop func(), err error) {
	c, err = postgres.New(postgres.Config{TCP: true, OnDisk: true, Conf: conf})
	if err != nil {
		return nil, nil, nil, err
	}
	p, err = postgres.NewPooler(c, pooler...)
	if err != nil {
		c.Close()
		return nil, nil, nil, err
	}
	return c, p, func() {
		p.Close()
		c.Close()
	}, nil
}

// bench is what all rows use.
type bench struct {
	hosts   *fleet.Binary
	dir     string
	c       *postgres.Cluster
	p       *postgres.Pooler
	seconds float64
	runs    int
}

func (b *bench) version() string {
	rows, err := b.c.Query("SELECT split_part(version(), ' ', 1) || ' ' || split_part(version(), ' ', 2)")
	if err != nil {
		return err.Error()
	}
	return rows[0][0]
}

func memory() string {
	data, _ := os.ReadFile("/proc/meminfo")
	var kib int
	_, _ = fmt.Sscanf(string(data), "MemTotal: %d kB", &kib)
	return fmt.Sprintf("%.0f GiB", float64(kib)/(1<<20))
}

// result is one row.
type result struct {
	scene
	fleet.Report
	seconds                 float64
	database, pooler, fleet float64 // CPUs in use
	busy                    float64 // CPUs of the machine in use, also by others
	rows                    int
	wal, disk               float64 // bytes for a flush, and for a host and day
}

const header = "| hosts | flushes/s wanted | done | p50 | p99 | longest | failed | rows/s | CPUs: database | PgBouncer | hosts | machine | database a flush | WAL a flush | disk a host-day |"

func (r *result) String() string {
	done := r.done()
	return fmt.Sprintf("| %s | %.0f | %.0f | %.0f ms | %.0f ms | %.0f ms | %d | %.0f | %.2f | %.2f | %.2f | %.2f | %.1f ms | %.0f kB | %.1f MB |",
		thousands(r.hosts), r.rate(), done, r.P50*1e3, r.P99*1e3, r.Max*1e3, r.Failed, float64(r.rows)/r.took(),
		r.database, r.pooler, r.fleet, r.busy, r.database/done*1e3, r.wal/1e3, r.disk/1e6)
}

func (r *result) took() float64 { return r.Ended.Sub(r.Began).Seconds() }
func (r *result) done() float64 { return float64(r.Flushes) / r.took() }

// over reports whether the server cannot serve so many hosts.
func (r *result) over() bool { return r.Failed > 0 || r.P99 > 1 }

// broken says what went wrong.
func (r *result) broken() string {
	text := fmt.Sprintf("p99 is %.1f s; %d of %d flushes failed, their hosts sent the records later, and no record was lost or doubled", r.P99, r.Failed, r.Flushes)
	for _, message := range slices.Sorted(maps.Keys(r.Errors)) {
		text += fmt.Sprintf("; %d × `%s`", r.Errors[message], message)
	}
	return text
}

func thousands(n int) string {
	if n < 1000 {
		return fmt.Sprint(n)
	}
	return fmt.Sprintf("%d,%03d", n/1000, n%1000)
}

// measure lets a part of a minute's hosts send, at the rate of all of them.
func (b *bench) measure(s scene) (*result, error) {
	b.runs++
	order := fleet.Order{Name: fmt.Sprintf("r%02d-", b.runs), Hosts: max(int(s.rate()*b.seconds), 1), Seconds: b.seconds, Samples: s.samples, Seed: uint64(b.runs)}
	url := b.c.TCPURL()
	if s.pooled {
		url = b.p.URL()
	}
	// The table exists, and the server has written what the rows before left to write.
	warm := order
	warm.Name, warm.Hosts, warm.Seconds = "warm", 20, 0.5
	if _, err := b.c.PSQL("DROP TABLE IF EXISTS system_metrics"); err != nil {
		return nil, err
	}
	if _, err := b.hosts.Run(b.dir, url, warm); err != nil {
		return nil, err
	}
	if _, err := b.c.PSQL("TRUNCATE system_metrics; CHECKPOINT"); err != nil {
		return nil, err
	}
	before, err := b.look()
	if err != nil {
		return nil, err
	}
	r := &result{scene: s, seconds: b.seconds}
	if r.Report, err = b.hosts.Run(b.dir, url, order); err != nil {
		return nil, err
	}
	after, err := b.look()
	if err != nil {
		return nil, err
	}
	// The time in which the fleet made its hosts, or sent again, is not that of the measurement, but the server's work is for
	// the flushes.
	r.database, r.pooler, r.fleet = (after.database-before.database)/r.took(), (after.pooler-before.pooler)/r.took(), r.CPU/r.took()
	r.busy = (after.busy - before.busy) / after.at.Sub(before.at).Seconds()
	r.wal = (after.wal - before.wal) / float64(r.Flushes)
	return r, b.check(r, order)
}

// check counts the rows, and their bytes.
func (b *bench) check(r *result, order fleet.Order) error {
	rows, err := b.c.Query(`SELECT count(*), count(DISTINCT (time, host, metric_type)),
		(SELECT sum(pg_total_relation_size(inhrelid)) FROM pg_inherits WHERE inhparent = 'system_metrics'::regclass) FROM system_metrics`)
	if err != nil {
		return err
	}
	var distinct int
	if _, err := fmt.Sscan(strings.Join(rows[0], " "), &r.rows, &distinct, &r.disk); err != nil {
		return err
	}
	samples := order.Hosts * order.Samples
	r.disk *= 24 * 60 / float64(samples)
	if want := samples * b.hosts.Records(); r.rows != want || distinct != want || r.Lost+r.Waiting != 0 {
		return fmt.Errorf("%d hosts: %d rows, %d of them different, %d records lost, %d in spools; want %d rows: %s", r.hosts, r.rows, distinct, r.Lost, r.Waiting, want,
			r.broken())
	}
	return nil
}

// usage is what was used up to a moment, in seconds and bytes.
type usage struct {
	at                     time.Time
	database, pooler, busy float64
	wal                    float64
}

func (b *bench) look() (u usage, err error) {
	database, err := b.c.CPU()
	if err != nil {
		return u, err
	}
	pooler, err := b.p.CPU()
	if err != nil {
		return u, err
	}
	rows, err := b.c.Query("SELECT pg_current_wal_lsn() - '0/0'::pg_lsn")
	if err != nil {
		return u, err
	}
	if _, err := fmt.Sscan(rows[0][0], &u.wal); err != nil {
		return u, err
	}
	stat, err := os.ReadFile("/proc/stat")
	if err != nil {
		return u, err
	}
	// proc_stat(5): user nice system idle iowait irq softirq steal, in 1/100 s.
	var t [8]float64
	if _, err := fmt.Sscanf(string(stat), "cpu %f %f %f %f %f %f %f %f", &t[0], &t[1], &t[2], &t[3], &t[4], &t[5], &t[6], &t[7]); err != nil {
		return u, err
	}
	u.at, u.database, u.pooler = time.Now(), database.Seconds(), pooler.Seconds()
	u.busy = (t[0] + t[1] + t[2] + t[5] + t[6]) / 100
	return u, nil
}

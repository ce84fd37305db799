// Readsync measures readsync with a large collection: how long a million documents take, where the time goes, whether the
// memory grows, and what two hosts that sync at the same time do.
//
//   - one run: a collection, synced by one readsync.
//   - two runs: the same collection, synced by two readsync with their own state directories, as on two hosts.
//   - two halves: two collections of half the size on one MongoDB, each synced by its own readsync into the same table. This
//     is the most that two hosts could gain if each took only its share of the documents.
//   - two halves, two servers: the same, with a MongoDB for each half.
//
// Run it as root from the project's directory: make bench-readsync, or go run ./e2e/scale/readsync -n 200000. MongoDB is the
// server of package mongowire, in its own process, with the documents in memory: a million need about 2 GB. PostgreSQL is
// real, with fsync on. All share the processors of this machine.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"observability-hub/e2e/dependent"
	"observability-hub/e2e/postgres"
	"observability-hub/e2e/workspace"
)

func main() {
	b := &bench{}
	flag.IntVar(&b.documents, "n", 1_000_000, "documents")
	flag.IntVar(&b.size, "size", 1024, "bytes of a document")
	serve := flag.String("serve", "", "internal: be a MongoDB with these collections, NAME=FIRST-END,...")
	flag.Parse()
	var err error
	if *serve != "" {
		err = serveMongo(*serve, b.size)
	} else {
		err = errors.Join(b.run(os.Stdout), workspace.Clean())
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "readsync bench: error: %v\n", err)
		os.Exit(1)
	}
}

// bench is one run of this program.
type bench struct {
	documents, size int

	work, tool string
	pg         *postgres.Cluster
	bytes      int64 // of the table and its indexes after the last way
}

// way is a way to sync all documents.
type way struct {
	name    string
	servers []string // the collections of each MongoDB, as -serve takes them
	runs    []target // what each readsync syncs
}

// target is a collection of one of the servers.
type target struct {
	server     int
	collection string
}

// measured is the result of a way.
type measured struct {
	wall                  time.Duration
	client, mongo, server time.Duration // CPU time of all readsync, of MongoDB, of PostgreSQL
	reports               []report
}

// report is the synced record of a run, and its memory.
type report struct {
	Read, Inserted, Identical, Differing, Rejected, Marked, Unmarked int64

	wall        time.Duration
	early, late int64 // largest resident memory in the first and in the last quarter of the samples, bytes
	peak        int64
}

func (b *bench) run(w io.Writer) (err error) {
	began := time.Now()
	if b.tool, err = workspace.Binary("readsync"); err != nil {
		return err
	}
	if b.work, err = os.MkdirTemp("", "hub-readsync-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(b.work)) }()
	b.pg, err = postgres.New(postgres.Config{OnDisk: true,
		Conf: []string{"fsync = on", "wal_sync_method = fdatasync", "shared_buffers = '256MB'", "max_wal_size = '2GB'", "autovacuum = on"}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.pg.Close()) }()
	all, half := fmt.Sprintf("readings=0-%d", b.documents), b.documents/2
	first, second := fmt.Sprintf("first=0-%d", half), fmt.Sprintf("second=%d-%d", half, b.documents)
	ways := []way{
		{"one run", []string{all}, []target{{0, "readings"}}},
		{"two runs, same collection", []string{all}, []target{{0, "readings"}, {0, "readings"}}},
		{"two runs, half each", []string{first + "," + second}, []target{{0, "first"}, {0, "second"}}},
		{"two runs, half each, two MongoDB", []string{first, second}, []target{{0, "first"}, {1, "second"}}},
	}
	fmt.Fprintf(w, "%d documents of %d bytes; %s, %d CPUs shared by readsync, MongoDB (our own, in memory) and PostgreSQL (fsync on); load of the machine before: %s.\n\n",
		b.documents, b.size, runtime.GOARCH, runtime.NumCPU(), load())
	fmt.Fprintln(w, "| way | wall s | documents/s | µs a document | CPU s: readsync | MongoDB | PostgreSQL | CPUs busy with it |")
	fmt.Fprintln(w, "|---|---|---|---|---|---|---|---|")
	var results []measured
	for _, one := range ways {
		m, err := b.measure(one)
		if err != nil {
			return fmt.Errorf("%s: %w", one.name, err)
		}
		results = append(results, m)
		n := float64(b.documents)
		fmt.Fprintf(w, "| %s | %.1f | %.0f | %.1f | %.1f | %.1f | %.1f | %.2f |\n", one.name, m.wall.Seconds(), n/m.wall.Seconds(), m.wall.Seconds()*1e6/n,
			m.client.Seconds(), m.mongo.Seconds(), m.server.Seconds(), (m.client+m.mongo+m.server).Seconds()/m.wall.Seconds())
	}
	fmt.Fprintln(w, "\n| way | run | wall s | read | inserted | identical | marked | already marked | memory at first, MiB | at last | peak |")
	fmt.Fprintln(w, "|---|---|---|---|---|---|---|---|---|---|---|")
	for i, m := range results {
		for k, r := range m.reports {
			fmt.Fprintf(w, "| %s | %d | %.1f | %d | %d | %d | %d | %d | %.1f | %.1f | %.1f |\n", ways[i].name, k+1, r.wall.Seconds(), r.Read, r.Inserted, r.Identical, r.Marked, r.Unmarked, mib(r.early), mib(r.late), mib(r.peak))
		}
	}
	fmt.Fprintf(w, "\nEach way ended with %d rows, one for each document, and no document left as ingested. The table takes %d bytes a row with its indexes. It took %.0f s.\n",
		b.documents, b.bytes/int64(b.documents), time.Since(began).Seconds())
	return nil
}

func mib(bytes int64) float64 { return float64(bytes) / (1 << 20) }

func load() string {
	text, _ := os.ReadFile("/proc/loadavg")
	first, _, _ := strings.Cut(string(text), " ")
	return first
}

// measure fills the servers, runs every readsync of a way at the same time, and checks the result.
func (b *bench) measure(one way) (m measured, err error) {
	var uris []string
	var pids []int
	for _, collections := range one.servers {
		uri, pid, stop, err := b.startMongo(collections)
		if err != nil {
			return m, err
		}
		defer stop()
		uris, pids = append(uris, uri), append(pids, pid)
	}
	if err := b.pg.Exec(`SET ROLE hub; DROP TABLE IF EXISTS reading_analytics; CREATE TABLE reading_analytics (id serial PRIMARY KEY, mongo_id text UNIQUE NOT NULL,
		event_timestamp timestamptz, source text, event_type text, payload jsonb, meta jsonb, created_at timestamptz DEFAULT now()); RESET ROLE; CHECKPOINT`); err != nil {
		return m, err
	}
	postmaster, err := b.postmaster()
	if err != nil {
		return m, err
	}
	env := func(i int) []string {
		t := one.runs[i]
		return []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=" + b.work, "READSYNC_STATE_DIR=" + filepath.Join(b.work, fmt.Sprint("host-", i+1)), "MONGO_URI=" + uris[t.server],
			"MONGO_DB_NAME=hub", "MONGO_COLLECTION=" + t.collection, "DATABASE_URL=" + b.pg.URL()}
	}
	mongoBefore, serverBefore, err := cpuOf(pids, postmaster)
	if err != nil {
		return m, err
	}
	m.reports = make([]report, len(one.runs))
	cpu, errs := make([]time.Duration, len(one.runs)), make([]error, len(one.runs))
	began := time.Now()
	var all sync.WaitGroup
	for i := range one.runs {
		all.Go(func() { m.reports[i], cpu[i], errs[i] = sync1(b.tool, env(i)) })
	}
	all.Wait()
	m.wall = time.Since(began)
	if err := errors.Join(errs...); err != nil {
		return m, err
	}
	mongo, server, err := cpuOf(pids, postmaster)
	if err != nil {
		return m, err
	}
	m.mongo, m.server = mongo-mongoBefore, server-serverBefore
	var inserted int64
	for i, r := range m.reports {
		m.client += cpu[i]
		inserted += r.Inserted
	}
	rows, err := b.pg.Query("SELECT count(*), count(DISTINCT mongo_id), pg_total_relation_size('reading_analytics') FROM reading_analytics")
	if err != nil {
		return m, err
	}
	b.bytes, _ = strconv.ParseInt(rows[0][2], 10, 64)
	want := strconv.Itoa(b.documents)
	if rows[0][0] != want || rows[0][1] != want || inserted != int64(b.documents) {
		return m, fmt.Errorf("%s rows with %s ids, %d inserted; want %s", rows[0][0], rows[0][1], inserted, want)
	}
	// A dry run reads every document that is still ingested.
	for i := range one.runs {
		left, _, err := sync1(b.tool, env(i), "--dry-run")
		if err != nil || left.Read != 0 {
			return m, fmt.Errorf("%d documents of run %d are still ingested: %w", left.Read, i+1, err)
		}
	}
	return m, nil
}

// sync1 runs readsync and watches its memory.
func sync1(tool string, env []string, flags ...string) (r report, cpu time.Duration, err error) {
	cmd := exec.Command(tool, append([]string{"run"}, flags...)...)
	cmd.Env = env
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return r, 0, err
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	var samples []int64
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for running := true; running; {
		select {
		case err = <-done:
			running = false
		case <-tick.C:
			if now, peak := memory(cmd.Process.Pid); now > 0 {
				samples, r.peak = append(samples, now), peak
			}
		}
	}
	r.wall = time.Since(began)
	if err != nil {
		return r, 0, fmt.Errorf("readsync run: %w\n%s%s", err, &out, &errs)
	}
	for i, s := range samples {
		switch {
		case i < len(samples)/4+1:
			r.early = max(r.early, s)
		case i >= len(samples)*3/4:
			r.late = max(r.late, s)
		}
	}
	for line := range strings.Lines(out.String()) {
		var one struct {
			Msg string
			report
		}
		if json.Unmarshal([]byte(line), &one) == nil && (one.Msg == "synced" || one.Msg == "sync_planned") {
			one.report.wall, one.report.early, one.report.late, one.report.peak = r.wall, r.early, r.late, r.peak
			r = one.report
		}
	}
	return r, cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(), nil
}

// memory returns the resident memory of a process and its peak, in bytes. The peak that wait4(2) returns is no use here,
// because a child inherits it from its parent.
func memory(pid int) (now, peak int64) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, 0
	}
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		n, _ := strconv.ParseInt(fields[1], 10, 64)
		switch fields[0] {
		case "VmRSS:":
			now = n << 10
		case "VmHWM:":
			peak = n << 10
		}
	}
	return now, peak
}

// startMongo starts a MongoDB that is full when this function returns.
func (b *bench) startMongo(collections string) (uri string, pid int, stop func(), err error) {
	self, err := os.Executable()
	if err != nil {
		return "", 0, nil, err
	}
	cmd := exec.Command(self, "-serve", collections, "-size", strconv.Itoa(b.size))
	cmd.Stderr = os.Stderr
	out, in, err := os.Pipe()
	if err != nil {
		return "", 0, nil, err
	}
	cmd.Stdout = in
	finished, err := dependent.Start(cmd)
	in.Close()
	if err != nil {
		out.Close()
		return "", 0, nil, err
	}
	stop = func() {
		_ = cmd.Process.Signal(syscall.SIGKILL)
		<-finished
		out.Close()
	}
	uri, err = bufio.NewReader(out).ReadString('\n')
	if err != nil {
		stop()
		return "", 0, nil, fmt.Errorf("MongoDB: %w", err)
	}
	return strings.TrimSpace(uri), cmd.Process.Pid, stop, nil
}

func (b *bench) postmaster() (int, error) {
	text, err := os.ReadFile(filepath.Join(b.pg.Dir, "data", "postmaster.pid"))
	if err != nil {
		return 0, err
	}
	first, _, _ := strings.Cut(string(text), "\n")
	return strconv.Atoi(first)
}

// cpuOf returns the CPU time of the MongoDB processes, and of PostgreSQL with its children, those that have ended included.
func cpuOf(mongo []int, postmaster int) (mongoCPU, pgCPU time.Duration, err error) {
	processes, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return 0, 0, err
	}
	for _, path := range processes {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		id, rest, _ := strings.Cut(string(text), " ")
		fields := strings.Fields(rest[strings.LastIndexByte(rest, ')')+1:])
		if len(fields) < 15 {
			continue
		}
		pid, _ := strconv.Atoi(id)
		parent, _ := strconv.Atoi(fields[1])
		ticks := func(i int) time.Duration {
			n, _ := strconv.ParseInt(fields[i], 10, 64)
			return time.Duration(n) * 10 * time.Millisecond // USER_HZ is 100
		}
		own, children := ticks(11)+ticks(12), ticks(13)+ticks(14)
		switch {
		case pid == postmaster:
			pgCPU += own + children
		case parent == postmaster:
			pgCPU += own
		}
		for _, m := range mongo {
			if pid == m {
				mongoCPU += own
			}
		}
	}
	return mongoCPU, pgCPU, nil
}

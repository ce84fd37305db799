package e2e

import (
	"bufio"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"observability-hub/e2e/postgres"
	"observability-hub/e2e/torture"
)

// key is one record of the fixture host: the n-th sample's metric type.
type key struct {
	sample int
	kind   string
}

var kinds = []string{"cpu", "disk", "memory", "network"}

// ledger knows which records are safe: seen in the spool or in the table after a run, or promised by a run's exit status. From then on
// each has to stay in one of the two, and to end in the table exactly once.
type ledger struct {
	tb   testing.TB
	c    *postgres.Cluster
	m    *tool
	safe map[key]bool

	samples, kills, runsFailed int
	refused                    int // runs that said that they could not keep their sample
}

func newLedger(tb testing.TB, c *postgres.Cluster, m *tool) *ledger {
	return &ledger{tb: tb, c: c, m: m, safe: map[key]bool{}}
}

// promise notes that all records of a sample have to be there at the end.
func (l *ledger) promise(sample int) {
	for _, kind := range kinds {
		l.safe[key{sample, kind}] = true
	}
}

// inSpool reads the keys of the spool's whole lines.
func (l *ledger) inSpool() map[key]bool {
	l.tb.Helper()
	found := map[key]bool{}
	for _, r := range l.m.spooled("spool.jsonl") {
		found[key{sampleNumber(r.Time), r.MetricType}] = true
	}
	return found
}

// inTable reads the keys of the table's rows and fails the test for each that is there twice. ok is false while the server cannot say.
func (l *ledger) inTable() (found map[key]bool, ok bool) {
	l.tb.Helper()
	if !l.c.Running() {
		return nil, false
	}
	rows, err := l.c.Query("SELECT extract(epoch FROM time)::float8::text, metric_type FROM system_metrics")
	if err != nil {
		return nil, false
	}
	found = make(map[key]bool, len(rows))
	for _, row := range rows {
		seconds, err := strconv.ParseFloat(row[0], 64)
		if err != nil {
			l.tb.Fatal(err)
		}
		k := key{sampleNumber(time.UnixMilli(int64(seconds * 1000))), row[1]}
		if found[k] {
			l.tb.Errorf("sample %d has two rows of %s", k.sample, k.kind)
		}
		found[k] = true
	}
	return found, true
}

// check looks at both places after the run that took sample, and says in the failure what had just happened.
func (l *ledger) check(sample int, got outcome, event string) {
	l.tb.Helper()
	l.samples++
	spool := l.inSpool()
	table, readable := l.inTable()
	killed := got.status == 128+int(syscall.SIGKILL)
	switch {
	case killed:
		l.kills++
	case got.status == exitUnavailable:
		l.runsFailed++
		for _, kind := range kinds {
			if k := (key{sample, kind}); !spool[k] && !(readable && table[k]) {
				l.tb.Errorf("sample %d, %s: exit status %d, but its %s record is not in the spool", sample, event, got.status, kind)
			}
		}
		l.promise(sample)
	case got.status == 0:
		l.promise(sample)
	case got.status == exitCantCreate && strings.Contains(got.stderr, "no space left"):
		l.refused++
	default:
		l.tb.Errorf("sample %d, %s: exit status %d: %s", sample, event, got.status, got.stderr)
	}
	for _, found := range []map[key]bool{spool, table} {
		for k := range found {
			l.safe[k] = true
		}
	}
	if readable {
		for k := range l.safe {
			if !spool[k] && !table[k] {
				l.tb.Errorf("sample %d, %s: the %s record of sample %d was safe and is gone\nstderr: %s", sample, event, k.kind, k.sample, got.stderr)
				delete(l.safe, k) // say it once
			}
		}
	}
	if l.tb.Failed() {
		l.tb.FailNow()
	}
}

// whole lets a minute pass and runs the tool from start to end, without a fault of its own.
func (l *ledger) whole(m *tool, host *fixtureHost, event string) outcome {
	l.tb.Helper()
	host.tick(l.tb)
	got := m.want(0, "", collect(host)...)
	l.check(host.ticks, got, event)
	return got
}

// settle is the end: the table has to hold every safe record once and nothing else, the spool nothing.
func (l *ledger) settle() {
	l.tb.Helper()
	table, ok := l.inTable()
	if !ok {
		l.tb.Fatal("the table cannot be read at the end")
	}
	lost := 0
	for k := range l.safe {
		if !table[k] {
			lost++
			l.tb.Errorf("lost: the %s record of sample %d", k.kind, k.sample)
		}
	}
	whole := map[int]int{}
	for k := range table {
		whole[k.sample]++
	}
	rows, err := l.c.Query("SELECT count(*), count(*) - count(DISTINCT (time, host, metric_type)) FROM system_metrics")
	if err != nil {
		l.tb.Fatal(err)
	}
	// Killed while the server was down, a sample's fate shows only now.
	untaken, torn := 0, 0
	for sample := range l.samples {
		switch whole[sample] {
		case 0:
			untaken++
		case len(kinds):
		default:
			torn++
		}
	}
	l.tb.Logf("%d samples, %d kills, of these %d before the sample was taken and %d while it was being written, %d runs without database, %d without space: %s rows, %s duplicates, %d losses",
		l.samples, l.kills, max(0, untaken-l.refused), torn, l.runsFailed, l.refused, rows[0][0], rows[0][1], lost)
	if rows[0][1] != "0" {
		l.tb.Errorf("%s duplicates", rows[0][1])
	}
	if untaken+torn > l.kills+l.refused {
		l.tb.Errorf("%d samples are missing or not whole, but only %d runs were killed or refused them", untaken+torn, l.kills+l.refused)
	}
	if left := l.inSpool(); len(left) != 0 {
		l.tb.Errorf("%d records are still in the spool", len(left))
	}
	if refused := l.m.spooled("rejected.jsonl"); len(refused) != 0 {
		l.tb.Errorf("%d records were set aside as refused; a fault of the server is not their fault", len(refused))
	}
}

// collect is the command that the timer runs, with little patience.
func collect(h *fixtureHost) []string {
	return append([]string{"collect", "--flush", "--timeout", "2s"}, h.args()...)
}

// TestFaults is the fault run of the issue: the server stops, starts, is killed and runs out of disk, before and during the runs of
// a tool that is itself killed at random moments and at chosen system calls.
func TestFaults(t *testing.T) {
	samples := 45
	if torture.Full {
		samples = 500
	}
	for i, table := range []int{0, 2} { // the old one has no unique index to lean on
		t.Run(tables[table].name, func(t *testing.T) {
			random := torture.Random(t, uint64(i))

			c := postgres.Run(t, postgres.Config{Disk: 96 << 20})
			tables[table].make(t, c)
			// A killed run's statement often outlives it in the server, and races with the next run.
			slow(t, c, "random() * 0.05")
			m := sysmetrics(t, "DATABASE_URL="+c.URL())
			host := newFixtureHost(t, "web1")
			l := newLedger(t, c, m)
			server := &faultyServer{Cluster: c, random: random, counts: map[string]int{}}

			var typical time.Duration
			for range 3 { // how long a run takes here, so that the kills fall into it
				typical = max(typical, l.whole(m, host, "rehearsal").took)
			}
			points := killPoints(t, m, host, l)

			for host.ticks < samples-1 {
				event := server.before(t)
				host.tick(t)
				cmd := m.command("", collect(host)...)
				var killAfter time.Duration
				switch n := random.IntN(10); {
				case n < 4:
					killAfter = time.Duration(random.Int64N(int64(typical) * 5 / 4))
					event += fmt.Sprintf(", killed after %s", killAfter)
				case n < 7:
					p := points[random.IntN(len(points))]
					p.arm(t, cmd)
					event += fmt.Sprintf(", killed at %s", p)
				}
				during := server.during(typical)
				if during != nil {
					event += ", " + during.name + " meanwhile"
				}
				got := runThrough(t, cmd, killAfter, during)
				l.check(host.ticks, got, event)
			}

			if err := c.Empty(); err != nil {
				t.Fatal(err)
			}
			for range 2 { // the first may find the orphan of a killed run still at work in the server
				l.whole(m, host, "end")
			}
			t.Logf("faults of the server: %v", server.counts)
			l.settle()
		})
	}
}

// faultyServer chooses what happens to the server around each run.
type faultyServer struct {
	*postgres.Cluster
	random *rand.Rand
	full   bool
	counts map[string]int
}

// before changes the server's condition ahead of a run, or leaves it. It gives the condition.
func (s *faultyServer) before(tb testing.TB) string {
	tb.Helper()
	do := func(name string, f func() error) string {
		s.counts[name]++
		if err := f(); err != nil {
			tb.Fatalf("%s: %v", name, err)
		}
		return name
	}
	switch {
	case s.full && s.random.IntN(2) == 0:
		s.full = false
		return do("emptied", s.Empty)
	case s.full:
		return "full"
	case !s.Running() && s.random.IntN(2) == 0:
		return do("started", s.Start)
	case !s.Running():
		return "down"
	}
	switch s.random.IntN(16) {
	case 0:
		return do("stopped", s.Stop)
	case 1:
		return do("crashed", s.Crash)
	case 2:
		return do("killed", s.Kill9)
	case 3:
		s.full = true
		return do("filled", s.Fill)
	case 4:
		s.full = true
		return do("filled to the log", func() error {
			err := s.Fill()
			// A new segment of the log is where a full disk takes the server down.
			_ = s.Exec("INSERT INTO system_metrics SELECT now(), 'filler', '', 'filler', '{}'; SELECT pg_switch_wal()")
			_ = s.Exec("DELETE FROM system_metrics WHERE host = 'filler'; SELECT pg_switch_wal()")
			return err
		})
	case 5:
		return do("killed and started", func() error { return errors.Join(s.Kill9(), s.Start()) })
	}
	return "up"
}

// fault is something that happens to the server in the middle of a run.
type fault struct {
	name  string
	after time.Duration
	do    func() error
	undo  func() error // after the run
}

// during gives the fault to come in the middle of the next run, nil for none.
func (s *faultyServer) during(typical time.Duration) *fault {
	if !s.Running() || s.full {
		return nil
	}
	f := &fault{after: time.Duration(s.random.Int64N(int64(typical))), undo: func() error { return nil }}
	switch s.random.IntN(20) {
	case 0, 1:
		f.name, f.do = "server killed", s.Kill9
	case 2:
		f.name, f.do = "server crashed", s.Crash
	case 3:
		f.name, f.do = "server stopped", s.Stop
	case 4:
		// What the server was told before it froze it does after the thaw, when the next run replays the same records.
		f.name, f.do, f.undo = "server frozen", s.Freeze, s.Thaw
	case 5:
		f.name, f.do, f.undo = "disk filled", s.Fill, s.Empty
	default:
		return nil
	}
	s.counts[f.name]++
	return f
}

// runThrough runs the command, kills it after a while if that is not 0, and lets a fault of the server happen meanwhile.
func runThrough(tb testing.TB, cmd *exec.Cmd, killAfter time.Duration, during *fault) outcome {
	tb.Helper()
	done := make(chan error, 1)
	if during != nil {
		go func() {
			<-time.After(during.after)
			done <- during.do()
		}()
	} else {
		done <- nil
	}
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	began := time.Now()
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	if killAfter > 0 {
		timer := time.AfterFunc(killAfter, func() { _ = cmd.Process.Kill() })
		defer timer.Stop()
	}
	var exited *exec.ExitError
	if err := cmd.Wait(); err != nil && !errors.As(err, &exited) {
		tb.Fatal(err)
	}
	got := outcome{status: exitStatus(cmd.ProcessState), stdout: stdout.String(), stderr: stderr.String(), took: time.Since(began)}
	if err := <-done; err != nil {
		tb.Fatalf("%s: %v", during.name, err)
	}
	if during != nil {
		if err := during.undo(); err != nil {
			tb.Fatalf("after %s: %v", during.name, err)
		}
	}
	return got
}

// killPoint is the moment before a thread's n-th call of a kind.
type killPoint struct {
	call string
	n    int
}

func (p killPoint) String() string { return fmt.Sprintf("%s %d", p.call, p.n) }

// arm makes the command die there: strace delivers the signal on entering the call, which then does not happen.
func (p killPoint) arm(tb testing.TB, cmd *exec.Cmd) {
	tb.Helper()
	// Not with --seccomp-bpf: strace 6.1 then counts no further than the first call.
	traced(tb, cmd, "-f", "-qq", "-o", "/dev/null", "-e", "trace="+p.call, "-e", fmt.Sprintf("inject=%s:signal=KILL:when=%d", p.call, p.n))
	// One processor, so that fewer threads share the calls that strace counts per thread.
	cmd.Env = append(cmd.Env, "GOMAXPROCS=1")
}

// steps are the calls between which a kill makes a difference to files or to the server.
var steps = []string{"openat", "write", "writev", "pwrite64", "sendto", "fsync", "fdatasync", "ftruncate", "fallocate", "rename", "renameat", "renameat2", "linkat", "unlink", "unlinkat", "mkdirat", "fchmod", "fchmodat", "flock", "connect", "read", "recvfrom", "close", "exit_group"}

// killPoints watches one run that replays a record of the spool and inserts its own, and lists the steps it took.
func killPoints(tb testing.TB, m *tool, host *fixtureHost, l *ledger) []killPoint {
	tb.Helper()
	l.whole(m.with(), host, "without database")
	trace := filepath.Join(tb.TempDir(), "trace")
	host.tick(tb)
	cmd := m.command("", collect(host)...)
	traced(tb, cmd, "-f", "-qq", "-o", trace, "-e", "trace="+strings.Join(known(tb, steps), ","))
	got := finish(tb, cmd)
	l.check(host.ticks, got, "traced")
	log, err := os.Open(trace)
	if err != nil {
		tb.Fatal(err)
	}
	defer log.Close()
	call := regexp.MustCompile(`^\d+\s+(\w+)\(`)
	counts := map[string]int{}
	var points []killPoint
	for s := bufio.NewScanner(log); s.Scan(); {
		if found := call.FindStringSubmatch(s.Text()); found != nil {
			counts[found[1]]++
			// Dozens of files are opened and read, and nothing differs between the one and the next.
			if p := (killPoint{found[1], counts[found[1]]}); !slices.Contains([]string{"read", "close", "openat"}, p.call) || p.n%8 == 0 {
				points = append(points, p)
			}
		}
	}
	if counts["fsync"]+counts["fdatasync"] == 0 || counts["write"] == 0 {
		tb.Fatalf("the trace of a run shows no write to disk: %v", counts)
	}
	return points
}

// known leaves the calls that this machine's architecture has: arm64 has no rename, and strace refuses unknown names.
func known(tb testing.TB, calls []string) []string {
	tb.Helper()
	var have []string
	for _, call := range calls {
		if exec.Command("strace", "-qq", "-e", "trace="+call, "-o", "/dev/null", "true").Run() == nil {
			have = append(have, call)
		}
	}
	return have
}

// TestKillAtEveryStep kills a run before each of its steps in turn: with and without a backlog in the spool, with and without a server.
func TestKillAtEveryStep(t *testing.T) {
	calls := []string{"write", "sendto", "fsync", "fdatasync", "ftruncate", "rename", "renameat", "renameat2", "linkat", "unlinkat", "flock", "connect", "exit_group"}
	if torture.Full {
		calls = steps
	}
	calls = known(t, calls)
	for _, table := range tables[:2] {
		t.Run(table.name, func(t *testing.T) {
			c := postgres.Run(t, postgres.Config{})
			table.make(t, c)
			m := sysmetrics(t, "DATABASE_URL="+c.URL())
			host := newFixtureHost(t, "web1")
			l := newLedger(t, c, m)
			for _, scene := range []struct {
				name    string
				backlog bool
				env     []string
			}{
				{"nothing spooled", false, m.env},
				{"a backlog", true, m.env},
				{"the server away", false, []string{"DATABASE_URL=postgres://hub@/hub?host=/nowhere"}},
				{"no server configured", false, nil},
			} {
				before := l.kills
				for _, call := range calls {
					// strace counts by thread: a call may fall to one that has made fewer. Three runs without a hit have no such call.
					for n, missed := 1, 0; missed < 3; {
						if scene.backlog {
							l.whole(m.with(), host, "backlog")
						}
						host.tick(t)
						cmd := m.with(scene.env...).command("", collect(host)...)
						p := killPoint{call, n}
						p.arm(t, cmd)
						got := finish(t, cmd)
						l.check(host.ticks, got, scene.name+", killed at "+p.String())
						// The run after it repairs what there is to repair.
						l.whole(m, host, "after "+scene.name+", killed at "+p.String())
						if got.status == 128+int(syscall.SIGKILL) {
							n, missed = n+1, 0
						} else {
							missed++
						}
					}
				}
				// Lock, spool, its sync, counters, rename, exit: the least that any run does.
				if l.kills-before < 6 {
					t.Errorf("%s: only %d kills; a run has more steps than that", scene.name, l.kills-before)
				}
			}
			l.settle()
		})
	}
}

// TestFaultyStateDisk runs out of space for the spool, with the server away and there, killed and not: what was safe stays.
func TestFaultyStateDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("a disk that can be filled needs root: run the tests as root")
	}
	random := torture.Random(t, 2)
	c := postgres.Run(t, postgres.Config{})
	tables[0].make(t, c)
	m := sysmetrics(t, "DATABASE_URL="+c.URL())
	if err := os.MkdirAll(m.state, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("hub-e2e", m.state, "tmpfs", 0, "size=64k"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(m.state, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	host := newFixtureHost(t, "web1")
	l := newLedger(t, c, m)
	rounds := 3
	if torture.Full {
		rounds = 30
	}
	for range rounds {
		// The server is away until the disk is full, and a few runs beyond.
		for full := 0; full < 4; {
			host.tick(t)
			cmd := m.with("DATABASE_URL=postgres://hub@/hub?host=/nowhere").command("", collect(host)...)
			var killAfter time.Duration
			if random.IntN(4) == 0 {
				killAfter = time.Duration(random.Int64N(int64(20 * time.Millisecond)))
			}
			got := runThrough(t, cmd, killAfter, nil)
			if got.status == exitCantCreate {
				full++
			}
			l.check(host.ticks, got, "full state disk")
		}
		// The server is back. The disk is still full, and the spool has to drain all the same.
		for attempt := 0; len(l.inSpool()) > 0; attempt++ {
			if attempt == 5 {
				t.Fatalf("the spool still holds %d records after %d runs on a full disk", len(l.inSpool()), attempt)
			}
			host.tick(t)
			got := runThrough(t, m.command("", collect(host)...), 0, nil)
			l.check(host.ticks, got, "drain on a full disk")
		}
	}
	l.settle()
}

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

// key is one record of the fixture host: a metric type of the n-th sample.
type key struct {
	sample int
	kind   string
}

// killedStatus is how a run that was killed ends.
const killedStatus = 128 + int(syscall.SIGKILL)

var kinds = []string{"cpu", "disk", "memory", "network"}

// ledger records which records are safe: a record is safe if it was in the spool or in the table after a run, or if the exit
// status of a run promised that. From then on it must stay in one of the two, and at the end it must be in the table exactly once.
type ledger struct {
	tb   testing.TB
	c    *postgres.Cluster
	m    *tool
	safe map[key]bool

	samples, kills, runsFailed int
	refused                    int // runs that reported that they could not keep their sample
}

func newLedger(tb testing.TB, c *postgres.Cluster, m *tool) *ledger {
	return &ledger{tb: tb, c: c, m: m, safe: map[key]bool{}}
}

// promise records that all records of a sample must be in the table at the end.
func (l *ledger) promise(sample int) {
	for _, kind := range kinds {
		l.safe[key{sample, kind}] = true
	}
}

// inSpool returns the keys of the complete lines of the spool.
func (l *ledger) inSpool() map[key]bool {
	l.tb.Helper()
	found := map[key]bool{}
	for _, r := range l.m.spooled("spool.jsonl") {
		found[key{sampleNumber(r.Time), r.MetricType}] = true
	}
	return found
}

// inTable returns the keys of the table's rows, and fails the test for each key that is there twice. ok is false if the server
// does not answer.
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

// check checks both places after the run that took sample. event is named in the failure.
func (l *ledger) check(sample int, got outcome, event string) {
	l.tb.Helper()
	l.samples++
	spool := l.inSpool()
	table, readable := l.inTable()
	killed := got.status == killedStatus
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
				l.tb.Errorf("sample %d, %s: the %s record of sample %d was safe and is lost\nstderr: %s", sample, event, k.kind, k.sample, got.stderr)
				delete(l.safe, k) // report it once
			}
		}
	}
	if l.tb.Failed() {
		l.tb.FailNow()
	}
}

// whole lets a minute pass and runs the tool from start to end, without a fault.
func (l *ledger) whole(m *tool, host *fixtureHost, event string) outcome {
	l.tb.Helper()
	host.tick(l.tb)
	got := m.want(0, "", collect(host)...)
	l.check(host.ticks, got, event)
	return got
}

// settle checks the end state: the table must hold every safe record once and no other record, and the spool must be empty.
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
	// If a run was killed while the server was down, it shows only now whether its sample was kept.
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
		l.tb.Errorf("%d records were set aside as refused; a fault of the server must not set records aside", len(refused))
	}
}

// collect is the command that the timer runs, with a short timeout.
func collect(h *fixtureHost) []string {
	return append([]string{"collect", "--flush", "--timeout", "2s"}, h.args()...)
}

// TestFaults runs the tool while the server is stopped, started and killed, and while its disk is full, before and during the
// runs. The tool itself is killed at random moments and at chosen system calls.
func TestFaults(t *testing.T) {
	samples := 45
	if torture.Full {
		samples = 500
	}
	for i, table := range []int{0, 2} { // the old table has no unique index
		t.Run(tables[table].name, func(t *testing.T) {
			random := torture.Random(t, uint64(i))

			c := postgres.Run(t, postgres.Config{Disk: 96 << 20})
			tables[table].make(t, c)
			// The server often still executes the statement of a killed run, which then races with the next run.
			slow(t, c, "random() * 0.05")
			m := sysmetrics(t, "DATABASE_URL="+c.URL())
			host := newFixtureHost(t, "web1")
			l := newLedger(t, c, m)
			server := &faultyServer{Cluster: c, random: random, counts: map[string]int{}}

			var typical time.Duration
			for range 3 { // measures how long a run takes here, so that the kills hit it
				typical = max(typical, l.whole(m, host, "rehearsal").took)
			}
			points := killPoints(t, m, host, l)
			timed := torture.NewKills(random, typical)

			for host.ticks < samples-1 {
				event := server.before(t)
				host.tick(t)
				cmd := m.command("", collect(host)...)
				var killAfter time.Duration
				switch n := random.IntN(10); {
				case n < 4:
					killAfter = max(1, timed.After())
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
				if killAfter > 0 {
					timed.Add(got.status == killedStatus)
				}
				l.check(host.ticks, got, event)
			}
			timed.Check(t)

			if err := c.Empty(); err != nil {
				t.Fatal(err)
			}
			for range 2 { // during the first the server may still execute the statement of a killed run
				l.whole(m, host, "end")
			}
			t.Logf("faults of the server: %v", server.counts)
			l.settle()
		})
	}
}

// faultyServer chooses the faults of the server around each run.
type faultyServer struct {
	*postgres.Cluster
	random *rand.Rand
	full   bool
	counts map[string]int
}

// before may change the server's condition before a run. It returns the condition.
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
			// With a full disk the server stops when it needs a new segment of the log.
			_ = s.Exec("INSERT INTO system_metrics SELECT now(), 'filler', '', 'filler', '{}'; SELECT pg_switch_wal()")
			_ = s.Exec("DELETE FROM system_metrics WHERE host = 'filler'; SELECT pg_switch_wal()")
			return err
		})
	case 5:
		return do("killed and started", func() error { return errors.Join(s.Kill9(), s.Start()) })
	}
	return "up"
}

// fault is a fault of the server in the middle of a run.
type fault struct {
	name  string
	after time.Duration
	do    func() error
	undo  func() error // after the run
}

// during returns the fault for the middle of the next run, or nil.
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
		// After the thaw the server executes the statement that it got before, while the next run replays the same records.
		f.name, f.do, f.undo = "server frozen", s.Freeze, s.Thaw
	case 5:
		f.name, f.do, f.undo = "disk filled", s.Fill, s.Empty
	default:
		return nil
	}
	s.counts[f.name]++
	return f
}

// runThrough runs the command, kills it after a while if that is not 0, and injects a fault of the server meanwhile.
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

// killPoint is the moment before the n-th call of a system call in a thread.
type killPoint struct {
	call string
	n    int
}

func (p killPoint) String() string { return fmt.Sprintf("%s %d", p.call, p.n) }

// arm makes the command die at the kill point: strace sends the signal on entry to the call, which is then not executed.
func (p killPoint) arm(tb testing.TB, cmd *exec.Cmd) {
	tb.Helper()
	// Not with --seccomp-bpf: with it, strace 6.1 counts only the first call.
	traced(tb, cmd, "-f", "-qq", "-o", "/dev/null", "-e", "trace="+p.call, "-e", fmt.Sprintf("inject=%s:signal=KILL:when=%d", p.call, p.n))
	// One processor, so that the calls, which strace counts per thread, are spread over fewer threads.
	cmd.Env = append(cmd.Env, "GOMAXPROCS=1")
}

// steps are the system calls that change files or the state of the server.
var steps = []string{"openat", "write", "writev", "pwrite64", "sendto", "fsync", "fdatasync", "ftruncate", "fallocate", "rename", "renameat", "renameat2", "linkat", "unlink", "unlinkat", "mkdirat", "fchmod", "fchmodat", "flock", "connect", "read", "recvfrom", "close", "exit_group"}

// killPoints traces one run that replays a record of the spool and inserts its own, and returns its steps.
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
			// A run opens and reads dozens of files, and a kill between two of them makes no difference.
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

// known returns the calls that exist on this architecture: arm64 has no rename, and strace refuses unknown names.
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

// TestKillAtEveryStep kills a run before each of its steps in turn, with and without a backlog in the spool, with and without a server.
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
			rarely := append([]string{"SYSMETRICS_FLUSH_EVERY=30m"}, m.env...)
			for _, scene := range []struct {
				name   string
				before *tool // makes a run before each kill
				env    []string
			}{
				{"nothing spooled", nil, m.env},
				{"a backlog", m.with(), m.env},
				{"the server away", nil, []string{"DATABASE_URL=postgres://hub@/hub?host=/nowhere"}},
				{"no server configured", nil, nil},
				// The run before sent, so most of the killed ones wait for their time to send.
				{"not yet time to send", m.with(rarely...), rarely},
			} {
				before := l.kills
				for _, call := range calls {
					// strace counts per thread, and the call may be made by a thread with fewer calls. If three runs have no hit, there is no such call.
					for n, missed := 1, 0; missed < 3; {
						if scene.before != nil {
							l.whole(scene.before, host, "before "+scene.name)
						}
						host.tick(t)
						cmd := m.with(scene.env...).command("", collect(host)...)
						p := killPoint{call, n}
						p.arm(t, cmd)
						got := finish(t, cmd)
						l.check(host.ticks, got, scene.name+", killed at "+p.String())
						// The next run repairs the state.
						l.whole(m, host, "after "+scene.name+", killed at "+p.String())
						if got.status == killedStatus {
							n, missed = n+1, 0
						} else {
							missed++
						}
					}
				}
				// Every run has at least these steps: lock, spool, fsync of the spool, counters, rename, exit.
				if l.kills-before < 6 {
					t.Errorf("%s: only %d kills; a run has more steps", scene.name, l.kills-before)
				}
			}
			l.settle()
		})
	}
}

// TestFaultyStateDisk fills the disk of the spool, with and without a server, with and without kills. Safe records must stay.
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
	away := []string{"DATABASE_URL=postgres://hub@/hub?host=/nowhere"}
	host.tick(t)
	whole := finish(t, m.with(away...).command("", collect(host)...))
	l.check(host.ticks, whole, "rehearsal")
	kills := torture.NewKills(random, whole.took)
	for range rounds {
		// The server is stopped until the disk is full, and for a few more runs.
		for full := 0; full < 4; {
			host.tick(t)
			cmd := m.with(away...).command("", collect(host)...)
			var killAfter time.Duration
			if random.IntN(4) == 0 {
				killAfter = max(1, kills.After())
			}
			got := runThrough(t, cmd, killAfter, nil)
			if killAfter > 0 {
				kills.Add(got.status == killedStatus)
			}
			if got.status == exitCantCreate {
				full++
			}
			l.check(host.ticks, got, "full state disk")
		}
		// The server runs again. The disk is still full, and the spool must be inserted nevertheless.
		for attempt := 0; len(l.inSpool()) > 0; attempt++ {
			if attempt == 5 {
				t.Fatalf("the spool still holds %d records after %d runs on a full disk", len(l.inSpool()), attempt)
			}
			host.tick(t)
			got := runThrough(t, m.command("", collect(host)...), 0, nil)
			l.check(host.ticks, got, "drain on a full disk")
		}
	}
	kills.Check(t)
	l.settle()
}

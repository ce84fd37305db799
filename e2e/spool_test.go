package e2e

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"observability-hub/e2e/await"
	"observability-hub/e2e/postgres"
)

// A backlog of days is inserted in batches, oldest first. If the server dies in the middle, there is neither a gap nor a duplicate.
func TestLongBacklog(t *testing.T) {
	const minutes = 3000
	for _, table := range []int{0, 2} {
		t.Run(tables[table].name, func(t *testing.T) {
			c := postgres.Run(t, postgres.Config{})
			tables[table].make(t, c)
			slow(t, c, "0.2") // for each batch, so that the server can be killed between two batches
			m := sysmetrics(t)
			m.want(0, records("web2", minutes), "flush")
			expectSpooled(t, m, 4*minutes)

			m.env = []string{"DATABASE_URL=" + c.URL()}
			cmd := m.command("", "flush")
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			await.Until(t, "the first batch", func() bool {
				rows, err := c.Query("SELECT 1 FROM system_metrics LIMIT 1")
				return err == nil && len(rows) == 1
			})
			if err := c.Kill9(); err != nil {
				t.Fatal(err)
			}
			_ = cmd.Wait() // the status is looked at below
			if got := exitStatus(cmd.ProcessState); got != exitUnavailable {
				t.Errorf("exit status %d after the server died; want %d: %s", got, exitUnavailable, &stderr)
			}
			if err := c.Start(); err != nil {
				t.Fatal(err)
			}
			// The inserted records are the oldest ones, without a gap.
			expect(t, c, "SELECT count(*) BETWEEN 1 AND 11999, count(*) = (SELECT count(*) FROM generate_series(0, 2999) AS n, (VALUES (1), (2), (3), (4)) AS kinds "+
				"WHERE n * 4 < (SELECT count(*) FROM system_metrics)) FROM system_metrics", "t|t")
			m.want(0, "", "flush")
			expectRows(t, c, 4*minutes)
			expectSpooled(t, m, 0)
		})
	}
}

// The spool is bounded: its oldest records are dropped and counted, and the newest stay.
func TestSpoolIsBounded(t *testing.T) {
	const minutes = 2000
	input := records("web2", minutes)
	if len(input) < 3<<19 {
		t.Fatalf("%d bytes do not fill a spool of 1 MiB", len(input))
	}
	c := postgres.Run(t, postgres.Config{})
	m := sysmetrics(t)
	lines := strings.SplitAfter(input, "\n")
	dropped, spooled := 0, 0
	for len(lines) > 1 {
		n := min(len(lines), 800)
		got := m.want(0, strings.Join(lines[:n], ""), "flush", "--spool-max", "1")
		lines = lines[n:]
		f := got.flushed(t)
		dropped, spooled = dropped+f.Dropped, spooled+f.Spooled
		if info, err := os.Stat(filepath.Join(m.state, "spool.jsonl")); err != nil || info.Size() > 1<<20 {
			t.Fatalf("the spool: %v, %v; want at most 1 MiB", info.Size(), err)
		}
		if (f.Dropped > 0) != strings.Contains(got.stderr, "drop") {
			t.Errorf("%d dropped, and stderr says: %q", f.Dropped, got.stderr)
		}
	}
	if dropped == 0 || spooled != 4*minutes {
		t.Errorf("%d spooled, %d dropped; want %d and some", spooled, dropped, 4*minutes)
	}
	m.env = []string{"DATABASE_URL=" + c.URL()}
	m.want(0, "", "flush")
	expectRows(t, c, 4*minutes-dropped)
	expect(t, c, "SELECT max(time) = '"+sampleTime(minutes-1).Format(time.RFC3339Nano)+"' FROM system_metrics", "t")
	expect(t, c, fmt.Sprintf("SELECT count(*) FROM system_metrics WHERE time < '%s'", sampleTime(dropped/4).Format(time.RFC3339Nano)), "0")
}

// A cron job may flush an empty file on a host that has never spooled anything. There is nothing to do, with and without a database.
func TestNothingToFlushOnAFreshHost(t *testing.T) {
	c := postgres.Run(t, postgres.Config{})
	for name, env := range map[string][]string{"no database": nil, "a database": {"DATABASE_URL=" + c.URL()}} {
		for _, input := range []string{"", "\n\n"} {
			m := sysmetrics(t, env...)
			if got := m.run(input, "flush"); got.status != 0 || got.stderr != "" || got.flushed(t).Inserted != 0 {
				t.Errorf("%s, input %q: exit status %d, %s%s; want 0 and nothing inserted", name, input, got.status, got.stdout, got.stderr)
			}
		}
	}
}

// After a power loss the spool may end in half a record, or be only half a record.
func TestTornSpool(t *testing.T) {
	c := postgres.Run(t, postgres.Config{})
	whole := records("web2", 2)
	half := strings.SplitAfter(records("web3", 1), "\n")[0][:100]
	for name, spool := range map[string]struct {
		content string
		records int
	}{
		"half a record":         {half, 0},
		"half after whole ones": {whole + half, 8},
		"zeros after whole":     {whole + strings.Repeat("\x00", 700), 8},
		"empty":                 {"", 0},
	} {
		t.Run(name, func(t *testing.T) {
			psql(t, c, drop)
			m := sysmetrics(t, "DATABASE_URL="+c.URL())
			if err := os.MkdirAll(m.state, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(m.state, "spool.jsonl"), []byte(spool.content), 0o600); err != nil {
				t.Fatal(err)
			}
			host := newFixtureHost(t, "web1")
			host.tick(t)
			m.want(0, "", collect(host)...)
			expectRows(t, c, spool.records+4)
			expectSpooled(t, m, 0)
		})
	}
}

// A damaged line in the middle of the spool is set aside like a bad record. The records after it are not lost.
func TestDamagedSpoolLine(t *testing.T) {
	c := postgres.Run(t, postgres.Config{})
	for _, table := range tables {
		t.Run(table.name, func(t *testing.T) {
			table.make(t, c)
			m := sysmetrics(t, "DATABASE_URL="+c.URL())
			if err := os.MkdirAll(m.state, 0o755); err != nil {
				t.Fatal(err)
			}
			lines := strings.SplitAfter(records("web2", 2), "\n")
			damaged := strings.Replace(lines[3], `"host"`, "\x00\x00\x00\x00\x00\x00", 1)
			content := strings.Join(lines[:3], "") + damaged + strings.Join(lines[4:], "")
			if err := os.WriteFile(filepath.Join(m.state, "spool.jsonl"), []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			m.want(exitPartial, "", "flush")
			expectRows(t, c, 7)
			expectSpooled(t, m, 0)
			m.want(0, "", "flush")
		})
	}
}

// SIGTERM while the database does not answer: the records are safe, and the tool ends in time.
func TestTerminatedWhileTheDatabaseHangs(t *testing.T) {
	c := postgres.Run(t, postgres.Config{})
	if err := c.Freeze(); err != nil {
		t.Fatal(err)
	}
	host := newFixtureHost(t, "web1")
	host.tick(t)
	m := sysmetrics(t, "DATABASE_URL="+c.URL())
	cmd := m.command("", append([]string{"collect", "--flush"}, host.args()...)...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	await.Until(t, "the sample in the spool", func() bool { return len(m.spooled("spool.jsonl")) == 4 })
	began := time.Now()
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // the status is looked at below
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("took %s to end", took)
	}
	if got := exitStatus(cmd.ProcessState); got != 128+int(syscall.SIGTERM) {
		t.Errorf("exit status %d; want to have died of SIGTERM", got)
	}
	expectSpooled(t, m, 4)
	if left, _ := filepath.Glob(filepath.Join(m.state, "*tmp*")); left != nil {
		t.Errorf("left behind: %v", left)
	}
	if err := c.Thaw(); err != nil {
		t.Fatal(err)
	}
	m.want(0, "", "flush")
	expectRows(t, c, 4)
}

// An old table stores whole seconds. Two samples of one second are nevertheless two rows, and replaying them adds no row.
func TestTwoSamplesOfOneSecond(t *testing.T) {
	c := postgres.Run(t, postgres.Config{})
	tables[0].make(t, c)
	m := sysmetrics(t, "DATABASE_URL="+c.URL())
	first := strings.SplitAfter(records("web2", 1), "\n")[0]
	second := strings.Replace(strings.Replace(first, ".000Z", ".250Z", 1), `"usage":0.5`, `"usage":77`, 1)
	for range 3 {
		m.want(0, first+second, "flush")
		expect(t, c, "SELECT count(*), sum((payload->>'usage')::float) FROM system_metrics", "2|77.5")
	}
}

// A block of records that the database refuses is larger than one run has time for. Each run processes a part of it, and the
// records after it are inserted.
func TestPoisonNeverBlocksTheRest(t *testing.T) {
	c := postgres.Run(t, postgres.Config{})
	if err := c.Exec("CREATE TABLE system_metrics (time timestamptz NOT NULL, host text NOT NULL CHECK (host <> 'poison'), os text NOT NULL, metric_type text NOT NULL, payload jsonb NOT NULL); ALTER TABLE system_metrics OWNER TO hub"); err != nil {
		t.Fatal(err)
	}
	m := sysmetrics(t, "DATABASE_URL="+c.URL())
	const poison = 300
	m.with().want(0, records("poison", poison)+records("web1", 1), "flush")
	for runs := 0; ; runs++ {
		if runs > 100 {
			t.Fatal("a hundred runs did not get through")
		}
		got := m.run("", "flush", "--timeout=150ms")
		if got.status != exitUnavailable && got.status != exitPartial {
			t.Fatalf("exit status %d: %s", got.status, got.stderr)
		}
		if got.status == exitPartial {
			break
		}
	}
	if n := len(m.spooled("rejected.jsonl")); n != 4*poison {
		t.Errorf("%d records set aside; want %d, each once", n, 4*poison)
	}
	if rows, err := c.Query("SELECT count(*) FROM system_metrics"); err != nil || rows[0][0] != "4" {
		t.Errorf("rows: %v, %v; want the 4 after the bad records", rows, err)
	}
}

// SIGTERM while records are being read: the records that were read are in the spool.
func TestTerminatedWhileReading(t *testing.T) {
	m := sysmetrics(t)
	cmd := m.command("", "flush")
	reader, stdin, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	defer reader.Close()
	cmd.Stdin = reader
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := stdin.WriteString(records("web1", 1)); err != nil {
		t.Fatal(err)
	}
	// The batch is open for at most a second. The pipe is empty as soon as the records are read.
	await.Until(t, "the records to be read", func() bool { return unread(t, reader) == 0 })
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if n := len(m.spooled("spool.jsonl")); n != 4 {
		t.Errorf("%d records in the spool; want the 4 that were read", n)
	}
}

// unread returns the number of bytes that wait in a pipe.
func unread(t *testing.T, pipe *os.File) int {
	t.Helper()
	n, err := unix.IoctlGetInt(int(pipe.Fd()), unix.TIOCINQ)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

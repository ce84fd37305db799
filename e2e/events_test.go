package e2e

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"observability-hub/e2e/events"
	"observability-hub/e2e/postgres"
	"observability-hub/e2e/workspace"
)

// Every documented event of sysmetrics and gitsync is provoked, and every line matches the schema.
func TestEvents(t *testing.T) {
	docs := events.Read(t)
	look := func(from, output string) {
		t.Helper()
		docs.Check(t, from, output)
	}
	// provoke runs the tool and fails the test unless the tool prints the event.
	provoke := func(event string, m *tool, stdin string, args ...string) {
		t.Helper()
		got := m.run(stdin, args...)
		look(event, got.stdout)
		look(event, got.stderr)
		if !strings.Contains(got.stdout+got.stderr, `"msg":"`+event+`"`) {
			t.Errorf("sysmetrics %s does not print %s: status %d\nstdout: %.300s\nstderr: %s", strings.Join(args, " "), event, got.status, got.stdout, got.stderr)
		}
	}
	put := func(m *tool, name, content string) {
		t.Helper()
		if err := os.MkdirAll(m.state, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(m.state, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	nowhere := "DATABASE_URL=postgres://hub@/hub?host=/nowhere"

	// This host and the fixture host, in its first minutes and after a reset of all counters.
	here := sysmetrics(t)
	for range 2 {
		provoke("sample", here, "")
	}
	host, there := newFixtureHost(t, "web1"), sysmetrics(t)
	for range 3 {
		host.tick(t)
		provoke("sample", there, "", host.args()...)
	}
	host.ticks = 0
	host.tick(t)
	provoke("sample", there, "", host.args()...)

	// The hosts of the unit tests, with sensors, unusual mounts and old kernels.
	root, err := workspace.Root()
	if err != nil {
		t.Fatal(err)
	}
	golden, err := filepath.Glob(filepath.Join(root, "sysmetrics", "testdata", "*", "want.*.jsonl"))
	if err != nil || len(golden) == 0 {
		t.Errorf("golden output: %d files, %v", len(golden), err)
	}
	for _, path := range golden {
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		// The cost of a run is not part of the golden output.
		look(path, strings.ReplaceAll(string(want), `"self":{}`, `"self":{"cpu_ms":1,"max_rss":1}`))
	}

	put(there, "counters", "half a fi")
	provoke("state_unreadable", there, "")
	provoke("flushed", there, "", "--flush")
	put(there, "spool.jsonl", `{"time":"2026-`)
	provoke("spool_torn", there, "", "--flush")
	put(there, "spool.jsonl", strings.Repeat(records("web1", 1), 2000)[:1<<20])
	provoke("spool_full", there, "", "--flush", "--spool-max", "1")

	for range 2 { // the first run sends
		host.tick(t)
		got := there.run("", append([]string{"--flush", "--flush-every", "30m"}, host.args()...)...)
		look("spooled", got.stdout)
	}
	provoke("spooled", there, "", append([]string{"--flush", "--flush-every", "30m"}, host.args()...)...)

	look("spooled_apart", finish(t, besideUnits(t, here.with("SYSMETRICS_STATE_DIR=").command(records("web1", 1), "flush"), "system-metrics", "system-metrics")).stderr)

	provoke("spool_status", here, "", "status")

	provoke("usage", here, "", "--no-such-flag")
	provoke("no_procfs", here, "", "--procfs", "/nowhere")
	provoke("failed", here, "", "--procfs", t.TempDir())
	provoke("bad_record", here, "this is no record\n", "flush")
	provoke("bad_input", here, "this is no record\n", "flush")
	provoke("no_database", here, "", "prune", "--keep", "90d")
	provoke("database_unavailable", here.with(nowhere), "", "--flush")
	put(here, "pgpass", "")
	if err := os.Chmod(filepath.Join(here.state, "pgpass"), 0o644); err != nil {
		t.Fatal(err)
	}
	provoke("password_file_ignored", here.with("DATABASE_URL=postgres://hub@127.0.0.1:1/hub", "PGPASSFILE="+filepath.Join(here.state, "pgpass")), "", "--flush")
	provoke("bad_configuration", here.with("DATABASE_URL=mysql://hub"), "", "--flush")
	provoke("state_unwritable", here, "", "--state-dir", "/proc/nowhere")
	provoke("records_lost", here, "", "--state-dir", "/proc/nowhere", "--flush")
	provoke("no_state_directory", here.with("SYSMETRICS_STATE_DIR=", "HOME="), "")

	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	cmd := here.command("")
	cmd.Stdout = full
	var said bytes.Buffer
	cmd.Stderr = &said
	_ = cmd.Run() // it must fail
	look("output_failed", said.String())

	dir, err := os.Open(here.state)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	if err := syscall.Flock(int(dir.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	provoke("locked", here, "")

	c := postgres.Run(t, postgres.Config{})
	m := sysmetrics(t, "DATABASE_URL="+c.URL())
	provoke("flushed", m, records("web1", 3), "flush")
	provoke("pruned", m, "", "prune", "--keep", "90d")
	provoke("no_rollup", m, "", "rollup")
	psql(t, c, "SET ROLE hub;\n"+m.want(0, "", "schema", "--rollup").stdout)
	provoke("rolled_up", m, "", "rollup")
	serverClock(t, c, "1 hour")
	provoke("clock_differs", m, "", "--flush")
	provoke("prune_refused", m, "", "prune", "--keep", "90d")
	serverClock(t, c, "0")
	poison := strings.Replace(records("web2", 1), `"usage":0.5`, `"usage":"\u0000"`, 1)
	provoke("record_rejected", m, poison, "flush")
	provoke("records_rejected", m, strings.Replace(poison, "web2", "web3", 1), "flush")
	provoke("database_refused", m.with("DATABASE_URL="+c.SocketURL("hub", "missing")), "", "--flush")

	for _, unit := range []string{"system-metrics.service", "gitops-sync@web.service"} {
		script := exec.Command(filepath.Join(root, "scripts", "hub-failure"), unit)
		out, err := script.Output()
		if err != nil {
			t.Errorf("hub-failure %s: %v", unit, err)
		}
		look("unit_failed", string(out))
	}

	provokeGitsync(t, look)
	docs.Demand(t, "lib/", "sysmetrics/", "gitsync/", "scripts/hub-failure")
}

// The tests of hub-status collect the records that it prints for each kind of trouble. Every record is as the schema says.
func TestJobStatusRecords(t *testing.T) {
	t.Parallel()
	root, err := workspace.Root()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "records")
	bats := exec.Command("bats", filepath.Join(root, "scripts", "tests", "hub-status.bats"))
	bats.Env = append(os.Environ(), "HUB_STATUS_RECORDS="+path)
	if out, err := bats.CombinedOutput(); err != nil {
		t.Fatalf("bats: %v\n%s", err, out)
	}
	records, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	docs := events.Read(t)
	docs.Check(t, "hub-status", string(records))
	docs.Demand(t, "scripts/hub-status")
	if n := bytes.Count(records, []byte("\n")); n < 100 {
		t.Errorf("%d records; want those of all tests", n)
	}
}

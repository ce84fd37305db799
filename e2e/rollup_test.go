package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"observability-hub/e2e/await"
	"observability-hub/e2e/postgres"
)

// hourly is a sample of a host in the form of sysmetrics, with a busy CPU and one mount.
func hourly(host string, at time.Time, usage, used float64) string {
	stamp := at.UTC().Format("2006-01-02T15:04:05.000Z")
	line := func(kind, payload string) string {
		return fmt.Sprintf(`{"time":%q,"level":"INFO","msg":"sample","service":"system-metrics","host":%q,"os":"debian 12","metric_type":%q,"payload":%s}`+"\n", stamp, host, kind, payload)
	}
	return line("cpu", fmt.Sprintf(`{"usage":%v,"modes":{"iowait":null}}`, usage)) +
		line("disk", fmt.Sprintf(`{"/":{"used_percent":%v,"used":1000,"free":500},"_io":null,"_pressure":{"some":{"percent":0.5}}}`, used))
}

// rolled runs sysmetrics rollup or prune, and returns the rolled_up record.
func rolled(t *testing.T, m *tool, args ...string) (r struct{ Hours, Means int }) {
	t.Helper()
	out := m.want(0, "", args...).stdout
	line, _, _ := strings.Cut(out, "\n")
	if err := json.Unmarshal([]byte(line), &r); err != nil || !strings.Contains(line, `"msg":"rolled_up"`) {
		t.Fatalf("sysmetrics %v prints %s, %v; want a rolled_up record first", args, out, err)
	}
	return r
}

func TestRollup(t *testing.T) {
	c := postgres.Run(t, postgres.Config{})
	m := sysmetrics(t, "DATABASE_URL="+c.URL())
	hour := time.Now().UTC().Truncate(time.Hour).Add(-5 * time.Hour)
	m.want(0, hourly("web1", hour.Add(time.Minute), 10, 40)+hourly("web1", hour.Add(2*time.Minute), 30, 41)+hourly("web2", hour.Add(time.Minute), 50, 70)+
		hourly("web1", hour.Add(time.Hour), 80, 42), "flush")

	if got := m.want(exitConfig, "", "rollup"); !strings.Contains(got.stderr, `"msg":"no_rollup"`) {
		t.Errorf("without the table: %s", got.stderr)
	}
	psql(t, c, "SET ROLE hub;\n"+m.want(0, "", "schema", "--rollup").stdout)
	// Rows of other programs do not stop it.
	psql(t, c, fmt.Sprintf("INSERT INTO system_metrics VALUES ('%[1]s', 'odd', '', 'cpu', '[1]'), ('%[1]s', 'odd', '', 'disk', '\"x\"'), ('%[1]s', 'odd', '', 'memory', '{\"used_percent\": \"much\"}'), ('%[1]s', 'odd', '', 'network', '{\"eth0\": 5}')",
		hour.Add(30*time.Minute).Format(time.RFC3339)))

	if r := rolled(t, m, "rollup"); r.Hours != 2 || r.Means != 5+5+5 {
		t.Errorf("first run: %+v; want 2 hours, and 5 means for each host and hour", r)
	}
	at := func(host, metric string, hours int) string {
		return psql(t, c, fmt.Sprintf("SELECT samples, mean, highest, last FROM system_metrics_hourly WHERE host = '%s' AND metric = '%s' AND time = '%s'",
			host, metric, hour.Add(time.Duration(hours)*time.Hour).Format(time.RFC3339)))
	}
	for _, test := range []struct {
		host, metric string
		hours        int
		want         string
	}{
		{"web1", "cpu_usage", 0, "2|20|30|30"},
		{"web1", "cpu_usage", 1, "1|80|80|80"},
		{"web2", "cpu_usage", 0, "1|50|50|50"},
		{"web1", "disk_used_percent", 0, "2|40.5|41|41"},
		{"web1", "disk_pressure", 0, "2|0.5|0.5|0.5"},
		{"web1", "cpu_iowait", 0, ""},
		{"odd", "memory_used_percent", 0, ""},
	} {
		if got := at(test.host, test.metric, test.hours); got != test.want {
			t.Errorf("%s of %s, hour %d: %q; want %q", test.metric, test.host, test.hours, got, test.want)
		}
	}
	if r := rolled(t, m, "rollup"); r.Hours != 0 {
		t.Errorf("second run: %+v; want nothing to do", r)
	}

	// A host that was offline delivers late.
	m.want(0, hourly("web2", hour.Add(3*time.Minute), 70, 72), "flush")
	if r := rolled(t, m, "rollup"); r.Hours != 1 {
		t.Errorf("after late records: %+v; want 1 hour", r)
	}
	if got, want := at("web2", "cpu_usage", 0), "2|60|70|70"; got != want {
		t.Errorf("after late records: %q; want %q", got, want)
	}
	// Rows that someone deleted do not change the means.
	psql(t, c, "DELETE FROM system_metrics WHERE host = 'web1'")
	if r := rolled(t, m, "rollup"); r.Hours != 0 || at("web1", "cpu_usage", 0) != "2|20|30|30" {
		t.Errorf("after rows were deleted: %+v, %s", r, at("web1", "cpu_usage", 0))
	}
}

// prune deletes no record before it is in the hourly means.
func TestPruneRollsUpFirst(t *testing.T) {
	c := postgres.Run(t, postgres.Config{})
	m := sysmetrics(t, "DATABASE_URL="+c.URL())
	old := time.Now().UTC().Truncate(time.Hour).AddDate(0, 0, -20)
	m.want(0, hourly("web1", old, 10, 40)+hourly("web1", old.AddDate(0, 0, -30), 20, 40)+hourly("web1", time.Now(), 90, 90), "flush")
	psql(t, c, "SET ROLE hub;\n"+m.want(0, "", "schema", "--rollup").stdout)

	if r := rolled(t, m, "prune", "--keep", "7d"); r.Hours != 3 {
		t.Errorf("prune: %+v; want the 2 hours that it deletes, and the present one", r)
	}
	expectRows(t, c, 2)
	expect(t, c, "SELECT string_agg(mean::text, ' ' ORDER BY time) FROM system_metrics_hourly WHERE metric = 'cpu_usage'", "20 10 90")
	m.want(0, "", "prune", "--keep", "7d", "--keep-hourly", "40d")
	expect(t, c, "SELECT string_agg(mean::text, ' ' ORDER BY time) FROM system_metrics_hourly WHERE metric = 'cpu_usage'", "10 90")
	expect(t, c, "SELECT count(*) FROM system_metrics_hours", "2")

	// It deletes nothing if it cannot sum up.
	m.want(0, hourly("web1", old.Add(time.Hour), 10, 40), "flush")
	psql(t, c, "ALTER TABLE system_metrics_hourly ADD CHECK (mean < 0) NOT VALID")
	if got := m.run("", "prune", "--keep", "7d"); got.status == 0 {
		t.Error("prune succeeds although the means cannot be written")
	}
	expectRows(t, c, 4)
}

// nullable is the table of a hub whose columns may be NULL.
const nullable = "SET ROLE hub; CREATE TABLE IF NOT EXISTS system_metrics (time timestamptz, host text, os text, metric_type text, payload jsonb);\n"

// Rows that another program wrote, and that have no mean, stop neither a roll-up nor a prune.
func TestRollupOfOddRows(t *testing.T) {
	c := postgres.Run(t, postgres.Config{})
	m := sysmetrics(t, "DATABASE_URL="+c.URL())
	psql(t, c, nullable+m.want(0, "", "schema", "--rollup").stdout)
	hour := time.Now().UTC().Truncate(time.Hour).Add(-5 * time.Hour)
	m.want(0, hourly("web1", hour, 10, 40), "flush")
	for n, row := range []string{
		`'odd', '', 'cpu', '{"usage": 1e400, "load1": 1e-400}'`, // jsonb holds it, double precision does not
		`'odd', '', 'memory', '{"used_percent": 1.7e308}'`,      // the mean of two
		`'odd', '', 'memory', '{"used_percent": 1.7e308}'`,      // overflows
		`NULL, '', 'cpu', '{"usage": 1}'`,
		`'odd', '', 'disk', NULL`,
		// A name that no index can hold.
		`'odd', '', 'disk', (SELECT jsonb_build_object(string_agg(md5(i::text), ''), '{"used": 1}'::jsonb) FROM generate_series(1, 200) i)`,
	} {
		psql(t, c, fmt.Sprintf("INSERT INTO system_metrics VALUES ('%s', %s)", hour.Add(time.Duration(n)*time.Minute).Format(time.RFC3339), row))
	}
	if r := rolled(t, m, "rollup"); r.Hours != 1 || r.Means != 5 {
		t.Errorf("rollup: %+v; want the 5 means of web1", r)
	}
	for _, at := range []string{"-infinity", "0044-03-15 BC"} {
		psql(t, c, fmt.Sprintf(`INSERT INTO system_metrics VALUES ('%s', 'odd', '', 'cpu', '{"usage": 1}')`, at))
	}
	m.want(0, "", "prune", "--keep", "7d")
	expectRows(t, c, 8)
}

// A roll-up that waited while prune summed up an hour and deleted a part of it leaves the means alone.
func TestRollupWaitsForPrune(t *testing.T) {
	c := postgres.Run(t, postgres.Config{})
	m := sysmetrics(t, "DATABASE_URL="+c.URL())
	psql(t, c, nullable+m.want(0, "", "schema", "--rollup").stdout)
	hour := time.Now().UTC().Truncate(time.Hour).Add(-5 * time.Hour)
	m.want(0, hourly("web1", hour, 10, 40)+hourly("web1", hour.Add(50*time.Minute), 30, 40), "flush")
	psql(t, c, fmt.Sprintf("INSERT INTO system_metrics_hours VALUES ('%s', 0)", hour.Format(time.RFC3339)))
	psql(t, c, "ALTER ROLE hub SET default_transaction_isolation = 'repeatable read'")
	lock, err := c.DB().Begin()
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Rollback()
	if _, err := lock.Exec("SELECT FROM system_metrics_hours FOR UPDATE"); err != nil {
		t.Fatal(err)
	}
	done := make(chan []outcome, 1)
	go func() { done <- atOnce(2, func(int) outcome { return m.run("", "rollup") }) }()
	await.Until(t, "both to wait: one for the row, one for the other", func() bool {
		rows, err := c.Query("SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype IN ('transactionid', 'advisory')")
		return err == nil && rows[0][0] == "2"
	})
	psql(t, c, fmt.Sprintf("DELETE FROM system_metrics WHERE time < '%s'", hour.Add(30*time.Minute).Format(time.RFC3339)))
	if err := lock.Commit(); err != nil {
		t.Fatal(err)
	}
	for _, got := range <-done {
		if got.status != 0 {
			t.Errorf("exit status %d: %s", got.status, got.stderr)
		}
	}
	expect(t, c, "SELECT mean FROM system_metrics_hourly WHERE metric = 'cpu_usage'", "20")
	expect(t, c, "SELECT records FROM system_metrics_hours", "4")
}

// The hints name what rollup and prune need, which is more than what inserting needs.
func TestRollupHints(t *testing.T) {
	c := postgres.Run(t, postgres.Config{})
	m := sysmetrics(t, "DATABASE_URL="+c.URL())
	hints := func(hint string, args ...string) {
		t.Helper()
		if got := m.want(exitConfig, "", args...); !strings.Contains(got.stderr, hint) {
			t.Errorf("sysmetrics %v: %s; want %s", args, got.stderr, hint)
		}
	}
	tables := strings.TrimPrefix(nullable, "SET ROLE hub; ") + m.want(0, "", "schema", "--rollup").stdout
	psql(t, c, tables+"GRANT SELECT, INSERT ON system_metrics TO hub; DROP TABLE system_metrics_hours")
	m.want(0, hourly("web1", time.Now().Add(-time.Minute), 10, 40), "flush")
	hints("sysmetrics schema --rollup | psql", "rollup")
	psql(t, c, tables)
	hints("GRANT SELECT, INSERT, UPDATE, DELETE ON system_metrics_hours TO", "rollup")
	psql(t, c, "GRANT SELECT, INSERT, UPDATE, DELETE ON system_metrics_hours TO hub")
	hints("GRANT SELECT, INSERT, UPDATE, DELETE ON system_metrics_hourly TO", "prune", "--keep=1d")
	psql(t, c, "GRANT SELECT, INSERT, UPDATE, DELETE ON system_metrics_hourly TO hub")
	m.want(0, "", "rollup")
	hints("GRANT SELECT, INSERT, DELETE ON system_metrics TO", "prune", "--keep=1d")
	psql(t, c, "GRANT SELECT, INSERT, DELETE ON system_metrics TO hub")
	m.want(0, "", "prune", "--keep=1d", "--keep-hourly=2d")
}

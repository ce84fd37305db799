package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"observability-hub/e2e/events"
	"observability-hub/e2e/postgres"
	"observability-hub/e2e/workspace"
)

const postgresType = "grafana-postgresql-datasource"

// dashboard is what the tests read of a Grafana dashboard.
type dashboard struct {
	UID        string
	Templating struct {
		List []struct {
			Name, Type, Query string
			Datasource        struct{ Type string }
		}
	}
	Panels []panel
}

type panel struct {
	Title, Type string
	Targets     []struct {
		RawSQL, Format                string
		Expr, LegendFormat, QueryType string
		Datasource                    struct{ Type, UID string }
	}
}

// readDashboard reads a file of deploy/grafana.
func readDashboard(t *testing.T, path string) dashboard {
	t.Helper()
	root, err := workspace.Root()
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(root, "deploy", "grafana", path))
	if err != nil {
		t.Fatal(err)
	}
	var d dashboard
	if err := json.Unmarshal(b, &d); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	if len(d.Panels) == 0 {
		t.Fatalf("%s has no panels", path)
	}
	return d
}

// allDashboards are the files below deploy/grafana/dashboards.
func allDashboards(t *testing.T) map[string]dashboard {
	t.Helper()
	root, err := workspace.Root()
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(root, "deploy", "grafana", "dashboards", "*.json"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no dashboards: %v", err)
	}
	all := map[string]dashboard{}
	for _, file := range files {
		all[filepath.Base(file)] = readDashboard(t, filepath.Join("dashboards", filepath.Base(file)))
	}
	return all
}

// grafanaSQL replaces Grafana's macros and variables in a query as Grafana does.
type grafanaSQL struct {
	from, to time.Time
	host     string
}

var (
	timeFilter = regexp.MustCompile(`\$__timeFilter\((\w+)\)`)
	timeGroup  = regexp.MustCompile(`\$__timeGroupAlias\((\w+), \$__interval\)`)
)

func (g grafanaSQL) replace(t *testing.T, query string) string {
	t.Helper()
	from, to := "'"+g.from.UTC().Format(time.RFC3339)+"'", "'"+g.to.UTC().Format(time.RFC3339)+"'"
	query = timeFilter.ReplaceAllString(query, "$1 BETWEEN "+from+" AND "+to)
	query = timeGroup.ReplaceAllString(query, `floor(extract(epoch from $1)/900)*900 AS "time"`)
	query = strings.NewReplacer("$__timeTo()", to, "${host:sqlstring}", "'"+g.host+"'").Replace(query)
	if strings.Contains(query, "$") {
		t.Errorf("a macro that this test does not know: %s", query)
	}
	return query
}

// answers runs a query and returns its rows.
func (g grafanaSQL) answers(t *testing.T, c *postgres.Cluster, query string) []map[string]any {
	t.Helper()
	sql := g.replace(t, query)
	out := psql(t, c, "SELECT coalesce(json_agg(row_to_json(q)), '[]') FROM ("+sql+") q")
	var all []map[string]any
	if err := json.Unmarshal([]byte(out), &all); err != nil {
		t.Fatalf("%s: %v: %s", sql, err, out)
	}
	return all
}

// checkAnswer fails the test if Grafana could not draw the rows: none, a point of a series without a time, or a column that is
// always null.
func checkAnswer(t *testing.T, title, format string, rows []map[string]any) {
	t.Helper()
	if len(rows) == 0 {
		t.Errorf("%s: no rows", title)
		return
	}
	values := map[string]int{}
	for _, row := range rows {
		for column, value := range row {
			if n := values[column]; value != nil {
				values[column] = n + 1
			} else {
				values[column] = n
			}
		}
	}
	if format == "time_series" && (values["time"] != len(rows) || len(values) < 2) {
		t.Errorf("%s: %d rows, %d of them with a time, and %d columns", title, len(rows), values["time"], len(values))
	}
	for column, n := range values {
		if n == 0 {
			t.Errorf("%s: the column %s is always null", title, column)
		}
	}
}

// The day of the samples, in the database and in the logs, and its last moment.
var (
	fleetDay = time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)
	fleetEnd = fleetDay.AddDate(0, 0, 1)
)

// fleetSamples makes a day of samples of 20 hosts: web01 to web16 and db1 to db4. On that day web07 falls silent 20 minutes before
// midnight, the data disk of db2 fills up, db1 is busy from 14:00 to 15:00, and last night's backup failed on db3.
const fleetSamples = `
CREATE TEMPORARY TABLE hosts AS
  SELECT CASE WHEN n <= 16 THEN 'web' || lpad(n::text, 2, '0') ELSE 'db' || n - 16 END AS host, n FROM generate_series(1, 20) n;
CREATE TEMPORARY TABLE minutes AS
  SELECT host, n, m, timestamptz '2026-03-02T00:00:00Z' + m * interval '1 minute' + n * interval '40 milliseconds' AS time,
    ((m * 7919 + n * 104729) % 997) / 997.0 AS noise, (1 + sin((m - 480) * pi() / 720)) / 2 AS daylight
  FROM hosts, generate_series(0, 1439) m WHERE NOT (host = 'web07' AND m >= 1420);
CREATE FUNCTION pg_temp.meta(m int) RETURNS jsonb LANGUAGE sql AS $$SELECT jsonb_build_object('window_s', 60, 'first', false, 'suspended_s', 0,
  'boot_id', '0b1c2d3e-4f50-6172-8394-a5b6c7d8e9f0', 'reset', '[]'::jsonb, 'unsupported', '["temperature"]'::jsonb,
  'failed', CASE WHEN m = 700 THEN '{"/mnt/nfs": "statfs: no answer within 2 s"}'::jsonb ELSE '{}' END)$$;
CREATE FUNCTION pg_temp.pressure(percent numeric) RETURNS jsonb LANGUAGE sql AS $$SELECT jsonb_build_object(
  'some', jsonb_build_object('avg10', percent, 'avg60', percent, 'avg300', percent, 'percent', percent),
  'full', jsonb_build_object('avg10', 0, 'avg60', 0, 'avg300', 0, 'percent', 0))$$;
CREATE FUNCTION pg_temp.mount(total bigint, part numeric, device text) RETURNS jsonb LANGUAGE sql AS $$SELECT jsonb_build_object(
  'total', total, 'used', (total * part)::bigint, 'free', (total * (0.95 - part))::bigint, 'used_percent', round(100 * part / 0.95, 3),
  'inodes', 6553600, 'inodes_free', 6000000, 'inodes_used_percent', 8.447, 'read_only', false, 'device', device, 'fstype', 'ext4')$$;

INSERT INTO system_metrics
SELECT time, host, 'debian 12', 'cpu', jsonb_build_object('usage', busy, 'package_temp', NULL, 'core_temps', '{}'::jsonb,
  'modes', jsonb_build_object('user', round(busy * 0.7, 3), 'nice', 0, 'system', round(busy * 0.3, 3), 'idle', 99 - busy, 'iowait', 1, 'irq', 0, 'softirq', 0, 'steal', 0, 'guest', 0, 'guest_nice', 0),
  'core_usage', jsonb_build_object('core_0', busy, 'core_1', busy), 'load1', round(busy / 50, 2), 'load5', round(busy / 50, 2), 'load15', round(busy / 50, 2),
  'run_queue', 1 + (busy / 40)::int, 'blocked', 0, 'context_switches_per_s', 1200, 'forks_per_s', 3.5, 'pressure', pg_temp.pressure(round(busy / 8, 2)),
  '_meta', pg_temp.meta(m) || '{"self": {"cpu_ms": 8.4, "max_rss": 16777216}}')
FROM (SELECT *, round((CASE WHEN host = 'db1' AND m BETWEEN 840 AND 900 THEN 90 ELSE 4 + n + 30 * daylight END + 5 * noise)::numeric, 3) AS busy FROM minutes) s;

INSERT INTO system_metrics
SELECT time, host, 'debian 12', 'memory', jsonb_build_object('total', 8192000000, 'available', 8192000000 - used, 'used', used, 'used_percent', round(used / 81920000.0, 3),
  'free', 1000000000, 'buffers', 100000000, 'cached', 3000000000, 'shared', 50000000, 'slab', 200000000, 'slab_reclaimable', 150000000, 'dirty', 100000, 'writeback', 0,
  'swap_total', 1024000000, 'swap_free', 922000000, 'swap_used', 102000000, 'swap_used_percent', 9.961, 'swap_in_pages_per_s', 0, 'swap_out_pages_per_s', 0,
  'major_faults_per_s', 0.2, 'oom_kills', 0, 'pressure', pg_temp.pressure(0.1), '_meta', pg_temp.meta(m))
FROM (SELECT *, (8192000000 * (0.3 + n / 60.0 + 0.1 * daylight + 0.02 * noise))::bigint AS used FROM minutes) s;

INSERT INTO system_metrics
SELECT time, host, 'debian 12', 'disk', jsonb_build_object('/', pg_temp.mount(40000000000, round((0.3 + n / 100.0 + m / 100000.0)::numeric, 6), '/dev/sda1'),
  '/data', pg_temp.mount(500000000000, round((CASE WHEN host = 'db2' THEN 0.6 + 0.35 * m / 1440 ELSE 0.4 + n / 100.0 END)::numeric, 6), '/dev/sdb1'),
  '_io', jsonb_build_object('sda', jsonb_build_object('read_bytes_per_s', 20000, 'write_bytes_per_s', 90000, 'read_iops', 2, 'write_iops', 8, 'read_await_ms', 0.9, 'write_await_ms', round((1 + noise)::numeric, 3),
    'await_ms', round((1 + noise)::numeric, 3), 'util_percent', round((2 + 5 * noise)::numeric, 3), 'queue_ms_per_s', 12, 'in_flight', 0)),
  '_pressure', pg_temp.pressure(round((2 * noise + n / 10.0)::numeric, 2)), '_meta', pg_temp.meta(m))
FROM minutes;

INSERT INTO system_metrics
SELECT time, host, 'debian 12', 'network', jsonb_build_object('eth0', jsonb_build_object('rx_bytes', 1000000000 + m * 60 * 40000::bigint, 'tx_bytes', 500000000 + m * 60 * 9000::bigint,
    'rx_bytes_per_s', round((40000 * (1 + daylight + noise))::numeric, 3), 'rx_packets_per_s', 90, 'rx_errors_per_s', 0, 'rx_drops_per_s', 0,
    'tx_bytes_per_s', round((9000 * (1 + daylight))::numeric, 3), 'tx_packets_per_s', 40, 'tx_errors_per_s', 0, 'tx_drops_per_s', 0),
  '_tcp', '{"active_opens_per_s": 1, "passive_opens_per_s": 2, "attempt_fails_per_s": 0, "resets_per_s": 0, "in_segments_per_s": 90, "out_segments_per_s": 80, "retransmits_per_s": 0.05, "in_errors_per_s": 0, "established": 12}'::jsonb,
  '_udp', '{"in_datagrams_per_s": 1, "out_datagrams_per_s": 1, "no_ports_per_s": 0, "in_errors_per_s": 0, "receive_buffer_errors_per_s": 0, "send_buffer_errors_per_s": 0}'::jsonb,
  '_sockets', NULL, '_meta', pg_temp.meta(m))
FROM minutes;

-- What hub-status reports every 5 minutes. Its rows of one host are a millisecond apart.
INSERT INTO system_metrics
SELECT time + f * interval '1 millisecond', host, 'debian 12', 'jobs',
  jsonb_build_object('family', family, 'ok', problems = '[]', 'problems', problems, 'running', false, 'last_run', to_jsonb(to_char(last AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')),
    'result', CASE WHEN problems = '[]' THEN 'success' ELSE 'exit-code' END, 'duration_s', 1.5 + n, 'next_run', to_jsonb(to_char((last + interval '1 day') AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')), 'unknown', '{}'::jsonb)
  || CASE family
    WHEN 'system-metrics' THEN jsonb_build_object('spooled', 0, 'spool_age_s', NULL, 'rejected', 0)
    WHEN 'gitops-sync' THEN jsonb_build_object('instance', 'apps', 'commit', '8c0f3a1d5b7e9f2046a8c1d3e5f7091b2d4f6a8c', 'apply_age_s', m % 15 * 60, 'held', host = 'web05', 'held_until', CASE WHEN host = 'web05' THEN '2026-03-03T06:00:00.000Z' END,
      'quarantined', CASE WHEN host = 'web09' THEN '1f2e3d4c5b6a79880716253443526170a9b8c7d6' END,
      'waiting', CASE WHEN host = 'web10' THEN '1f2e3d4c5b6a79880716253443526170a9b8c7d6' END)
    WHEN 'reading-sync' THEN jsonb_build_object('synced', 40, 'dead_letters', CASE WHEN host = 'db4' THEN 3 ELSE 0 END)
    ELSE jsonb_build_object('volumes', 3, 'stale_volumes', CASE WHEN problems = '[]' THEN 0 ELSE 1 END, 'oldest_backup_s', extract(epoch FROM time - last)::int + CASE WHEN problems = '[]' THEN 0 ELSE 86400 END) END
FROM (
  SELECT *, CASE WHEN f < 2 THEN time WHEN m >= 60 + 300 * (f - 2) THEN timestamptz '2026-03-02T01:00:00Z' + (f - 2) * interval '9 hours' ELSE timestamptz '2026-03-01T01:00:00Z' + (f - 2) * interval '9 hours' END AS last,
    CASE WHEN host = 'db3' AND family = 'volume-backup' AND m >= 60 THEN '["volume-backup.service failed, exit status 11: journalctl -u volume-backup.service"]'::jsonb ELSE '[]' END AS problems
  FROM minutes, (VALUES (0, 'system-metrics'), (1, 'gitops-sync'), (2, 'volume-backup'), (3, 'reading-sync')) families(f, family) WHERE m % 5 = 0
) jobs;

INSERT INTO reading_analytics (mongo_id, event_timestamp, source, event_type, payload, meta, created_at)
SELECT lpad(to_hex(n), 24, '0'), timestamptz '2026-03-01T00:00:00Z' + n * interval '1 minute', 'sensor' || n % 3, 'reading', '{}', '{}',
  timestamptz '2026-03-02T10:04:00Z' + CASE WHEN n > 2000 THEN interval '4 hours' ELSE interval '0' END
FROM generate_series(0, 2280) n;
ANALYZE;`

const readingAnalytics = `CREATE TABLE reading_analytics (id serial PRIMARY KEY, mongo_id text UNIQUE NOT NULL, event_timestamp timestamptz, source text, event_type text,
	payload jsonb, meta jsonb, created_at timestamptz DEFAULT now());`

// fleetDatabase starts a PostgreSQL that holds the day of the 20 hosts.
func fleetDatabase(t *testing.T) *postgres.Cluster {
	t.Helper()
	c := postgres.Run(t, postgres.Config{})
	psql(t, c, "SET TIME ZONE 'UTC'; CREATE TABLE system_metrics (time timestamptz NOT NULL, host text NOT NULL, os text NOT NULL, metric_type text NOT NULL, payload jsonb NOT NULL);"+
		"CREATE UNIQUE INDEX ON system_metrics (host, metric_type, time);"+readingAnalytics+fleetSamples)
	m := sysmetrics(t, "DATABASE_URL="+c.SocketURL("postgres", "hub"))
	psql(t, c, m.want(0, "", "schema", "--rollup").stdout+"ANALYZE system_metrics_hourly")
	m.want(0, "", "rollup", "--since", time.Since(fleetDay.Add(-time.Hour)).Round(time.Second).String())
	return c
}

// The samples have the shape of real records, and each SQL query of each dashboard finds something in them.
func TestDashboardsSQL(t *testing.T) {
	c := fleetDatabase(t)
	docs := events.Read(t)
	docs.Check(t, "a synthetic sample", psql(t, c, `SET TIME ZONE 'UTC'; SELECT json_build_object('time', to_char(time, 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'), 'level', 'INFO', 'msg', 'sample',
		'service', 'system-metrics', 'host', host, 'os', os, 'metric_type', metric_type, 'payload', payload) FROM system_metrics
		WHERE host = 'web01' AND metric_type <> 'jobs' AND time BETWEEN '2026-03-02T11:39:30Z' AND '2026-03-02T11:41:30Z'`))

	g := grafanaSQL{fleetDay, fleetEnd, "db3"}
	found := map[string][]map[string]any{}
	var table strings.Builder
	fmt.Fprintf(&table, "%-20s %-44s %-5s %6s %6s\n", "dashboard", "panel", "query", "rows", "ms")
	all := allDashboards(t)
	for _, file := range slices.Sorted(maps.Keys(all)) {
		d := all[file]
		for _, v := range d.Templating.List {
			if v.Type == "query" && v.Datasource.Type == postgresType {
				checkAnswer(t, file+": variable "+v.Name, "table", g.answers(t, c, v.Query))
			}
		}
		for _, p := range d.Panels {
			for i, target := range p.Targets {
				if target.Datasource.Type != postgresType {
					continue
				}
				begun := time.Now()
				rows := g.answers(t, c, target.RawSQL)
				fmt.Fprintf(&table, "%-20s %-44s %-5c %6d %6d\n", file, p.Title, 'A'+i, len(rows), time.Since(begun).Milliseconds())
				checkAnswer(t, file+": "+p.Title, target.Format, rows)
				found[file+": "+p.Title] = rows
			}
		}
	}
	t.Log("\n" + table.String())

	// The panels show the faults of the day first.
	for _, test := range []struct {
		panel, column string
		row           int
		want          any
	}{
		{"fleet.json: Hosts", "hosts", 0, 20.0},
		{"fleet.json: Silent for 5 minutes", "silent", 0, 1.0},
		{"fleet.json: Jobs that need a person", "jobs", 0, 1.0},
		{"fleet.json: Hosts, worst first", "host", 0, "web07"},
		{"fleet.json: Hosts, worst first", "host", 1, "db3"},
		{"fleet.json: Hosts, worst first", "host", 2, "db2"},
		{"fleet.json: Hosts, worst first", "fullest file system", 2, "/data"},
		{"fleet.json: Jobs, worst first", "host", 0, "db3"},
		{"fleet.json: Jobs, worst first", "job", 0, "volume-backup"},
		{"fleet.json: File systems, the first to be full first", "host", 0, "db2"},
		{"backups.json: Oldest backup of each host", "host", 0, "db3"},
		{"gitops.json: State of each host", "host", 0, "web09"},
		{"gitops.json: State of each host", "host", 1, "web05"},
		{"weeks.json: File systems, the first to be full first", "host", 0, "db2"},
		{"reading-sync.json: Dead letters", "dead letters", 0, 3.0},
		{"reading-sync.json: Rows", "rows", 0, 2281.0},
	} {
		if rows := found[test.panel]; len(rows) <= test.row || rows[test.row][test.column] != test.want {
			t.Errorf("%s: row %d: %s is not %v: %v", test.panel, test.row, test.column, test.want, rows[:min(len(rows), test.row+1)])
		}
	}
	// The picture of a host's disks shows the host whose disk fills up.
	g.host = "db2"
	for _, p := range all["host.json"].Panels {
		if p.Title == "Disk used" {
			found["host.json: Disk used"] = g.answers(t, c, p.Targets[0].RawSQL)
		}
	}
	checkPictures(t, found)
	hosts := map[any]bool{}
	for _, row := range found["fleet.json: CPU busy, the 10 busiest hosts"] {
		hosts[row["metric"]] = true
	}
	if len(hosts) != 10 || !hosts["db1"] || hosts["web01"] {
		t.Errorf("the 10 busiest hosts: %v", hosts)
	}
}

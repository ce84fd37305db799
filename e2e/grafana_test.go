package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"observability-hub/e2e/postgres"
	"observability-hub/e2e/workspace"
)

// Every query of the dashboard finds values in rows of the tool. Grafana's macros are replaced as Grafana does.
func TestGrafanaDashboard(t *testing.T) {
	root, err := workspace.Root()
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(root, "deploy", "grafana", "system-metrics.json"))
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		Templating struct {
			List []struct{ Name, Type, Query string }
		}
		Panels []struct {
			Title   string
			Targets []struct{ RawSQL, Format string }
		}
	}
	if err := json.Unmarshal(b, &dashboard); err != nil {
		t.Fatal(err)
	}
	c := postgres.Run(t, postgres.Config{})
	// The old table with a row of the old collector, which does not have the new keys.
	psql(t, c, "SET ROLE hub; "+oldTable+`;
		INSERT INTO system_metrics VALUES
		('`+sampleTime(0).Add(-time.Minute).Format(time.RFC3339)+`', 'web1', 'debian 12', 'cpu', '{"usage": 3.2, "package_temp": null, "core_temps": {}}'),
		('`+sampleTime(0).Add(-time.Minute).Format(time.RFC3339)+`', 'web1', 'debian 12', 'memory', '{"total": 8, "available": 5, "used": 3, "used_percent": 37.5}'),
		('`+sampleTime(0).Add(-time.Minute).Format(time.RFC3339)+`', 'web1', 'debian 12', 'disk', '{"/": {"total": 1000, "used": 400, "free": 600, "used_percent": 40}}'),
		('`+sampleTime(0).Add(-time.Minute).Format(time.RFC3339)+`', 'web1', 'debian 12', 'network', '{"eth0": {"rx_bytes": 940000, "tx_bytes": 470000}}')`)
	host, m := newFixtureHost(t, "web1"), sysmetrics(t, "DATABASE_URL="+c.URL())
	host.write(t, map[string]string{"1/mountinfo": "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n23 22 8:2 / /not-there rw - ext4 /dev/sda2 rw\n"})
	for range 3 {
		host.tick(t)
		m.want(0, "", append([]string{"collect", "--flush"}, host.args()...)...)
	}
	grafana := strings.NewReplacer(
		"$__timeFilter(time)", "time BETWEEN '"+sampleTime(0).Add(-time.Hour).Format(time.RFC3339)+"' AND '"+sampleTime(9).Format(time.RFC3339)+"'",
		"${host:sqlstring}", "'web1'")
	// answers runs a query and returns the number of rows, and the number of rows with a value in each column.
	answers := func(t *testing.T, query string) (rows int, values map[string]int) {
		t.Helper()
		sql := grafana.Replace(query)
		if strings.Contains(sql, "$") {
			t.Errorf("unknown macro: %s", sql)
		}
		out := psql(t, c, "SELECT coalesce(json_agg(row_to_json(q)), '[]') FROM ("+sql+") q")
		var all []map[string]any
		if err := json.Unmarshal([]byte(out), &all); err != nil {
			t.Fatalf("%s: %v: %s", sql, err, out)
		}
		values = map[string]int{}
		for _, row := range all {
			for column, value := range row {
				if n := values[column]; value != nil {
					values[column] = n + 1
				} else {
					values[column] = n
				}
			}
		}
		return len(all), values
	}
	for _, v := range dashboard.Templating.List {
		if v.Type == "query" {
			if rows, values := answers(t, v.Query); rows != 1 || values[v.Name] != 1 {
				t.Errorf("variable %s: %d rows, %v", v.Name, rows, values)
			}
		}
	}
	for _, p := range dashboard.Panels {
		for _, target := range p.Targets {
			rows, values := answers(t, target.RawSQL)
			if rows == 0 || values["time"] != rows {
				t.Errorf("%s: %d rows, %d of them with a time", p.Title, rows, values["time"])
			}
			for column, n := range values {
				if n == 0 {
					t.Errorf("%s: the column %s is always null", p.Title, column)
				}
			}
			if len(values) < 2 {
				t.Errorf("%s: no column beside time", p.Title)
			}
		}
	}
	if len(dashboard.Panels) == 0 {
		t.Error("no panels")
	}
}

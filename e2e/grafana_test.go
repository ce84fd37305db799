package e2e

import (
	"strings"
	"testing"
	"time"

	"observability-hub/e2e/postgres"
)

// Every query of the host's dashboard finds values in rows of the tool, after rows of the collector before it.
// Grafana's macros are replaced as Grafana does.
func TestGrafanaDashboard(t *testing.T) {
	d := readDashboard(t, "system-metrics.json")
	if d.UID != "hub-system-metrics" {
		t.Errorf("the uid is %s; bookmarks have hub-system-metrics", d.UID)
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
	// A report of hub-status goes the same way.
	m.want(0, `{"time":"`+sampleTime(2).Format("2006-01-02T15:04:05.000Z")+`","level":"WARN","msg":"job_status","service":"volume-backup","host":"web1","os":"debian 12","metric_type":"jobs","payload":{"family":"volume-backup","ok":false,"problems":["volume-backup.timer is off: systemctl enable --now volume-backup.timer"],"running":false,"last_run":"2026-03-01T01:00:00.000Z","result":"success","duration_s":12.5,"next_run":"2026-03-02T01:00:00.000Z","volumes":3,"stale_volumes":0,"oldest_backup_s":3600,"unknown":{}}}
`, "flush")
	g := grafanaSQL{sampleTime(0).Add(-time.Hour), sampleTime(9), "web1"}
	for _, v := range d.Templating.List {
		if v.Type == "query" {
			rows := g.answers(t, c, v.Query)
			if len(rows) != 1 || rows[0][v.Name] != "web1" {
				t.Errorf("variable %s: %v", v.Name, rows)
			}
		}
	}
	for _, p := range d.Panels {
		for _, target := range p.Targets {
			// Each panel of this dashboard says when.
			checkAnswer(t, p.Title, strings.Replace(target.Format, "table", "time_series", 1), g.answers(t, c, target.RawSQL))
		}
	}
}

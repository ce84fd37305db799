package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"text/template"
	"time"

	"observability-hub/e2e/postgres"
)

// lokiRules is what deploy/loki/rules.yaml uses of the format of Loki's ruler.
type lokiRules struct {
	Groups []struct {
		Name, Interval string
		Rules          []lokiRule
	}
}

type lokiRule struct {
	Alert, Expr, For    string
	Labels, Annotations map[string]string
}

func readLokiRules(t *testing.T) map[string]lokiRule {
	t.Helper()
	var file lokiRules
	readYAML(t, "deploy/loki/rules.yaml", &file)
	all := map[string]lokiRule{}
	for _, group := range file.Groups {
		if _, err := time.ParseDuration(group.Interval); err != nil || group.Name == "" {
			t.Errorf("group %q: interval %q", group.Name, group.Interval)
		}
		for _, r := range group.Rules {
			if _, twice := all[r.Alert]; twice {
				t.Errorf("%s is there twice", r.Alert)
			}
			all[r.Alert] = r
		}
	}
	return all
}

// checkAlert fails the test if an alert does not say how bad it is, what has happened and what to type.
func checkAlert(t *testing.T, name, wait string, labels, annotations map[string]string) {
	t.Helper()
	if _, err := time.ParseDuration(wait); err != nil {
		t.Errorf("%s: for: %v", name, err)
	}
	if severity := labels["severity"]; severity != "warning" && severity != "critical" {
		t.Errorf("%s: severity %q", name, severity)
	}
	if !strings.HasPrefix(annotations["summary"], "{{ $labels.host }}: ") || !strings.Contains(annotations["description"], "`sudo ") || len(annotations) != 2 {
		t.Errorf("%s: annotations %v", name, annotations)
	}
}

// message expands an annotation as the ruler and Grafana do. A label that the alert does not have fails the test.
func message(t *testing.T, text string, labels map[string]string, value float64) string {
	t.Helper()
	seconds := func(s float64) string { return (time.Duration(s) * time.Second).String() }
	parsed, err := template.New("").Option("missingkey=error").Funcs(template.FuncMap{"humanizeDuration": seconds}).
		Parse("{{ $labels := .labels }}{{ $value := .value }}{{ $values := .values }}" + text)
	if err != nil {
		t.Errorf("%s: %v", text, err)
		return ""
	}
	var out strings.Builder
	if err := parsed.Execute(&out, map[string]any{"labels": labels, "value": value, "values": map[string]map[string]float64{"A": {"Value": value}}}); err != nil {
		t.Errorf("%s: %v", text, err)
	}
	return out.String()
}

// provocation says when an alert of deploy/loki/rules.yaml is silent in the logs of alertLogs, when it fires, and with which labels.
type provocation struct {
	alert, how    string
	silent, fires time.Time
	labels        map[string]string
}

var provocations = []provocation{
	{"UnitFailed", "volume-backup.service of web02 failed", fleetEnd.Add(-31 * time.Minute), fleetEnd,
		map[string]string{"host": "web02", "failed": "volume-backup.service", "result": "exit-code", "exit_status": "11"}},
	{"CommitQuarantined", "web02 rolled a commit back", fleetEnd.Add(-21 * time.Minute), fleetEnd.Add(-15 * time.Minute),
		map[string]string{"host": "web02", "unit": "gitops-apply.service", "commit": badCommit}},
	{"CommitQuarantined", "... and an hour later it has no new commit", fleetEnd.Add(-21 * time.Minute), fleetEnd.Add(40 * time.Minute),
		map[string]string{"host": "web02", "unit": "gitops-apply.service", "commit": badCommit}},
	{"ArchiveDamaged", "verify found a damaged archive on web02", fleetEnd.Add(-3 * time.Hour), fleetEnd, map[string]string{"host": "web02"}},
	{"DeadLetters", "web02 rejected 2 documents", fleetEnd.Add(-14 * time.Hour), fleetEnd, map[string]string{"host": "web02"}},
	{"NoSuccessSystemMetrics", "the database takes no records of web02", fleetEnd.Add(-11 * time.Minute), fleetEnd,
		map[string]string{"host": "web02", "unit": "system-metrics.service"}},
	{"NoSuccessGitops", "web02 cannot pull, web01 is held", fleetEnd.Add(-2 * time.Hour), fleetEnd,
		map[string]string{"host": "web02", "unit": "gitops-sync@apps.service"}},
	{"NoSuccessReadingSync", "the timer of web02 was disabled", fleetDay, fleetEnd,
		map[string]string{"host": "web02", "unit": "reading-sync.service"}},
	{"NoSuccessVolumeBackup", "a volume of web02 failed twice", fleetDay, fleetEnd,
		map[string]string{"host": "web02", "unit": "volume-backup.service"}},
}

const goodCommit, badCommit = "8c0f3a1d5b7e9f2046a8c1d3e5f7091b2d4f6a8c", "1f2e3d4c5b6a79880716253443526170a9b8c7d6"

// alertLogs makes the logs of web01, where all is well, of web02, where one thing after the other fails, of web03, which is new and
// whose first backup has not ended, and of web04, which sends its samples every 10 minutes.
func alertLogs(t *testing.T) *journal {
	t.Helper()
	j := newJournal(t)
	for _, host := range []string{"web01", "web02"} {
		bad := host == "web02"
		for day := range 10 {
			night := fleetDay.AddDate(0, 0, -day)
			level, failed := "INFO", 0
			if bad && day < 2 {
				level, failed = "ERROR", 1
			}
			j.add(night.Add(64*time.Minute), host, "volume-backup.service", level, "backup_finished", "volume-backup",
				fmt.Sprintf(`"volumes":2,"stored":%d,"unchanged":0,"failed":%d,"left_out":1,"pruned":2,"duration_s":26.5`, 2-failed, failed))
			if bad && day < 2 {
				continue
			}
			j.add(night.Add(604*time.Minute), host, "reading-sync-api@1-2-0.service", "INFO", "synced", "reading-sync",
				`"read":40,"inserted":40,"identical":0,"differing":0,"rejected":0,"marked":40,"unmarked":0,"batches":1,"duration_s":1.2`)
			j.add(night.Add(604*time.Minute), host, "reading-sync.service", "INFO", "triggered", "reading-sync",
				`"processed_count":40,"calls":1,"attempts":1,"left_behind":false,"duration_s":1.4,"url":"http://localhost:8085/api/sync/reading"`)
		}
		for m := range 30 {
			level, inserted := "INFO", 4
			if bad && m > 18 {
				level, inserted = "WARN", 0
			}
			j.add(fleetEnd.Add(time.Duration(m-30)*time.Minute), host, "system-metrics.service", level, "flushed", "system-metrics",
				fmt.Sprintf(`"inserted":%d,"duplicates":0,"rejected":0,"spooled":%d,"dropped":0,"lost":0,"spool_bytes":0`, inserted, 4-inserted))
		}
		for quarter := range 30 {
			at := fleetEnd.Add(time.Duration(quarter-26) * 15 * time.Minute) // the last one is at 0:45
			if !bad || quarter < 19 {
				j.add(at, host, "gitops-sync@apps.service", "INFO", "pulled", "gitops-sync",
					`"repo":"https://git.example/hub.git","ref":"main","commit":"`+goodCommit+`","previous":null,"changed":false,"verified":true,"duration_s":0.8`)
			} else {
				j.add(at, host, "gitops-sync@apps.service", "ERROR", "remote_unavailable", "gitops-sync", `"error":"git fetch: connection refused"`)
			}
			switch {
			case !bad:
				j.add(at, host, "gitops-apply.service", "INFO", "held", "gitops-sync", `"since":"2026-03-02T12:00:00.000Z","until":null`)
				continue
			case at.Equal(fleetEnd.Add(-15 * time.Minute)):
				j.add(at.Add(-time.Minute), host, "gitops-apply.service", "ERROR", "rolled_back", "gitops-sync",
					`"commit":"`+badCommit+`","unit":"volume-backup.timer","reason":"no next run","back_to":"`+goodCommit+`"`)
				j.add(at.Add(-time.Minute), host, "gitops-apply.service", "ERROR", "unhealthy", "gitops-sync", `"error":"volume-backup.timer has no next run"`)
				continue
			case at.After(fleetEnd.Add(-15 * time.Minute)):
				j.add(at, host, "gitops-apply.service", "WARN", "quarantined", "gitops-sync",
					`"detail":"the commit is not applied","commit":"`+badCommit+`","since":"2026-03-02T23:44:00.000Z"`)
			}
			j.add(at, host, "gitops-apply.service", "INFO", "applied", "gitops-sync",
				`"commit":"`+goodCommit+`","previous":null,"actions":0,"foreign":0,"reloaded":false,"duration_s":0.4`)
		}
	}
	// web04 sends every 10 minutes.
	for m := range 60 {
		at := fleetEnd.Add(time.Duration(m-60) * time.Minute)
		if m%10 == 3 {
			j.add(at, "web04", "system-metrics.service", "INFO", "flushed", "system-metrics", `"inserted":40,"duplicates":0,"rejected":0,"spooled":0,"dropped":0,"lost":0,"spool_bytes":0`)
		} else {
			j.add(at, "web04", "system-metrics.service", "INFO", "spooled", "system-metrics", `"spooled":4,"spool_bytes":9000,"next_flush":"`+at.Add(5*time.Minute).Format("2006-01-02T15:04:05.000Z")+`"`)
		}
	}
	j.add(fleetEnd.Add(-2*time.Hour), "web01", "volume-backup.service", "INFO", "archive_verified", "volume-backup", `"volume":"grafana_data","id":"20260302T010200Z","ok":true,"deep":false`)
	j.add(fleetEnd.Add(-2*time.Hour), "web02", "volume-backup.service", "ERROR", "archive_verify_failed", "volume-backup",
		`"volume":"grafana_data","id":"20260302T010200Z","ok":false,"deep":false,"error":"the file has another SHA-256"`)
	j.add(fleetEnd.Add(-2*time.Hour), "web02", "volume-backup.service", "ERROR", "archives_damaged", "volume-backup", `"error":"1 of 9 archives are damaged"`)
	j.add(fleetEnd.Add(-30*time.Minute), "web02", "hub-failure@volume-backup.service.service", "ERROR", "unit_failed", "volume-backup",
		`"unit":"volume-backup.service","result":"exit-code","exit_code":"exited","exit_status":"11","invocation_id":"0b1c2d3e4f5061728394a5b6c7d8e9f0","restarts":0,"lines":[]`)
	j.add(fleetDay.Add(604*time.Minute), "web02", "reading-sync-api@1-2-0.service", "WARN", "synced", "reading-sync",
		`"read":40,"inserted":38,"identical":0,"differing":0,"rejected":2,"marked":38,"unmarked":0,"batches":1,"duration_s":1.2`)
	j.add(fleetEnd.Add(-20*time.Minute), "web03", "volume-backup.service", "INFO", "left_out", "volume-backup", `"reason":"label","count":1,"volumes":["cache"]`)
	return j
}

// Each alert of Loki's ruler filters by documented events and by services that Promtail labels, uses only labels that its expression
// has, and is provoked.
func TestAlertsLogQL(t *testing.T) {
	rules := readLokiRules(t)
	provoked, queries := map[string]bool{}, []logQuery{}
	for _, p := range provocations {
		if _, has := rules[p.alert]; !has {
			t.Errorf("deploy/loki/rules.yaml has no alert %s", p.alert)
		}
		provoked[p.alert] = true
	}
	for name, r := range rules {
		checkAlert(t, name, r.For, r.Labels, r.Annotations)
		by := byLabels.FindStringSubmatch(r.Expr)
		if by == nil || !provoked[name] || !eventFilter.MatchString(r.Expr) || !serviceFilter.MatchString(r.Expr) {
			t.Errorf("%s is not provoked, or does not say by which labels, event and service: %s", name, r.Expr)
			continue
		}
		labels := map[string]string{}
		for label := range strings.SplitSeq(by[1], ", ") {
			labels[label] = label
		}
		for _, text := range r.Annotations {
			message(t, text, labels, 1)
		}
		queries = append(queries, logQuery{Expr: r.Expr, from: name})
	}
	checkFilters(t, queries, alertLogs(t).services())
}

// alertGroups is what deploy/grafana/provisioning/alerting uses of Grafana's format.
type alertGroups struct {
	APIVersion int `yaml:"apiVersion"`
	Groups     []struct {
		OrgID                  int `yaml:"orgId"`
		Name, Folder, Interval string
		Rules                  []alertRule
	}
}

type alertRule struct {
	UID, Title, Condition, For string
	NoDataState                string `yaml:"noDataState"`
	ExecErrState               string `yaml:"execErrState"`
	IsPaused                   bool   `yaml:"isPaused"`
	Labels, Annotations        map[string]string
	Data                       []struct {
		RefID             string                 `yaml:"refId"`
		DatasourceUID     string                 `yaml:"datasourceUid"`
		RelativeTimeRange struct{ From, To int } `yaml:"relativeTimeRange"`
		Model             struct {
			RefID            string `yaml:"refId"`
			Format           string
			RawQuery         bool   `yaml:"rawQuery"`
			EditorMode       string `yaml:"editorMode"`
			RawSQL           string `yaml:"rawSql"`
			Type, Expression string
			Conditions       []struct {
				Evaluator struct {
					Type   string
					Params []float64
				}
			}
		}
	}
}

func readGrafanaAlerts(t *testing.T) (all []alertRule) {
	t.Helper()
	var file alertGroups
	readYAML(t, "deploy/grafana/provisioning/alerting/observability-hub.yaml", &file)
	if file.APIVersion != 1 {
		t.Errorf("apiVersion %d", file.APIVersion)
	}
	for _, group := range file.Groups {
		if _, err := time.ParseDuration(group.Interval); err != nil || group.OrgID != 1 || group.Name == "" || group.Folder == "" {
			t.Errorf("group %q: interval %q", group.Name, group.Interval)
		}
		all = append(all, group.Rules...)
	}
	return all
}

// Each alert of Grafana has a query of a provisioned data source and a threshold for its answer. Grafana replaces variables of the
// environment in all texts of the file but the queries: only annotations may have a $, and no ${.
func TestGrafanaAlerts(t *testing.T) {
	var sources dataSources
	readYAML(t, "deploy/grafana/provisioning/datasources/observability-hub.yaml", &sources)
	provisioned, uids := map[string]bool{}, map[string]bool{}
	for _, s := range sources.DataSources {
		provisioned[s.UID] = s.Type == postgresType
	}
	for _, r := range readGrafanaAlerts(t) {
		checkAlert(t, r.Title, r.For, r.Labels, r.Annotations)
		if len(r.UID) > 40 || r.UID == "" || uids[r.UID] || r.IsPaused || r.ExecErrState != "Error" || r.NoDataState != "OK" && r.NoDataState != "Alerting" {
			t.Errorf("%s: %+v", r.Title, r)
		}
		uids[r.UID] = true
		if strings.Contains(fmt.Sprint(r.UID, r.Title, r.Labels), "$") || strings.Contains(fmt.Sprint(r.Annotations), "${") {
			t.Errorf("%s: Grafana would take a $ for a variable of the environment", r.Title)
		}
		if len(r.Data) != 2 || r.Condition != "B" {
			t.Errorf("%s: not one query and one condition", r.Title)
			continue
		}
		a, b := r.Data[0], r.Data[1]
		if a.RefID != "A" || a.Model.RefID != "A" || !provisioned[a.DatasourceUID] || a.Model.Format != "table" || !a.Model.RawQuery || a.RelativeTimeRange.From <= 0 || a.RelativeTimeRange.To != 0 {
			t.Errorf("%s: query %+v", r.Title, a)
		}
		if b.RefID != "B" || b.Model.RefID != "B" || b.DatasourceUID != "__expr__" || b.Model.Type != "threshold" || b.Model.Expression != "A" || len(b.Model.Conditions) != 1 {
			t.Errorf("%s: condition %+v", r.Title, b)
		}
	}
}

// firing returns what Grafana would say of a rule at a time: the summary of each alert by its labels.
func (r alertRule) firing(t *testing.T, c *postgres.Cluster, at time.Time) map[string]string {
	t.Helper()
	query, evaluator := r.Data[0], r.Data[1].Model.Conditions[0].Evaluator
	g := grafanaSQL{from: at.Add(-time.Duration(query.RelativeTimeRange.From) * time.Second), to: at}
	rows := g.answers(t, c, query.Model.RawSQL)
	if len(rows) == 0 {
		t.Errorf("%s: no rows", r.Title)
	}
	all := map[string]string{}
	for _, row := range rows {
		labels, numbers := map[string]string{}, []float64{}
		for column, value := range row {
			switch v := value.(type) {
			case string:
				labels[column] = v
			case float64:
				numbers = append(numbers, v)
			default:
				t.Errorf("%s: column %s is %v", r.Title, column, value)
			}
		}
		if len(numbers) != 1 || len(evaluator.Params) != 1 || evaluator.Type != "gt" && evaluator.Type != "lt" {
			t.Fatalf("%s: not one number in %v, or a threshold that this test does not know: %v", r.Title, row, evaluator)
		}
		if threshold := evaluator.Params[0]; evaluator.Type == "gt" && numbers[0] > threshold || evaluator.Type == "lt" && numbers[0] < threshold {
			key, err := json.Marshal(labels)
			if err != nil {
				t.Fatal(err)
			}
			all[string(key)] = message(t, r.Annotations["summary"], labels, numbers[0])
			message(t, r.Annotations["description"], labels, numbers[0])
		}
	}
	return all
}

// Each alert of Grafana fires for the fault of the day of 20 hosts, for nothing else, and not after the repair.
func TestAlertsSQL(t *testing.T) {
	c, rules := fleetDatabase(t), readGrafanaAlerts(t)
	const newest = `INSERT INTO system_metrics SELECT '2026-03-02T23:59:30Z', host, os, metric_type, payload`
	faults := map[string]struct {
		at                           time.Time
		how, labels, summary, repair string
	}{
		"hub-host-silent": {fleetEnd, "web07 sends nothing from 23:40", `{"host":"web07"}`, "web07: no sample for 20m",
			newest + ` FROM system_metrics WHERE host = 'web07' AND metric_type = 'cpu' ORDER BY time DESC LIMIT 1`},
		"hub-disk-full-soon": {fleetDay.Add(12 * time.Hour), "/data of db2 fills up by midnight", `{"host":"db2","mount":"/data"}`, "db2: /data will be full in 0.5 days",
			`UPDATE system_metrics SET payload = jsonb_set(payload, '{/data}', (SELECT payload->'/data' FROM system_metrics WHERE host = 'db2' AND metric_type = 'disk' ORDER BY time LIMIT 1))
			WHERE host = 'db2' AND metric_type = 'disk'`},
		"hub-backup-too-old": {fleetEnd, "last night's backup failed on db3", `{"host":"db3"}`, "db3: a volume has no verified backup of the last 47h", ""},
		"hub-job-needs-a-person": {fleetEnd, "hub-status reports it", `{"host":"db3","job":"volume-backup"}`, "db3: volume-backup needs a person",
			newest + ` || '{"ok": true, "problems": [], "oldest_backup_s": 600}' FROM system_metrics
			WHERE host = 'db3' AND metric_type = 'jobs' AND payload->>'family' = 'volume-backup' ORDER BY time DESC LIMIT 1`},
	}
	if len(faults) != len(rules) {
		t.Errorf("%d rules, %d faults", len(rules), len(faults))
	}
	var table strings.Builder
	fmt.Fprintf(&table, "%-28s %-34s %s\n", "rule", "how provoked", "fired")
	for _, r := range rules {
		want := faults[r.UID]
		fired := r.firing(t, c, want.at)
		fmt.Fprintf(&table, "%-28s %-34s %s\n", r.Title, want.how, strings.Join(slices.Collect(maps.Values(fired)), "; "))
		if len(fired) != 1 || !strings.HasPrefix(fired[want.labels], want.summary) {
			t.Errorf("%s fires %v; want %s %s", r.Title, fired, want.labels, want.summary)
		}
	}
	for _, f := range faults {
		if f.repair != "" {
			psql(t, c, f.repair)
		}
	}
	for _, r := range rules {
		fired := r.firing(t, c, faults[r.UID].at)
		fmt.Fprintf(&table, "%-28s %-34s %d\n", r.Title, "... and repaired", len(fired))
		if len(fired) > 0 {
			t.Errorf("%s fires %v after the repair", r.Title, fired)
		}
	}
	t.Log("\n" + table.String())
}

package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"observability-hub/e2e/events"
	"observability-hub/e2e/nspawn"
)

// journal collects the records of some hosts, with the labels that Promtail gives them.
type journal struct {
	t      *testing.T
	docs   *events.Docs
	scrape scrape
	lines  map[string][]logLine // by their labels as JSON
	labels map[string]map[string]string
}

type logLine struct {
	Time time.Time
	Line string
}

func newJournal(t *testing.T) *journal {
	t.Helper()
	return &journal{t, events.Read(t), readPromtail(t), map[string][]logLine{}, map[string]map[string]string{}}
}

// services returns the label service of all lines.
func (j *journal) services() map[string]bool {
	all := map[string]bool{}
	for _, labels := range j.labels {
		all[labels["service"]] = true
	}
	return all
}

// add writes a record to the journal of a host, as the tool in this unit would. It must be a record that docs/events.schema.json
// allows.
func (j *journal) add(at time.Time, host, unit, level, event, service, fields string) {
	j.t.Helper()
	if fields != "" {
		fields = "," + fields
	}
	line := fmt.Sprintf(`{"time":%q,"level":%q,"msg":%q,"service":%q%s}`, at.Format("2006-01-02T15:04:05.000Z"), level, event, service, fields)
	j.docs.Check(j.t, "a synthetic record", line)
	j.line(at, host, unit, line)
}

func (j *journal) line(at time.Time, host, unit, line string) {
	j.t.Helper()
	labels, err := j.scrape.apply(nspawn.Entry{"_SYSTEMD_UNIT": unit, "PRIORITY": "6", "MESSAGE": line, "_HOSTNAME": host})
	if err != nil || labels == nil {
		j.t.Fatalf("Promtail does not send a line of %s: %v", unit, err)
	}
	key, err := json.Marshal(labels)
	if err != nil {
		j.t.Fatal(err)
	}
	j.labels[string(key)] = labels
	j.lines[string(key)] = append(j.lines[string(key)], logLine{at, line})
}

// fleetLogs makes the logs of a day of three hosts, with each event that a dashboard shows.
func fleetLogs(t *testing.T) *journal {
	t.Helper()
	j := newJournal(t)
	const old, broken, fixed = "8c0f3a1d5b7e9f2046a8c1d3e5f7091b2d4f6a8c", "1f2e3d4c5b6a79880716253443526170a9b8c7d6", "5e6f708192a3b4c5d6e7f8091a2b3c4d5e6f7081"
	for n, host := range []string{"web01", "web02", "db1"} {
		at := func(hour, minute, second int) time.Time {
			return fleetDay.Add(time.Duration(hour)*time.Hour + time.Duration(minute)*time.Minute + time.Duration(second+n)*time.Second)
		}
		for m := range 24 * 60 {
			j.add(at(0, m, 0), host, "system-metrics.service", "INFO", "flushed", "system-metrics", `"inserted":4,"duplicates":0,"rejected":0,"spooled":0,"dropped":0,"lost":0,"spool_bytes":0`)
			if m%15 != 0 {
				continue
			}
			commit := old
			if m >= 15*60 {
				commit = fixed
			}
			j.line(at(0, m, 1), host, "gitops-sync.service", "a line that is not JSON: \"msg\":\"pulled\"")
			j.add(at(0, m, 2), host, "gitops-sync.service", "INFO", "pulled", "gitops-sync",
				`"repo":"https://git.example/hub.git","ref":"main","commit":"`+commit+`","previous":null,"changed":false,"verified":true,"duration_s":0.8`)
			switch {
			case host == "web02" && m >= 20*60:
				until := "null"
				if m >= 22*60 {
					until = `"2026-03-03T06:00:00.000Z"`
				}
				j.add(at(0, m, 6), host, "gitops-apply.service", "INFO", "held", "gitops-sync", `"since":"2026-03-02T20:00:00.000Z","until":`+until)
			case m == 14*60:
				j.add(at(0, m, 6), host, "gitops-apply.service", "ERROR", "rolled_back", "gitops-sync",
					`"commit":"`+broken+`","unit":"volume-backup.timer","reason":"no next run","back_to":"`+old+`"`)
				j.add(at(0, m, 7), host, "gitops-apply.service", "ERROR", "unhealthy", "gitops-sync", `"error":"volume-backup.timer has no next run"`)
			case m > 14*60 && m < 15*60:
				j.add(at(0, m, 6), host, "gitops-apply.service", "WARN", "quarantined", "gitops-sync",
					`"detail":"the commit is not applied","commit":"`+broken+`","since":"2026-03-02T14:00:06.000Z"`)
			default:
				if m == 300 {
					j.add(at(0, m, 5), host, "gitops-apply.service", "INFO", "action", "gitops-sync",
						`"action":"update","unit":"volume-backup.timer","path":"/etc/systemd/system/volume-backup.timer","reason":"drift","commit":"`+commit+`"`)
				}
				j.add(at(0, m, 6), host, "gitops-apply.service", "INFO", "applied", "gitops-sync",
					`"commit":"`+commit+`","previous":"`+old+`","actions":0,"foreign":0,"reloaded":false,"duration_s":0.4`)
			}
		}
		for i, volume := range []string{"grafana_data", "postgres_data"} {
			consistency := "consistent"
			if host == "web02" && i == 0 {
				consistency = "changed"
			}
			if host == "db1" && i == 1 {
				j.add(at(1, 3, i), host, "volume-backup.service", "ERROR", "backed_up", "volume-backup", `"volume":"`+volume+`","outcome":"failed","error":"tar could not read all of it","pruned":0,"downtime_s":null,"duration_s":3.1`)
				j.add(at(1, 3, i), host, "volume-backup.service", "WARN", "container_killed", "volume-backup", `"detail":"Docker killed it after 10 s","volume":"`+volume+`","container":"postgres"`)
				continue
			}
			j.add(at(1, 2, i), host, "volume-backup.service", "INFO", "backed_up", "volume-backup",
				fmt.Sprintf(`"volume":%q,"outcome":"stored","id":"20260302T010200Z","bytes":%d,"stored_bytes":%d,"entries":312,"consistency":%q,"pruned":1,"downtime_s":%d.2,"duration_s":%d.5`, volume, 4_000_000<<i, 1_000_000<<i, consistency, 2<<i, 8<<i))
		}
		level, failed := "INFO", 0
		if host == "db1" {
			level, failed = "ERROR", 1
		}
		j.add(at(1, 4, 0), host, "volume-backup.service", level, "backup_finished", "volume-backup",
			fmt.Sprintf(`"volumes":2,"stored":%d,"unchanged":0,"failed":%d,"left_out":1,"pruned":2,"duration_s":26.5`, 2-failed, failed))
		if failed > 0 {
			j.add(at(1, 4, 1), host, "volume-backup.service", "ERROR", "partly_failed", "volume-backup", `"error":"1 of 2 volumes failed"`)
			j.add(at(1, 4, 2), host, "hub-failure@volume-backup.service.service", "ERROR", "unit_failed", "volume-backup",
				`"unit":"volume-backup.service","result":"exit-code","exit_code":"exited","exit_status":"11","invocation_id":"0b1c2d3e4f5061728394a5b6c7d8e9f0","restarts":0,"lines":["{\"level\":\"ERROR\",\"msg\":\"partly_failed\"}"]`)
		}
		j.add(at(10, 4, 0), host, "reading-sync-api@1-2-0.service", "WARN", "document_rejected", "reading-sync", `"detail":"a text holds a NUL","mongo_id":"65f0c0ffee0000000000000`+fmt.Sprint(n)+`","reason":"nul"`)
		j.add(at(10, 4, 1), host, "reading-sync-api@1-2-0.service", "WARN", "synced", "reading-sync",
			`"read":40,"inserted":36,"identical":2,"differing":1,"rejected":1,"marked":38,"unmarked":0,"batches":1,"duration_s":1.2`)
		j.add(at(10, 4, 2), host, "reading-sync.service", "INFO", "triggered", "reading-sync", `"processed_count":38,"calls":2,"attempts":2,"left_behind":false,"duration_s":1.4,"url":"http://localhost:8085/api/sync/reading"`)
	}
	return j
}

// logQuery is a query for e2e/logql, and where it is from.
type logQuery struct {
	Expr       string
	Start, End time.Time
	Seconds    int

	from, kind, legend string
}

var (
	eventFilter   = regexp.MustCompile(`"msg":"\(([a-z_|]+)\)"`)
	byLabels      = regexp.MustCompile(`^(?:sum|max|count) by \(([^)]*)\)`)
	serviceFilter = regexp.MustCompile(`service=~"([^"]+)"`)
	logMacros     = strings.NewReplacer("$host", ".+", "$__range", "86400s", "$__interval", "900s")
)

// logQueries returns the LogQL queries of all dashboards.
func logQueries(t *testing.T) (queries []logQuery) {
	t.Helper()
	all := allDashboards(t)
	for _, file := range slices.Sorted(maps.Keys(all)) {
		for _, p := range all[file].Panels {
			for i, target := range p.Targets {
				if target.Datasource.Type != "loki" {
					continue
				}
				q := logQuery{Expr: logMacros.Replace(target.Expr), Start: fleetDay, End: fleetEnd, from: fmt.Sprintf("%-18s %-38s %c", file, p.Title, 'A'+i), kind: p.Type, legend: target.LegendFormat}
				switch {
				case strings.Contains(q.Expr, "$"):
					t.Errorf("%s: a variable that this test does not know: %s", q.from, q.Expr)
				case target.QueryType == "range":
					q.Seconds = 900
				case target.QueryType != "instant" || p.Type != "table":
					t.Errorf("%s: a query of type %q in a panel of type %s", q.from, target.QueryType, p.Type)
				}
				queries = append(queries, q)
			}
		}
	}
	if len(queries) == 0 {
		t.Fatal("no LogQL query")
	}
	return queries
}

// checkFilters fails the test if a filter of a query names an event that is not documented, or a service that is no label.
func checkFilters(t *testing.T, queries []logQuery, services map[string]bool) {
	t.Helper()
	docs := events.Read(t)
	for _, q := range queries {
		for _, list := range eventFilter.FindAllStringSubmatch(q.Expr, -1) {
			for event := range strings.SplitSeq(list[1], "|") {
				if !docs.Documents(event) {
					t.Errorf("%s: docs/events.md has no event %s", q.from, event)
				}
			}
		}
		for _, list := range serviceFilter.FindAllStringSubmatch(q.Expr, -1) {
			for service := range strings.SplitSeq(list[1], "|") {
				if !services[service] {
					t.Errorf("%s: no line has the service %s", q.from, service)
				}
			}
		}
	}
}

// The events and services in the filters of the dashboards' LogQL are documented and labelled by Promtail.
func TestDashboardsLogQL(t *testing.T) {
	checkFilters(t, logQueries(t), fleetLogs(t).services())
}

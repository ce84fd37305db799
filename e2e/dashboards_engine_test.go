//go:build torture

package e2e

// The tests in this file are compiled only by `make torture`: on a new machine Loki's query engine takes minutes to compile.

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"observability-hub/e2e/workspace"
)

var inLegend = regexp.MustCompile(`{{(\w+)}}`)

func (q logQuery) MarshalJSON() ([]byte, error) {
	return json.Marshal(map[string]any{"expr": q.Expr, "start": q.Start, "end": q.End, "seconds": q.Seconds})
}

// logAnswer is what e2e/logql answers.
type logAnswer struct {
	Series []struct {
		Labels map[string]string
		Times  []time.Time
		Values []float64
		Lines  []string
	}
	Error string
}

// evaluate runs LogQL queries over a journal with Loki's own engine.
func evaluate(t *testing.T, j *journal, queries []logQuery) []logAnswer {
	t.Helper()
	root, err := workspace.Root()
	if err != nil {
		t.Fatal(err)
	}
	// Loki is no module of the workspace.
	t.Setenv("GOWORK", "off")
	program, err := workspace.Build(filepath.Join(root, "e2e", "logql"), "logql")
	if err != nil {
		t.Fatal(err)
	}
	var streams []map[string]any
	for key, lines := range j.lines {
		slices.SortStableFunc(lines, func(a, b logLine) int { return a.Time.Compare(b.Time) })
		streams = append(streams, map[string]any{"labels": j.labels[key], "lines": lines})
	}
	input, err := json.Marshal(map[string]any{"streams": streams, "queries": queries})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program)
	cmd.Stdin = bytes.NewReader(input)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("logql: %v: %s", err, stderr.String())
	}
	var answers []logAnswer
	decoder := json.NewDecoder(bytes.NewReader(out))
	for decoder.More() {
		var a logAnswer
		if err := decoder.Decode(&a); err != nil {
			t.Fatal(err)
		}
		answers = append(answers, a)
	}
	if len(answers) != len(queries) {
		t.Fatalf("%d answers to %d queries", len(answers), len(queries))
	}
	return answers
}

// complaints says why Grafana could not show an answer as the dashboard wants to.
func (q logQuery) complaints(a logAnswer) (all []string) {
	labels := map[string]bool{}
	for _, s := range a.Series {
		for name, value := range s.Labels {
			labels[name] = labels[name] || value != "" // a field that a line does not have is an empty label
		}
	}
	switch {
	case a.Error != "":
		return []string{a.Error}
	case len(a.Series) == 0:
		return []string{"nothing found"}
	case labels["__error__"]:
		all = append(all, "Loki cannot parse some lines")
	}
	names := inLegend.FindAllStringSubmatch(q.legend, -1)
	if by := byLabels.FindStringSubmatch(q.Expr); by != nil {
		for name := range strings.SplitSeq(by[1], ", ") {
			names = append(names, []string{"", name})
		}
	} else if q.kind != "logs" {
		all = append(all, "it does not say by which labels")
	}
	for _, name := range names {
		if !labels[name[1]] {
			all = append(all, "no series has the label "+name[1])
		}
	}
	return all
}

// wrongQueries have mistakes that complaints has to find.
var wrongQueries = []logQuery{
	{Expr: `sum by (host) (count_over_time({job="systemd-journal"} [1d])`, End: fleetEnd},                                                                         // no parenthesis
	{Expr: `sum by (host) (count_over_time({family="gitops-apply"} [1d]))`, End: fleetEnd},                                                                        // no such label
	{Expr: `sum by (host) (count_over_time({service="gitops-apply"} |= "\"msg\":\"rolledback\"" [1d]))`, End: fleetEnd},                                           // no such event
	{Expr: `sum by (host, failed) (count_over_time({service="volume-backup"} |= "\"msg\":\"unit_failed\"" | json failed="name" [1d]))`, End: fleetEnd},            // no such field
	{Expr: `max by (host) (max_over_time({service="volume-backup"} |= "\"msg\":\"backed_up\"" | json volume="volume" | unwrap volume [1d]))`, End: fleetEnd},      // a text is no number
	{Expr: `sum by (host) (count_over_time({service="gitops-apply"} | json | label_format at=` + "`{{ __timestamp__ | unixMillis }}`" + ` [1d]))`, End: fleetEnd}, // no such function
	{Expr: `sum by (host) (count_over_time({service="gitops-apply"} [1d]))`, End: fleetEnd, legend: "{{unit}}"},                                                   // a label that is summed up
	{Expr: `{service="gitops-apply"} | json reason="reason" | reason="drifted"`, Start: fleetDay, End: fleetEnd, Seconds: 900, kind: "logs"},                      // no such value
	{Expr: `{service="gitops-sync"} |= "pulled" | json commit="commit"`, Start: fleetDay, End: fleetEnd, Seconds: 900, kind: "logs"},                              // a line that is not JSON
}

// Loki's own engine evaluates each LogQL query of each dashboard over a day of records. The records are valid by
// docs/events.schema.json, and the relabel rules of Promtail give them their labels, so that a wrong name of an event, a field or
// a label finds nothing.
func TestDashboardsTortureLogQL(t *testing.T) {
	j, queries := fleetLogs(t), logQueries(t)
	var table strings.Builder
	fmt.Fprintf(&table, "%-18s %-38s %-5s %6s %6s\n", "dashboard", "panel", "query", "series", "points")
	found := map[string]logAnswer{}
	answers := evaluate(t, j, append(queries, wrongQueries...))
	for i, q := range queries {
		a := answers[i]
		points := 0
		for _, s := range a.Series {
			points += len(s.Times)
		}
		fmt.Fprintf(&table, "%-63s %6d %6d\n", q.from, len(a.Series), points)
		found[strings.Join(strings.Fields(q.from), " ")] = a
		for _, complaint := range q.complaints(a) {
			t.Errorf("%s: %s\n%s", q.from, complaint, q.Expr)
		}
	}
	for i, q := range wrongQueries {
		if len(q.complaints(answers[len(queries)+i])) == 0 {
			t.Errorf("this test does not see what is wrong with %s", q.Expr)
		}
	}
	t.Log("\n" + table.String())

	// The panels show the faults of the day.
	for _, test := range []struct {
		panel  string
		series int
		labels map[string]string // of one series
		value  float64           // its first
	}{
		{"jobs.json Last success of each job A", 3*4 + 2, map[string]string{"host": "web02", "unit": "gitops-apply.service"}, float64(fleetDay.Add(23*time.Hour + 45*time.Minute + 7*time.Second).UnixMilli())},
		{"jobs.json Failures of each unit A", 1, map[string]string{"host": "db1", "failed": "volume-backup.service", "result": "exit-code", "exit_status": "11"}, 1},
		{"backups.json Last verified backup of each volume A", 5, map[string]string{"host": "db1", "volume": "grafana_data"}, float64(fleetDay.Add(time.Hour + 2*time.Minute + 2*time.Second).UnixMilli())},
		{"backups.json Failed backups of each volume A", 1, map[string]string{"host": "db1", "volume": "postgres_data", "error": "tar could not read all of it"}, 1},
		{"gitops.json Hosts of each commit A", 1, map[string]string{"commit": "5e6f708192a3b4c5d6e7f8091a2b3c4d5e6f7081"}, 3},
		{"gitops.json Rollbacks A", 3, map[string]string{"host": "web01", "failed": "volume-backup.timer", "reason": "no next run", "commit": "1f2e3d4c5b6a79880716253443526170a9b8c7d6", "back_to": "8c0f3a1d5b7e9f2046a8c1d3e5f7091b2d4f6a8c"}, 1},
		{"reading-sync.json Documents of a sync D", 1, map[string]string{"service": "reading-sync-api"}, 3},
	} {
		a, has := found[test.panel]
		if !has {
			t.Errorf("no query %s", test.panel)
			continue
		}
		if len(a.Series) != test.series {
			t.Errorf("%s: %d series; want %d", test.panel, len(a.Series), test.series)
		}
		ok := false
		for _, s := range a.Series {
			ok = ok || maps.Equal(s.Labels, test.labels) && s.Values[0] == test.value
		}
		if !ok {
			t.Errorf("%s: no series %v with %v: %v", test.panel, test.labels, test.value, a.Series)
		}
	}
}

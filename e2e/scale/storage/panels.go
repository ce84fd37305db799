package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"observability-hub/e2e/workspace"
)

// query is an SQL query of a dashboard.
type query struct{ dashboard, panel, sql string }

// queries reads the SQL queries of all dashboards.
func queries() ([]query, error) {
	root, err := workspace.Root()
	if err != nil {
		return nil, err
	}
	files, err := filepath.Glob(filepath.Join(root, "deploy", "grafana", "dashboards", "*.json"))
	if err != nil {
		return nil, err
	}
	var all []query
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		var d struct {
			Templating struct {
				List []struct {
					Name, Type, Query string
					Datasource        struct{ Type string }
				}
			}
			Panels []struct {
				Title   string
				Targets []struct{ RawSQL string }
			}
		}
		// A Loki variable's query is an object.
		if err := json.Unmarshal(content, &d); err != nil && len(d.Panels) == 0 {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		name := strings.TrimSuffix(filepath.Base(file), ".json")
		for _, v := range d.Templating.List {
			if v.Type == "query" && strings.HasPrefix(v.Query, "SELECT") {
				all = append(all, query{name, "variable " + v.Name, v.Query})
			}
		}
		for _, p := range d.Panels {
			for i, t := range p.Targets {
				if t.RawSQL != "" {
					title := p.Title
					if len(p.Targets) > 1 {
						title += fmt.Sprintf(" (%c)", 'A'+i)
					}
					all = append(all, query{name, title, t.RawSQL})
				}
			}
		}
	}
	return all, nil
}

var (
	timeFilter = regexp.MustCompile(`\$__timeFilter\((\w+)\)`)
	timeGroup  = regexp.MustCompile(`\$__timeGroupAlias\((\w+), \$__interval\)`)
)

// grafana replaces macros and variables as Grafana does for a panel of about 500 points.
func (b *bench) grafana(sql string, last time.Duration) string {
	from, to := "'"+b.end.Add(-last).Format(time.RFC3339)+"'", "'"+b.end.Format(time.RFC3339)+"'"
	step := max(60, int(last.Seconds())/500/60*60)
	sql = timeFilter.ReplaceAllString(sql, "$1 BETWEEN "+from+" AND "+to)
	sql = timeGroup.ReplaceAllString(sql, fmt.Sprintf(`floor(extract(epoch from $1)/%[1]d)*%[1]d AS "time"`, step))
	return strings.NewReplacer("$__timeTo()", to, "${host:sqlstring}", fmt.Sprintf("'web%04d.example.org'", b.hosts/2)).Replace(sql)
}

// measure returns the median of three runs, the first of which fills the caches, and the number of rows.
func (b *bench) measure(sql string) (time.Duration, int, error) {
	var took []time.Duration
	n := 0
	for range 3 {
		begun := time.Now()
		rows, err := b.db.Query(sql)
		if err != nil {
			return 0, 0, err
		}
		took, n = append(took, time.Since(begun)), len(rows)
		if took[0] > 5*time.Second {
			break // a slow query is slow once
		}
	}
	slices.Sort(took)
	return took[len(took)/2], n, nil
}

func (b *bench) panels(w io.Writer) error {
	all, err := queries()
	if err != nil {
		return err
	}
	month := time.Duration(b.days) * 24 * time.Hour
	factor := float64(b.fullRows()) / float64(b.rows)
	fmt.Fprintf(w, "### Time of each query\n\nOver the last day with a sample a minute, and over %d days. The third figure is the second one times %.1f, for a sample a minute on all days; hourly means are complete, and not multiplied.\n\n", b.days, factor)
	fmt.Fprintf(w, "| dashboard | panel | 1 day, ms | %d days, ms | with all samples, ms |\n|---|---|---:|---:|---:|\n", b.days)
	for _, q := range all {
		if q.dashboard == "weeks" && strings.Contains(q.sql, "${") && !strings.Contains(q.sql, "${host:sqlstring}") {
			return fmt.Errorf("%s: a variable that this program does not know: %s", q.panel, q.sql)
		}
		day, _, err := b.measure(b.grafana(q.sql, 24*time.Hour))
		if err != nil {
			return fmt.Errorf("%s: %s: %w", q.dashboard, q.panel, err)
		}
		long, _, err := b.measure(b.grafana(q.sql, month))
		if err != nil {
			return fmt.Errorf("%s: %s: %w", q.dashboard, q.panel, err)
		}
		full := float64(long.Microseconds()) / 1000
		if strings.Contains(q.sql, "system_metrics") && !strings.Contains(q.sql, "system_metrics_hourly") {
			full *= factor
		}
		fmt.Fprintf(w, "| %s | %s | %.0f | %.0f | %.0f |\n", q.dashboard, q.panel, float64(day.Microseconds())/1000, float64(long.Microseconds())/1000, full)
	}
	return nil
}

// explain prints the plans of a panel's queries.
func (b *bench) explain(w io.Writer, panel string) error {
	all, err := queries()
	if err != nil {
		return err
	}
	for _, q := range all {
		if !strings.HasPrefix(q.panel, panel) {
			continue
		}
		for _, last := range []time.Duration{24 * time.Hour, time.Duration(b.days) * 24 * time.Hour} {
			sql := b.grafana(q.sql, last)
			if err := b.db.Exec("SELECT 1 FROM (" + sql + ") warm"); err != nil {
				return err
			}
			rows, err := b.db.Query("EXPLAIN (ANALYZE, BUFFERS) " + sql)
			if err != nil {
				return err
			}
			fmt.Fprintf(w, "%s, %s, %v:\n%s\n", q.dashboard, q.panel, last, sql)
			for _, r := range rows {
				fmt.Fprintln(w, "    "+r[0])
			}
		}
	}
	return nil
}

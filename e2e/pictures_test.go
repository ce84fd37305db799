package e2e

import (
	"bytes"
	"flag"
	"fmt"
	"html"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"observability-hub/e2e/workspace"
)

var updatePictures = flag.Bool("pictures", false, "draw docs/pictures again")

// picture is a panel of a dashboard as it is drawn for docs/pictures.
type picture struct {
	file, panel string // "fleet.json: CPU busy, the 10 busiest hosts"
	title       string
	unit        string
	scale       float64 // what a value is divided by to have the unit
	most        float64 // the upper end of the axis
	named       []string
	note        string
}

var pictures = []picture{
	{"cpu.svg", "fleet.json: CPU busy, the 10 busiest hosts", "CPU busy, the 10 busiest hosts", "%", 1, 100, []string{"db1"},
		"db1 is busy from 14:00 to 15:00"},
	{"disk.svg", "host.json: Disk used", "Disk used on db2", "%", 1, 100, []string{"/data", "/"},
		"/data fills up and is full at midnight"},
	{"backups.svg", "backups.json: Age of the oldest backup", "Age of the oldest backup of each host", "h", 3600, 48, []string{"db3"},
		"last night's backup failed on db3"},
}

// point is a value of a series.
type point struct {
	at    time.Time
	value float64
}

// seriesOf sorts the rows of a query by series, as Grafana does: by the text in "metric", or a series for each column.
func seriesOf(t *testing.T, rows []map[string]any) map[string][]point {
	t.Helper()
	all := map[string][]point{}
	for _, row := range rows {
		var at time.Time
		switch v := row["time"].(type) {
		case float64: // of $__timeGroupAlias
			at = time.Unix(int64(v), 0)
		case string:
			var err error
			if at, err = time.Parse(time.RFC3339, v); err != nil {
				t.Fatal(err)
			}
		}
		name, named := row["metric"].(string)
		for column, value := range row {
			if v, ok := value.(float64); ok && column != "time" {
				if !named {
					name = column
				}
				all[name] = append(all[name], point{at, v})
			}
		}
	}
	return all
}

// draw returns the picture of a query's rows as SVG: the named series in colour with their names, the others in grey.
func (p picture) draw(series map[string][]point) []byte {
	const (
		width, height            = 800.0, 300.0
		left, right, top, bottom = 52.0, 96.0, 52.0, 32.0
	)
	x := func(at time.Time) float64 {
		return left + (width-left-right)*at.Sub(fleetDay).Seconds()/fleetEnd.Sub(fleetDay).Seconds()
	}
	y := func(v float64) float64 {
		return height - bottom - (height-top-bottom)*math.Min(v/p.scale, p.most)/p.most
	}
	var b bytes.Buffer
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %.0f %.0f" font-family="sans-serif" font-size="12" role="img" aria-label="%s: %s">`, width, height, html.EscapeString(p.title), html.EscapeString(p.note))
	line(`<rect width="100%%" height="100%%" fill="#ffffff"/>`)
	line(`<text x="%.0f" y="20" font-size="15" fill="#1f2328">%s</text>`, left, html.EscapeString(p.title))
	line(`<text x="%.0f" y="38" fill="#59636e">%s</text>`, left, html.EscapeString(p.note))
	for i := range 5 {
		v := p.most * float64(i) / 4
		line(`<path d="M%.0f %.1fH%.0f" stroke="#d1d9e0"/><text x="%.0f" y="%.1f" text-anchor="end" fill="#59636e">%.0f %s</text>`,
			left, y(v*p.scale), width-right, left-6, y(v*p.scale)+4, v, p.unit)
	}
	for hour := 0; hour <= 24; hour += 4 {
		line(`<text x="%.1f" y="%.0f" text-anchor="middle" fill="#59636e">%02d:00</text>`, x(fleetDay.Add(time.Duration(hour)*time.Hour)), height-bottom+18, hour)
	}
	path := func(name, colour, thickness string, apart time.Duration) {
		var d strings.Builder
		command := 'M'
		var last time.Time
		for i, at := range series[name] {
			// A file with each minute of each host would be large, and a pixel is two minutes.
			if i > 0 && i < len(series[name])-1 && at.at.Sub(last) < apart-5*time.Second {
				continue
			}
			fmt.Fprintf(&d, "%c%.1f %.1f", command, x(at.at), y(at.value))
			command, last = 'L', at.at
		}
		line(`<path d="%s" fill="none" stroke="%s" stroke-width="%s"/>`, d.String(), colour, thickness)
	}
	for _, name := range slices.Sorted(maps.Keys(series)) {
		if !slices.Contains(p.named, name) {
			path(name, "#c4ccd4", "1", 15*time.Minute)
		}
	}
	for i, name := range p.named {
		colour := []string{"#cf222e", "#0969da"}[i%2]
		path(name, colour, "2", 5*time.Minute)
		if points := series[name]; len(points) > 0 {
			line(`<text x="%.0f" y="%.1f" fill="%s">%s</text>`, width-right+6, y(points[len(points)-1].value)+4, colour, html.EscapeString(name))
		}
	}
	if len(series) > len(p.named) {
		line(`<text x="%.0f" y="%.0f" text-anchor="end" fill="#59636e">grey: %d other hosts</text>`, width-8, 20.0, len(series)-len(p.named))
	}
	line(`</svg>`)
	return b.Bytes()
}

// checkPictures compares the pictures in docs/pictures with what the rows of the dashboards' queries give, or draws them again.
func checkPictures(t *testing.T, found map[string][]map[string]any) {
	t.Helper()
	root, err := workspace.Root()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range pictures {
		series := seriesOf(t, found[p.panel])
		for _, name := range p.named {
			if len(series[name]) == 0 {
				t.Errorf("%s: no series %s", p.panel, name)
			}
		}
		want := p.draw(series)
		path := filepath.Join(root, "docs", "pictures", p.file)
		if *updatePictures {
			if err := os.WriteFile(path, want, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s is not what the queries give (%v): go test -run TestDashboardsSQL ./e2e -pictures", path, err)
		}
	}
}

// Package table shows records to a person: JSON lines become aligned columns on a
// terminal. Into a pipe or a file the records go as they are.
package table

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"observability-hub/lib/cli"
	"observability-hub/lib/record"
)

// Flag is the flag --json of a command that shows its records to a person.
type Flag struct {
	JSON bool `name:"json"`
}

// Help is the line about --json for [cli.App.Flags].
const Help = "json                Print JSON records on a terminal too, as into a pipe.\n"

// Columns are the keys that are shown of each kind of record, by its msg. A kind
// that is not in it is shown with all its keys, one below the other.
type Columns map[string][]string

// Show returns what shows records on w, or nil with --json.
func (f Flag) Show(w io.Writer, columns Columns) cli.Viewer {
	if f.JSON {
		return nil
	}
	return &view{w: w, columns: columns}
}

// view collects records with the same columns.
type view struct {
	w       io.Writer
	columns Columns
	kind    string // the msg of the last record
	rows    []map[string]any
	shown   bool // something has been printed
}

// View implements [cli.Viewer].
func (v *view) View(lines []byte) error {
	for line := range bytes.Lines(lines) {
		row := map[string]any{}
		keys, err := parse(line, row)
		if err != nil {
			return fmt.Errorf("show a record: %w", err)
		}
		kind, _ := row["msg"].(string)
		if !slices.Equal(v.columns[kind], v.columns[v.kind]) { // rows with the same columns share a table
			if err := v.Close(); err != nil {
				return err
			}
		}
		v.kind = kind
		if len(v.columns[kind]) > 0 {
			v.rows = append(v.rows, row)
			continue
		}
		if err := v.list(keys, row); err != nil {
			return err
		}
	}
	return nil
}

// Close prints the rows that are left.
func (v *view) Close() error {
	if len(v.rows) == 0 {
		return nil
	}
	// A column in which no row has a value is left out.
	columns := slices.DeleteFunc(slices.Clone(v.columns[v.kind]), func(key string) bool {
		return !slices.ContainsFunc(v.rows, func(row map[string]any) bool { return row[key] != nil })
	})
	table := v.begin()
	for i, key := range columns {
		table.cell(strings.ToUpper(title(key)), i == len(columns)-1)
	}
	for _, row := range v.rows {
		for i, key := range columns {
			table.cell(cell(key, row[key]), i == len(columns)-1)
		}
	}
	v.rows = nil
	return table.Flush()
}

// list prints all keys of a record, one below the other.
func (v *view) list(keys []string, row map[string]any) error {
	table := v.begin()
	for _, key := range keys {
		switch key {
		case "time", "level", "msg", "service":
		default:
			table.cell(title(key), false)
			table.cell(cell(key, row[key]), true)
		}
	}
	return table.Flush()
}

type writer struct{ *tabwriter.Writer }

// begin starts a table, after an empty line if it is not the first one.
func (v *view) begin() writer {
	if v.shown {
		_, _ = io.WriteString(v.w, "\n") // Flush reports a failing terminal
	}
	v.shown = true
	return writer{tabwriter.NewWriter(v.w, 0, 0, 2, ' ', 0)}
}

func (w writer) cell(text string, last bool) {
	end := "\t"
	if last {
		end = "\n"
	}
	_, _ = io.WriteString(w, text+end)
}

// parse decodes one record and returns its keys in their order.
func parse(line []byte, row map[string]any) (keys []string, err error) {
	d := json.NewDecoder(bytes.NewReader(line))
	d.UseNumber()
	if _, err := d.Token(); err != nil { // {
		return nil, err
	}
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return nil, err
		}
		var value any
		if err := d.Decode(&value); err != nil {
			return nil, err
		}
		name, _ := key.(string)
		keys, row[name] = append(keys, name), value
	}
	return keys, nil
}

// title is a key without its unit, which the value shows.
func title(key string) string {
	key = strings.TrimSuffix(key, "_s")
	if key != "bytes" {
		key = strings.TrimSuffix(key, "_bytes")
	}
	return strings.ReplaceAll(key, "_", " ")
}

// cell is the value of a key for a person. The name of the key shows its unit.
func cell(key string, value any) string {
	switch v := value.(type) {
	case nil:
		return "-"
	case bool:
		if v {
			return "yes"
		}
		return "no"
	case json.Number:
		switch n, err := v.Float64(); {
		case err != nil:
		case strings.HasSuffix(key, "_s"):
			return duration(n)
		case strings.HasSuffix(key, "bytes"):
			return size(n)
		}
		return v.String()
	case string:
		return text(v)
	case []any:
		parts := make([]string, len(v))
		for i, part := range v {
			parts[i] = cell(key, part)
		}
		if len(parts) == 0 {
			return "-"
		}
		return strings.Join(parts, ", ")
	default:
		b, err := json.Marshal(v)
		if err != nil {
			return fmt.Sprint(v)
		}
		return string(b)
	}
}

// text is a string that a terminal can show: a time in the local zone, the first
// characters of a Git commit, and no control characters.
func text(s string) string {
	if t, err := time.Parse(record.TimeFormat, s); err == nil {
		return t.Local().Format("2006-01-02 15:04:05")
	}
	const commit, short = 40, 12
	if len(s) == commit && strings.Trim(s, "0123456789abcdef") == "" {
		return s[:short]
	}
	if strings.ContainsFunc(s, func(r rune) bool { return !strconv.IsPrint(r) }) {
		return strconv.Quote(s)
	}
	if s == "" {
		return `""`
	}
	return s
}

// duration is a number of seconds in its two largest units.
func duration(seconds float64) string {
	d := time.Duration(seconds * float64(time.Second)).Round(time.Second)
	const day = 24 * time.Hour
	switch {
	case d >= day:
		return fmt.Sprintf("%dd %dh", d/day, d%day/time.Hour)
	case d >= time.Hour:
		return fmt.Sprintf("%dh %dm", d/time.Hour, d%time.Hour/time.Minute)
	case d >= time.Minute:
		return fmt.Sprintf("%dm %ds", d/time.Minute, d%time.Minute/time.Second)
	default:
		return fmt.Sprintf("%ds", d/time.Second)
	}
}

// size is a number of bytes in the largest unit of which it has one.
func size(n float64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB"}
	i := 0
	for ; n >= 1024 && i < len(units)-1; i++ {
		n /= 1024
	}
	if i == 0 {
		return fmt.Sprintf("%.0f %s", n, units[i])
	}
	return fmt.Sprintf("%.1f %s", n, units[i])
}

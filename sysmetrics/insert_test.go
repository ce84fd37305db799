package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"
)

func at(text string) time.Time {
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		panic(err)
	}
	return t
}

func rec(host, when, payload string) entry {
	line := fmt.Sprintf(`{"time":%q,"host":%q,"os":"debian 12","metric_type":"cpu","payload":%s}`+"\n", when, host, payload)
	return entry{line: []byte(line), host: host, time: at(when)}
}

// literal parses the first string literal of a statement as the server does, and
// returns its value and the text after it. A doubled quote stands for a quote. In
// E'…' a backslash makes the next character literal, unless that is a letter or a
// digit, which the quoting must never put after a backslash.
func literal(t *testing.T, sql string) (value, rest string) {
	t.Helper()
	i := strings.IndexByte(sql, '\'')
	escapes := i > 0 && (sql[i-1] == 'E' || sql[i-1] == 'e')
	var b strings.Builder
	for i++; i < len(sql); i++ {
		switch c := sql[i]; {
		case c == '\\' && escapes:
			if i++; i == len(sql) || sql[i] != '\\' && sql[i] != '\'' {
				t.Fatalf("an escape with a special meaning in %q", sql)
			}
			b.WriteByte(sql[i])
		case c == '\'' && i+1 < len(sql) && sql[i+1] == '\'':
			b.WriteByte('\'')
			i++
		case c == '\'':
			return b.String(), sql[i+1:]
		default:
			b.WriteByte(c)
		}
	}
	t.Fatalf("a literal without an end in %q", sql)
	return "", ""
}

// hostile are records that try to end their literal.
var hostile = []string{
	`{"a":"'; DROP TABLE system_metrics; --"}`,
	`{"a":"\\'; DROP TABLE system_metrics; --"}`,
	`{"a":"\\"}`,
	`{"a":"\\\\'"}`,
	`{"a":"''"}`,
	`{"a":"\u0027 \u005c \u0000"}`,
	`{"a":"$$ $1 %s ? :name E'x' -- /*"}`,
	`{"'":{"\\":"é\u2028😀"}}`,
}

func TestInsertSQLQuotes(t *testing.T) {
	var all []entry
	for i, payload := range hostile {
		all = append(all, rec("web'1\\", fmt.Sprintf("2026-01-02T03:04:%02dZ", i), payload))
	}
	for _, batch := range append([][]entry{all}, split(all)...) {
		wantQuoted(t, batch)
	}
}

func split(batch []entry) (parts [][]entry) {
	for _, e := range batch {
		parts = append(parts, []entry{e})
	}
	return parts
}

// wantQuoted checks that the server sees the records of a batch unchanged, in one
// literal, and that the statement contains them nowhere else.
func wantQuoted(t *testing.T, batch []entry) {
	t.Helper()
	sql := insertSQL(batch, time.Time{}, false)
	value, rest := literal(t, sql[strings.Index(sql, "INSERT"):])
	if value != "" { // coalesce(r.os, '')
		t.Fatalf("the first literal is %q in %s", value, sql)
	}
	value, rest = literal(t, rest)
	var got []map[string]json.RawMessage
	if err := json.Unmarshal([]byte(value), &got); err != nil || len(got) != len(batch) {
		t.Fatalf("the literal is %d records, %v; want %d: %s", len(got), err, len(batch), value)
	}
	for i, e := range batch {
		var want map[string]json.RawMessage
		if err := json.Unmarshal(e.line, &want); err != nil {
			t.Fatal(err)
		}
		maps.DeleteFunc(want, func(name string, _ json.RawMessage) bool {
			return !slices.Contains([]string{"time", "host", "os", "metric_type", "payload"}, name)
		})
		if !maps.EqualFunc(got[i], want, func(a, b json.RawMessage) bool { return string(a) == string(b) }) {
			t.Errorf("record %d reads %s; want %s", i, got[i], want)
		}
	}
	// After it there are only our own text and the two time bounds.
	for range 3 {
		if value, after := literal(t, rest); value != "second" && !strings.HasSuffix(value, "+00") {
			t.Errorf("literal %q in %s", value, rest)
		} else {
			rest = after
		}
	}
	if strings.ContainsAny(rest, `'\`) {
		t.Errorf("more literals in %s", rest)
	}
}

func TestInsertSQLBounds(t *testing.T) {
	batch := []entry{
		rec("b", "2026-01-02T03:05:00.25Z", "{}"), rec("a", "2026-01-02T01:00:00+02:00", "{}"), rec("b", "2026-01-03T00:00:00Z", "{}"), rec("a", "2026-01-02T03:00:00Z", "{}"),
	}
	sql := insertSQL(batch, time.Time{}, false)
	if want := "BETWEEN '2026-01-01 22:59:59+00' AND '2026-01-03 00:00:01+00'"; !strings.Contains(sql, want) {
		t.Errorf("no %q in %s", want, sql)
	}
	// One lock for each host, in the same order for every order of the records.
	batch[0], batch[1] = batch[1], batch[0]
	locks := func(sql string) string {
		return sql[strings.Index(sql, "SELECT pg_advisory"):strings.Index(sql, "INSERT")]
	}
	if a, b := locks(sql), locks(insertSQL(batch, time.Time{}, false)); a != b || strings.Count(a, "pg_advisory_xact_lock(") != 2 {
		t.Errorf("locks are %q in one order of the records and %q in another; want the same two", a, b)
	}
	if lockKey("a") == lockKey("b") {
		t.Error("two hosts share one lock")
	}
}

// The server removes repeated records only if there may be some.
func TestInsertSQLRepeated(t *testing.T) {
	a := rec("a", "2026-01-02T03:04:05Z", "{}")
	other := entry{line: []byte(strings.Replace(string(a.line), `"cpu"`, `"disk"`, 1)), host: "a", time: a.time}
	escaped := entry{line: []byte(strings.Replace(string(a.line), `"cpu"`, `"c\u0070u"`, 1)), host: "a", time: a.time}
	damaged := entry{line: []byte("{\n")}
	for _, tc := range []struct {
		name  string
		batch []entry
		want  bool
	}{
		{"one", []entry{a}, false},
		{"another host", []entry{a, rec("b", "2026-01-02T03:04:05Z", "{}")}, false},
		{"another type", []entry{a, other}, false},
		{"a minute later", []entry{a, other, rec("a", "2026-01-02T03:05:05Z", "{}")}, false},
		{"the same", []entry{a, a}, true},
		{"the same, spelt otherwise", []entry{a, escaped}, true},
		{"a table of whole seconds rounds both to one", []entry{a, rec("a", "2026-01-02T03:04:05.4Z", "{}")}, true},
		{"not in the order of time", []entry{a, rec("a", "2026-01-02T03:05:05Z", "{}"), a}, true},
		{"damaged", []entry{a, damaged}, true},
		{"without a type", []entry{{line: []byte(`{"host":"a"}`), host: "a", time: a.time}}, true},
	} {
		sql := insertSQL(tc.batch, time.Time{}, false)
		if got := strings.Contains(sql, "DISTINCT"); got != tc.want {
			t.Errorf("%s: DISTINCT is %v; want %v", tc.name, got, tc.want)
		}
	}
}

func TestPartitionSQL(t *testing.T) {
	now := at("2026-03-10T12:00:00Z")
	for _, tc := range []struct {
		times []string
		want  []string // the days
	}{
		{[]string{"2026-03-10T00:00:00Z", "2026-03-10T23:59:59.999Z"}, []string{"20260310"}},
		{[]string{"2026-03-10T23:59:59.999Z", "2026-03-11T00:00:00Z"}, []string{"20260310", "20260311"}},
		{[]string{"2026-03-11T01:00:00+02:00"}, []string{"20260310"}},   // days are in UTC
		{[]string{"2025-02-10T12:00:00Z"}, []string{"20250210"}},        // spooled for a year
		{[]string{"2025-01-01T12:00:00Z", "1970-01-01T00:00:00Z"}, nil}, // a clock that was never set
		{[]string{"2026-03-12T00:00:00Z"}, []string{"20260312"}},
		{[]string{"2026-03-13T00:00:00Z", "9999-12-31T00:00:00Z"}, nil}, // a clock that is ahead
		{[]string{"1970-01-01T00:00:00Z", "2026-03-10T00:00:00Z"}, []string{"20260310"}},
	} {
		var batch []entry
		for _, when := range tc.times {
			batch = append(batch, rec("a", when, "{}"))
		}
		var want []string
		for _, day := range tc.want {
			from, err := time.Parse("20060102", day)
			if err != nil {
				t.Fatal(err)
			}
			want = append(want, fmt.Sprintf("CREATE TABLE system_metrics_p%s PARTITION OF system_metrics FOR VALUES FROM ('%s 00:00:00+00') TO ('%s 00:00:00+00')",
				day, from.Format(time.DateOnly), from.AddDate(0, 0, 1).Format(time.DateOnly)))
		}
		if got := partitionSQL(batch, now); !slices.Equal(got, want) {
			t.Errorf("partitionSQL(%q) = %q; want %q", tc.times, got, want)
		}
	}
}

// FuzzInsertSQL looks for a record that ends its literal.
func FuzzInsertSQL(f *testing.F) {
	for _, payload := range hostile {
		f.Add([]byte(rec("web1", "2026-01-02T03:04:05Z", payload).line))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		e, err := parseRecord(line)
		if err != nil || e.hasNUL() {
			return
		}
		wantQuoted(t, []entry{e})
	})
}

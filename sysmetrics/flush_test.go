package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"observability-hub/lib/sysexits"
)

func TestParseRecord(t *testing.T) {
	const good = `{"time":"2026-01-02T03:04:05.678Z","host":"web1","metric_type":"cpu","payload":{"usage":1}}`
	for _, tc := range []struct {
		line string
		err  string
	}{
		{good, ""},
		{"  " + good + "\r\n", ""},
		{strings.Replace(good, `"payload":{`, `"payload": {`, 1), ""},
		{strings.Replace(good, `Z"`, `+02:00"`, 1), ""},
		{strings.Replace(good, `"host"`, `"level":"INFO","msg":"sample","more":[1],"host"`, 1), ""},
		{"x", "not a record"},
		{good[:len(good)-1], "not a record"},
		{good + good, "not a record"},
		{"[" + good + "]", "not a record"},
		{"null", "no time"},
		{"{}", "no time"},
		{strings.Replace(good, "2026-01-02T03:04:05.678Z", "yesterday", 1), "not a record"},
		{strings.Replace(good, "2026-01-02T", "2026-13-02T", 1), "not a record"},
		{strings.Replace(good, `"time":`, `"at":`, 1), "no time"},
		{strings.Replace(good, `"web1"`, `""`, 1), "no host"},
		// PostgreSQL distinguishes names by case, so a field Host is not the host.
		{strings.Replace(good, `"host"`, `"HOST"`, 1), "no host"},
		{strings.Replace(good, `"host"`, `"HOST":7,"host"`, 1), ""},
		{strings.Replace(good, `"web1"`, `7`, 1), "not a record"},
		{strings.Replace(good, `"cpu"`, `""`, 1), "no metric_type"},
		{strings.Replace(good, `{"usage":1}`, `"x"`, 1), "payload"},
		{strings.Replace(good, `{"usage":1}`, `null`, 1), "payload"},
		{strings.Replace(good, `{"usage":1}`, `[]`, 1), "payload"},
		{strings.Replace(good, `,"payload":{"usage":1}`, ``, 1), "payload"},
		{strings.Replace(good, "web1", "we\x00b", 1), "not a record"},
		{strings.Replace(good, "web1", "we\tb", 1), "not a record"},
	} {
		e, err := parseRecord([]byte(tc.line))
		if tc.err != "" {
			if err == nil || !strings.Contains(err.Error(), tc.err) {
				t.Errorf("parseRecord(%q) = %v; want an error with %q", tc.line, err, tc.err)
			}
			continue
		}
		if err != nil || e.host != "web1" || e.time.IsZero() {
			t.Errorf("parseRecord(%q) = %+v, %v", tc.line, e, err)
		}
		wantOneLine(t, e)
	}
}

// wantOneLine checks that an entry is one line of JSON and that describe returns
// its host and time. The spool relies on both.
func wantOneLine(t *testing.T, e entry) {
	t.Helper()
	if bytes.IndexByte(e.line, '\n') != len(e.line)-1 || !json.Valid(e.line) {
		t.Fatalf("%q is not one line of JSON", e.line)
	}
	if host, when := describe(e.line); host != e.host || !when.Equal(e.time) {
		t.Fatalf("describe(%q) = %q, %v; want %q, %v", e.line, host, when, e.host, e.time)
	}
}

// read returns the inputs that readRecords sends.
func read(r io.Reader) (all []input) {
	lines := make(chan input)
	go readRecords(r, lines, nil)
	for in := range lines {
		all = append(all, in)
	}
	return all
}

func TestReadRecords(t *testing.T) {
	good := string(rec("web1", "2026-01-02T03:04:05Z", "{}").line)
	long := string(rec("web1", "2026-01-02T03:04:05Z", `{"x":"`+strings.Repeat("x", maxRecord)+`"}`).line)
	fits := string(rec("web1", "2026-01-02T03:04:05Z", `{"x":"`+strings.Repeat("x", maxRecord-500)+`"}`).line)
	for _, tc := range []struct {
		name, text string
		want       string // the number of each line, followed by ! if the line is not a record
	}{
		{"nothing", "", ""},
		{"one", good, "1"},
		{"no line break at the end", strings.TrimSuffix(good, "\n"), "1"},
		{"empty lines", "\n" + good + "\n \r\n" + good, "2 5"},
		{"garbage in between", good + "garbage\n" + good, "1 2! 3"},
		{"torn at the end", good + good[:20], "1 2!"},
		{"longer than a buffer", fits + good, "1 2"},
		{"too long", long + good, "1! 2"},
		{"too long, at the end", good + strings.TrimSuffix(long, "\n"), "1 2!"},
	} {
		for how, r := range map[string]io.Reader{
			"whole": strings.NewReader(tc.text), "in halves": iotest.HalfReader(strings.NewReader(tc.text)), "with the end": iotest.DataErrReader(strings.NewReader(tc.text)),
		} {
			var got []string
			for _, in := range read(r) {
				mark := ""
				if in.err != nil {
					mark = "!"
				}
				got = append(got, fmt.Sprint(in.number, mark))
			}
			if strings.Join(got, " ") != strings.ReplaceAll(tc.want, "!", " !") && strings.Join(got, " ") != tc.want {
				t.Errorf("%s, %s: lines %q; want %q", tc.name, how, got, tc.want)
			}
		}
	}
	broken := errors.New("broken")
	all := read(io.MultiReader(strings.NewReader(good), iotest.ErrReader(broken)))
	if len(all) != 2 || all[0].err != nil || !errors.Is(all[1].err, broken) {
		t.Errorf("a stream that fails: %+v; want the record and the error", all)
	}
}

func FuzzReadRecords(f *testing.F) {
	good := rec("web1", "2026-01-02T03:04:05.678Z", `{"a":"\\'\u0000"}`).line
	f.Add(good)
	f.Add(append(append([]byte("x\n\n"), good...), good[:30]...))
	f.Add([]byte(`{"time":"2026-01-02T03:04:05Z","Time":"2027-01-02T03:04:05Z","host":"a","HOST":"b","metric_type":"cpu","payload":{}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		count := 0
		for line := range bytes.Lines(data) {
			if len(bytes.TrimSpace(line)) > 0 {
				count++
			}
		}
		all := read(bytes.NewReader(data))
		if len(all) != count {
			t.Fatalf("%d lines; want %d", len(all), count)
		}
		for _, in := range all {
			if in.err == nil {
				wantOneLine(t, in.entry)
			}
		}
	})
}

func TestNextBatch(t *testing.T) {
	lines := make(chan input)
	go func() {
		defer close(lines)
		for range batchRecords + 3 {
			lines <- input{entry: entry{line: []byte("{}\n")}}
		}
		lines <- input{err: errTooLong}
	}()
	batch, bad, more := nextBatch(t.Context(), lines)
	if len(batch) != batchRecords || len(bad) != 0 || !more {
		t.Errorf("first batch: %d records, %d bad, more %v", len(batch), len(bad), more)
	}
	batch, bad, more = nextBatch(t.Context(), lines)
	if len(batch) != 3 || len(bad) != 1 || more {
		t.Errorf("last batch: %d records, %d bad, more %v", len(batch), len(bad), more)
	}
}

// The records of a slow stream must reach the database before the stream ends.
func TestNextBatchPause(t *testing.T) {
	lines := make(chan input, 1)
	lines <- input{entry: entry{line: []byte("{}\n")}}
	start := time.Now()
	batch, _, more := nextBatch(t.Context(), lines)
	if len(batch) != 1 || !more || time.Since(start) > 10*idle {
		t.Errorf("%d records after %v, more %v; want 1 after %v", len(batch), time.Since(start), more, idle)
	}
}

// Bad lines are reported and skipped. Good lines are kept, even if there is no
// database.
func TestFlushBadInput(t *testing.T) {
	good := string(rec("web2", "2026-01-02T03:04:05Z", `{"usage":1}`).line)
	state := t.TempDir()
	r := run(t, nil, good+"garbage\n"+good, "flush", "--state-dir="+state)
	if r.status != sysexits.DataErr || !strings.Contains(r.stdout, `"spooled":2,`) {
		t.Errorf("status %d, stdout %s; want 65 and two records spooled", r.status, r.stdout)
	}
	if !strings.Contains(r.stderr, `"line":2`) || strings.Contains(r.stderr, `"line":1`) || strings.Contains(r.stderr, `"line":3`) {
		t.Errorf("stderr %s; want line 2 named", r.stderr)
	}
	r = run(t, nil, "", "flush", "--state-dir="+state)
	if r.status != 0 || r.stderr != "" || !strings.Contains(r.stdout, `"inserted":0,`) {
		t.Errorf("flush of nothing: %+v", r)
	}
}

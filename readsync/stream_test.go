package main

import (
	"context"
	"io"
	"strings"
	"testing"

	"observability-hub/lib/sysexits"
)

func TestLines(t *testing.T) {
	long := strings.Repeat("x", 200_000)
	l := newLines(strings.NewReader("a\n\n" + long + "\nlast"))
	for _, want := range []string{"a", "", long, "last"} {
		got, err := l.next()
		if err != nil || string(got) != want || l.complete != (want != "last") {
			t.Errorf("%.20q, %v, complete %v; want %.20q", got, err, l.complete, want)
		}
	}
	if _, err := l.next(); err != io.EOF || l.read != int64(3+len(long)+1+4) || l.number != 4 {
		t.Errorf("at the end: %v, %d bytes, %d lines", err, l.read, l.number)
	}
}

func TestTrailer(t *testing.T) {
	if n, ok := parseTrailer(trailer(12)); !ok || n != 12 {
		t.Errorf("a trailer reads back as %d, %v", n, ok)
	}
	for line, want := range map[string]bool{
		`{"n":3,"_eof":true}`: true, ` { "_eof" : true , "n" : 3 } `: true,
		`{"_eof":true}`: false, `{"_eof":false,"n":3}`: false, `{"_eof":true,"n":-1}`: false, `{"n":3}`: false, `{"_eof":"true","n":3}`: false, `{}`: false, ``: false,
	} {
		if n, ok := parseTrailer([]byte(line)); ok != want || ok && n != 3 {
			t.Errorf("parseTrailer(%s) = %d, %v; want %v", line, n, ok, want)
		}
	}
}

func TestStream(t *testing.T) {
	for _, tc := range []struct {
		name, text string
		lines      int64
		whole      bool
	}{
		{"whole", "1\n2\n{\"_eof\":true,\"n\":2}\n", 2, true},
		{"filtered", "1\n{\"_eof\":true,\"n\":2}\n", 1, true},
		{"empty", "{\"_eof\":true,\"n\":0}\n", 0, true},
		{"blank lines", "1\n\n{\"_eof\":true,\"n\":1}\n\n", 1, true},
		{"no trailer", "1\n2\n", 2, false},
		{"nothing", "", 0, false},
		{"too many", "1\n2\n{\"_eof\":true,\"n\":1}\n", 2, false},
		{"more behind it", "1\n{\"_eof\":true,\"n\":1}\n2\n", 1, false},
		{"two trailers", "{\"_eof\":true,\"n\":0}\n{\"_eof\":true,\"n\":0}\n", 0, false},
		{"half a trailer", "1\n{\"_eof\":tr", 2, false},
	} {
		s := readStream(context.Background(), strings.NewReader(tc.text))
		seen := int64(0)
		for more := true; more; {
			var batch []streamLine
			batch, more = s.batch(context.Background())
			seen += int64(len(batch))
		}
		err := s.verdict(seen, "load", "extract")
		if seen != tc.lines || (err == nil) != tc.whole || err != nil && sysexits.Code(err) != sysexits.DataErr {
			t.Errorf("%s: %d lines, %v; want %d, whole %v", tc.name, seen, err, tc.lines, tc.whole)
		}
	}
}

func TestDistinct(t *testing.T) {
	rows := []*row{{id: "a"}, {id: "b"}, {id: "a"}, {id: "b"}}
	if n := distinct(rows); n != 2 {
		t.Errorf("distinct = %d; want 2", n)
	}
	if n := distinct(rows[1:3]); n != 2 {
		t.Errorf("distinct = %d; want 2", n)
	}
}

// What stands in a record becomes the columns, or the reason why it does not.
func TestRecordToRow(t *testing.T) {
	for _, tc := range []struct {
		line   string
		nul    nulPolicy
		reason string // of a refusal, or "bad" for no record at all
		want   string // the columns
	}{
		{`{"mongo_id":"x","event_timestamp":"2026-01-01T00:00:00+01:00","source":"s","event_type":null,"payload":{"a":1},"meta":null}`, nulReject, "", "2025-12-31T23:00:00Z s <nil> {\"a\":1} <nil>"},
		{`{"mongo_id":"x"}`, nulReject, "", "<nil> <nil> <nil> <nil> <nil>"},
		{"{\"mongo_id\":\"x\",\"payload\":[1,\t2]}", nulReject, "", "<nil> <nil> <nil> [1, 2] <nil>"},
		{`{"mongo_id":"x","source":"a\u0000"}`, nulReject, "nul", ""},
		{`{"mongo_id":"x","source":"a\u0000","payload":"\u0000"}`, nulReplace, "", "<nil> a\ufffd <nil> \"\ufffd\" <nil>"},
		{`{"mongo_id":"x","source":"\ud800"}`, nulReject, "invalid_utf8", ""},
		{`{"mongo_id":"x","payload":{"a":1,"a":2}}`, nulReject, "duplicate_key", ""},
		{`{"mongo_id":"x","payload":1e999999}`, nulReject, "number_out_of_range", ""},
		{`{"mongo_id":"x","event_timestamp":"soon"}`, nulReject, "bad_timestamp", ""},
		{`{"mongo_id":"` + strings.Repeat("x", maxID+1) + `"}`, nulReject, "id_too_long", ""},
		{`{"mongo_id":"x","reason":"too_deep","detail":"d","document":null,"bson":"BQAAAAA="}`, nulReject, "too_deep", ""},
		{`{"source":"s"}`, nulReject, "bad", ""},
		{`{"mongo_id":5}`, nulReject, "bad", ""},
		{`{"mongo_id":"x","source":5}`, nulReject, "bad", ""},
		{`{"mongo_id":"x","mongo_id":"y"}`, nulReject, "bad", ""},
		{`{"mongo_id":"x"`, nulReject, "bad", ""},
		{`nonsense`, nulReject, "bad", ""},
	} {
		r, err := streamLine{text: []byte(tc.line)}.row(tc.nul)
		reason := ""
		switch {
		case err != nil:
			reason = "bad"
		case r.refused != nil:
			reason = r.refused.reason
		}
		if reason != tc.reason {
			t.Errorf("%.80s: %q, %v; want %q", tc.line, reason, err, tc.reason)
		}
		if reason != "" {
			continue
		}
		var got []string
		for _, c := range r.columns {
			if c == nil {
				got = append(got, "<nil>")
			} else {
				got = append(got, string(c))
			}
		}
		if strings.Join(got, " ") != tc.want {
			t.Errorf("%.80s: %q; want %q", tc.line, got, tc.want)
		}
	}
}

package main

import (
	"bytes"
	"strings"
	"testing"

	"observability-hub/readsync/internal/extjson"
	"observability-hub/readsync/internal/stage"
)

func TestDistinct(t *testing.T) {
	rows := []*row{{id: "a"}, {id: "b"}, {id: "a"}, {id: "b"}}
	if n := distinct(rows); n != 2 {
		t.Errorf("distinct = %d; want 2", n)
	}
	if n := distinct(rows[1:3]); n != 2 {
		t.Errorf("distinct = %d; want 2", n)
	}
}

// A record becomes the columns of a row, or a refusal with a reason.
func TestRecordToRow(t *testing.T) {
	for _, tc := range []struct {
		line   string
		nul    extjson.NULPolicy
		reason string // of the refusal; "bad" if the line is not a record
		want   string // the columns
	}{
		{`{"mongo_id":"x","event_timestamp":"2026-01-01T00:00:00+01:00","source":"s","event_type":null,"payload":{"a":1},"meta":null}`, extjson.RejectNUL, "", "2025-12-31T23:00:00Z s <nil> {\"a\":1} <nil>"},
		{`{"mongo_id":"x"}`, extjson.RejectNUL, "", "<nil> <nil> <nil> <nil> <nil>"},
		{"{\"mongo_id\":\"x\",\"payload\":[1,\t2]}", extjson.RejectNUL, "", "<nil> <nil> <nil> [1, 2] <nil>"},
		{`{"mongo_id":"x","source":"a\u0000"}`, extjson.RejectNUL, "nul", ""},
		{`{"mongo_id":"x","source":"a\u0000","payload":"\u0000"}`, extjson.ReplaceNUL, "", "<nil> a\ufffd <nil> \"\ufffd\" <nil>"},
		{`{"mongo_id":"x","source":"\ud800"}`, extjson.RejectNUL, "invalid_utf8", ""},
		{`{"mongo_id":"x","payload":{"a":1,"a":2}}`, extjson.RejectNUL, "duplicate_key", ""},
		{`{"mongo_id":"x","payload":1e999999}`, extjson.RejectNUL, "number_out_of_range", ""},
		{`{"mongo_id":"x","event_timestamp":"soon"}`, extjson.RejectNUL, "bad_timestamp", ""},
		{`{"mongo_id":"` + strings.Repeat("x", extjson.MaxID+1) + `"}`, extjson.RejectNUL, "id_too_long", ""},
		{`{"mongo_id":"x","reason":"too_deep","detail":"d","document":null,"bson":"BQAAAAA="}`, extjson.RejectNUL, "too_deep", ""},
		{`{"source":"s"}`, extjson.RejectNUL, "bad", ""},
		{`{"mongo_id":5}`, extjson.RejectNUL, "bad", ""},
		{`{"mongo_id":"x","source":5}`, extjson.RejectNUL, "bad", ""},
		{`{"mongo_id":"x","mongo_id":"y"}`, extjson.RejectNUL, "bad", ""},
		{`{"mongo_id":"x"`, extjson.RejectNUL, "bad", ""},
		{`nonsense`, extjson.RejectNUL, "bad", ""},
	} {
		r, err := recordRow(stage.Line{Text: []byte(tc.line)}, tc.nul)
		reason := ""
		switch {
		case err != nil:
			reason = "bad"
		case r.refused != nil:
			reason = r.refused.Reason
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

// No line makes a stage panic.
func FuzzRecords(f *testing.F) {
	f.Add([]byte(`{"mongo_id":"x","payload":{"a":1},"reason":"nul","document":{},"outcome":"inserted"}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		if r, err := recordRow(stage.Line{Text: bytes.Clone(text)}, extjson.ReplaceNUL); err == nil && r.refused == nil && len(r.id) > extjson.MaxID {
			t.Errorf("an id of %d bytes is accepted", len(r.id))
		}
		if e, isRecord, err := loadRecord(stage.Line{Text: bytes.Clone(text)}); err == nil && isRecord && e.id == "" {
			t.Errorf("a load record without an id is accepted: %q", text)
		}
	})
}

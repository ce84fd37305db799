package main

import (
	"math"
	"strings"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"observability-hub/lib/record"
	"observability-hub/readsync/internal/deadletter"
	"observability-hub/readsync/internal/extjson"
	"observability-hub/readsync/internal/reading"
)

func TestRows(t *testing.T) {
	oid := bson.ObjectID{1}
	b := reading.NewBuilder(extjson.RejectNUL, false)
	var d document
	r := readRow(b, marshal(t, bson.D{{Key: "_id", Value: oid}, {Key: "status", Value: "ingested"}, {Key: "timestamp", Value: bson.DateTime(0)},
		{Key: "source", Value: "s\t"}, {Key: "event_type", Value: int32(5)}, {Key: "payload", Value: bson.A{1.0}}, {Key: "meta", Value: nil}, {Key: "more", Value: "\xff"}}), &d)
	want := []string{"1970-01-01T00:00:00Z", "s\t", `{"$numberInt":"5"}`, "[1.0]"}
	for i, w := range want {
		if string(r.columns[i]) != w {
			t.Errorf("%s = %s; want %s", reading.ColumnNames[i], r.columns[i], w)
		}
	}
	if r.columns[reading.Meta] != nil || r.id != oid.Hex() || r.refused != nil {
		t.Errorf("meta %s, id %s, refused %v", r.columns[reading.Meta], r.id, r.refused)
	}
	if got := string(appendCopyLine(nil, &r)); got != oid.Hex()+"\t1970-01-01T00:00:00Z\ts\\t\t{\"$numberInt\":\"5\"}\t[1.0]\t\\N\n" {
		t.Errorf("line %q", got)
	}
	for _, tc := range []struct {
		doc    bson.D
		reason string
	}{
		{bson.D{{Key: "payload", Value: 1}}, "no_id"},
		{bson.D{{Key: "_id", Value: 1}, {Key: "payload", Value: 1}, {Key: "payload", Value: 2}}, "duplicate_key"},
		{bson.D{{Key: "_id", Value: 1}, {Key: "_id", Value: 2}}, "duplicate_key"},
		{bson.D{{Key: "_id", Value: strings.Repeat("x", extjson.MaxID)}}, "id_too_long"},
		{bson.D{{Key: "_id", Value: "\xff"}}, "invalid_utf8"},
		{bson.D{{Key: "_id", Value: 1}, {Key: "source", Value: "\x00"}}, "nul"},
		{bson.D{{Key: "_id", Value: 1}, {Key: "source", Value: bson.A{"\xff"}}}, "invalid_utf8"},
		{bson.D{{Key: "_id", Value: 1}, {Key: "timestamp", Value: "yesterday"}}, "bad_timestamp"},
		{bson.D{{Key: "_id", Value: 1}, {Key: "more", Value: 1}, {Key: "more", Value: 2}}, ""},
	} {
		r := readRow(b, marshal(t, tc.doc), &document{})
		reason := ""
		if r.refused != nil {
			reason = r.refused.Reason
		}
		if reason != tc.reason {
			t.Errorf("%v: %q; want %q", tc.doc, reason, tc.reason)
		}
	}
}

// A dead letter contains the whole document, for every reason of a refusal.
func TestDeadLettersKeepTheDocument(t *testing.T) {
	deep := any("x")
	for range extjson.MaxDepth + 1 {
		deep = bson.A{deep}
	}
	for _, v := range []any{"a\x00b", "\xed\xa0\x80", bson.D{{Key: "a", Value: 1}, {Key: "a", Value: 2}}, bson.DateTime(math.MaxInt64), deep} {
		doc := marshal(t, bson.D{{Key: "_id", Value: int64(1)}, {Key: "timestamp", Value: v}, {Key: "payload", Value: v}, {Key: "all", Value: bson.A{math.NaN(), bson.MinKey{}, bson.Binary{Subtype: 2, Data: []byte("ab")}, bson.Symbol("s"), int64(1<<53 + 1), math.Copysign(0, -1)}}})
		b := reading.NewBuilder(extjson.RejectNUL, false)
		d := &document{}
		r := readRow(b, doc, d)
		if r.refused == nil {
			t.Errorf("%.40v is accepted", v)
			continue
		}
		rec := record.New(time.Now(), record.Warn, "dead_letter", family)
		r.letter().Fill(rec)
		line := rec.End()
		l, err := deadletter.Parse(line[:len(line)-1])
		if err != nil {
			t.Fatal(err)
		}
		again, err := l.Doc()
		if err != nil || string(again) != string(doc) {
			t.Errorf("%.40v: the letter contains another document: %v", v, err)
		}
		if l.Guard != d.Guard() || l.ID != r.id {
			t.Errorf("%.40v: the letter has another guard or id", v)
		}
	}
}

func marshal(t testing.TB, v any) []byte {
	t.Helper()
	b, err := bson.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

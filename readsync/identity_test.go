package main

import (
	"math"
	"strings"
	"testing"

	"go.mongodb.org/mongo-driver/v2/bson"
)

func TestIDs(t *testing.T) {
	oid, _ := bson.ObjectIDFromHex("65f000000000000000000001")
	seen := map[string]any{}
	for _, tc := range []struct {
		id   any
		want string
	}{
		{oid, `65f000000000000000000001`},
		{"65f000000000000000000001", `"65f000000000000000000001"`},
		{"", `""`}, {"a\x00\"b", `"a\u0000\"b"`},
		{int32(5), `{"$numberInt":"5"}`}, {int64(5), `{"$numberLong":"5"}`}, {5.0, `{"$numberDouble":"5.0"}`}, {"5", `"5"`},
		{math.NaN(), `{"$numberDouble":"NaN"}`}, {1e300, `{"$numberDouble":"1E+300"}`},
		{nil, `null`}, {"null", `"null"`}, {true, `true`}, {bson.Symbol("x"), `{"$symbol":"x"}`},
		{bson.D{{Key: "a", Value: int32(1)}}, `{"a":{"$numberInt":"1"}}`},
		{bson.Binary{Subtype: 4, Data: []byte("0123456789abcdef")}, `{"$binary":{"base64":"MDEyMzQ1Njc4OWFiY2RlZg==","subType":"04"}}`},
		{bson.DateTime(1), `{"$date":{"$numberLong":"1"}}`}, {bson.Timestamp{T: 1, I: 2}, `{"$timestamp":{"t":1,"i":2}}`},
		{bson.MinKey{}, `{"$minKey":1}`}, {bson.MaxKey{}, `{"$maxKey":1}`},
	} {
		v := lookup(marshal(t, bson.D{{Key: "_id", Value: tc.id}}), "_id")
		text, err := appendID(nil, v)
		if err != nil || string(text) != tc.want {
			t.Errorf("appendID(%#v) = %s, %v; want %s", tc.id, text, err, tc.want)
		}
		if other, there := seen[string(text)]; there {
			t.Errorf("%#v and %#v have the same text", tc.id, other)
		}
		seen[string(text)] = tc.id
		back, err := parseID(string(text))
		if err != nil || back.kind != v.kind || string(back.data) != string(v.data) {
			t.Errorf("parseID(%s) = %v %x, %v; want %v %x", text, back.kind, back.data, err, v.kind, v.data)
		}
	}
	for _, text := range []string{"", "x", "65f00000000000000000000", `"x`, `1}{`, `1,"_id":2`} {
		if v, err := parseID(text); err == nil {
			t.Errorf("parseID(%s) = %v; want an error", text, v)
		}
	}
}

func TestRows(t *testing.T) {
	oid := bson.ObjectID{1}
	b := newBuilder(nulReject, datesFlag{})
	r := b.row(marshal(t, bson.D{{Key: "_id", Value: oid}, {Key: "status", Value: "ingested"}, {Key: "timestamp", Value: bson.DateTime(0)},
		{Key: "source", Value: "s\t"}, {Key: "event_type", Value: int32(5)}, {Key: "payload", Value: bson.A{1.0}}, {Key: "meta", Value: nil}, {Key: "more", Value: "\xff"}}))
	want := []string{"1970-01-01T00:00:00Z", "s\t", `{"$numberInt":"5"}`, "[1.0]"}
	for i, w := range want {
		if string(r.columns[i]) != w {
			t.Errorf("%s = %s; want %s", columns[i], r.columns[i], w)
		}
	}
	if r.columns[atMeta] != nil || r.id != oid.Hex() || r.refused != nil {
		t.Errorf("meta %s, id %s, refused %v", r.columns[atMeta], r.id, r.refused)
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
		{bson.D{{Key: "_id", Value: strings.Repeat("x", maxID)}}, "id_too_long"},
		{bson.D{{Key: "_id", Value: "\xff"}}, "invalid_utf8"},
		{bson.D{{Key: "_id", Value: 1}, {Key: "source", Value: "\x00"}}, "nul"},
		{bson.D{{Key: "_id", Value: 1}, {Key: "source", Value: bson.A{"\xff"}}}, "invalid_utf8"},
		{bson.D{{Key: "_id", Value: 1}, {Key: "timestamp", Value: "yesterday"}}, "bad_timestamp"},
		{bson.D{{Key: "_id", Value: 1}, {Key: "more", Value: 1}, {Key: "more", Value: 2}}, ""},
	} {
		r := b.row(marshal(t, tc.doc))
		reason := ""
		if r.refused != nil {
			reason = r.refused.reason
		}
		if reason != tc.reason {
			t.Errorf("%v: %q; want %q", tc.doc, reason, tc.reason)
		}
	}
}

// A dead letter has the whole document, whatever is wrong with it.
func TestDeadLettersKeepTheDocument(t *testing.T) {
	deep := any("x")
	for range maxDepth + 1 {
		deep = bson.A{deep}
	}
	for _, v := range []any{"a\x00b", "\xed\xa0\x80", bson.D{{Key: "a", Value: 1}, {Key: "a", Value: 2}}, bson.DateTime(math.MaxInt64), deep} {
		doc := marshal(t, bson.D{{Key: "_id", Value: int64(1)}, {Key: "timestamp", Value: v}, {Key: "payload", Value: v}, {Key: "all", Value: everyType()}})
		b := newBuilder(nulReject, datesFlag{})
		r := b.row(doc)
		if r.refused == nil {
			t.Errorf("%.40v is taken", v)
			continue
		}
		line := r.deadLetter().line(family)
		l, err := parseLetter(line[:len(line)-1])
		if err != nil {
			t.Fatal(err)
		}
		again, err := l.doc()
		if err != nil || string(again) != string(doc) {
			t.Errorf("%.40v: the document is another: %v", v, err)
		}
		if l.guard != r.digest() || l.key() != r.deadLetter().key() {
			t.Errorf("%.40v: the letter is not known again", v)
		}
	}
}

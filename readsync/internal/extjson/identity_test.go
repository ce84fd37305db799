package extjson

import (
	"math"
	"testing"

	"go.mongodb.org/mongo-driver/v2/bson"

	"observability-hub/readsync/internal/rawbson"
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
		v := rawbson.Lookup(marshal(t, bson.D{{Key: "_id", Value: tc.id}}), "_id")
		text, err := AppendID(nil, v)
		if err != nil || string(text) != tc.want {
			t.Errorf("AppendID(%#v) = %s, %v; want %s", tc.id, text, err, tc.want)
		}
		if other, there := seen[string(text)]; there {
			t.Errorf("%#v and %#v have the same text", tc.id, other)
		}
		seen[string(text)] = tc.id
		back, err := ParseID(string(text))
		if err != nil || back.Kind != v.Kind || string(back.Data) != string(v.Data) {
			t.Errorf("ParseID(%s) = %v %x, %v; want %v %x", text, back.Kind, back.Data, err, v.Kind, v.Data)
		}
	}
	for _, text := range []string{"", "x", "65f00000000000000000000", `"x`, `1}{`, `1,"_id":2`} {
		if v, err := ParseID(text); err == nil {
			t.Errorf("ParseID(%s) = %v; want an error", text, v)
		}
	}
}

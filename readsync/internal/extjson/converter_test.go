package extjson

import (
	"bytes"
	"encoding/json"
	"math"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"observability-hub/readsync/internal/rawbson"
)

// everyType returns a document with a value of each BSON type.
func everyType() bson.D {
	oid := bson.ObjectID{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}
	return bson.D{
		{Key: "double", Value: 1.5}, {Key: "whole", Value: 3.0}, {Key: "large", Value: 1e20}, {Key: "huge", Value: 1e300}, {Key: "tiny", Value: 5e-324},
		{Key: "zero", Value: 0.0}, {Key: "minus zero", Value: math.Copysign(0, -1)},
		{Key: "nan", Value: math.NaN()}, {Key: "inf", Value: math.Inf(1)}, {Key: "-inf", Value: math.Inf(-1)},
		{Key: "string", Value: "x \"y\" \\ / \n\t\r\b\f \u007f\u2028 ä 😀"}, {Key: "empty", Value: ""},
		{Key: "object", Value: bson.D{{Key: "", Value: bson.D{}}}}, {Key: "array", Value: bson.A{int32(1), bson.A{}, nil}},
		{Key: "binary", Value: bson.Binary{Subtype: 0x80, Data: []byte{0, 1, 2, 255}}}, {Key: "old binary", Value: bson.Binary{Subtype: 2, Data: []byte("ab")}},
		{Key: "empty binary", Value: bson.Binary{Data: []byte{}}},
		{Key: "undefined", Value: bson.Undefined{}}, {Key: "oid", Value: oid}, {Key: "bool", Value: true}, {Key: "false", Value: false},
		{Key: "date", Value: bson.DateTime(1700000000123)}, {Key: "second", Value: bson.DateTime(1700000000000)}, {Key: "past", Value: bson.DateTime(-1)},
		{Key: "far", Value: bson.DateTime(math.MaxInt64)}, {Key: "null", Value: nil},
		{Key: "regex", Value: bson.Regex{Pattern: `a"\d`, Options: "im"}}, {Key: "regex without options", Value: bson.Regex{Pattern: "a"}}, {Key: "empty regex", Value: bson.Regex{}},
		{Key: "pointer", Value: bson.DBPointer{DB: "db.c", Pointer: oid}},
		{Key: "code", Value: bson.JavaScript("f()")}, {Key: "scoped", Value: bson.CodeWithScope{Code: "g()", Scope: bson.D{{Key: "x", Value: int32(1)}}}},
		{Key: "symbol", Value: bson.Symbol("s")}, {Key: "int", Value: int32(-5)}, {Key: "timestamp", Value: bson.Timestamp{T: math.MaxUint32, I: 7}},
		{Key: "long", Value: int64(1 << 53)}, {Key: "longer", Value: int64(1<<53 + 1)}, {Key: "longest", Value: int64(math.MinInt64)},
		{Key: "decimal", Value: bson.NewDecimal128(0x3040000000000000, 12345)}, {Key: "min", Value: bson.MinKey{}}, {Key: "max", Value: bson.MaxKey{}},
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

// decoded returns JSON as Go values, with numbers as text.
func decoded(t testing.TB, text []byte) any {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	if d.More() {
		t.Fatalf("text after the JSON: %s", text)
	}
	return v
}

func convert(t testing.TB, d Dialect, doc []byte) []byte {
	t.Helper()
	c := Converter{Dialect: d}
	text, err := c.Append(nil, rawbson.Document(doc))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestCanonicalIsTheDrivers(t *testing.T) {
	doc := marshal(t, everyType())
	want, err := bson.MarshalExtJSON(bson.Raw(doc), true, false)
	if err != nil {
		t.Fatal(err)
	}
	got := convert(t, Canonical, doc)
	// The driver writes 1E+300.0, which its own parser rejects.
	want = bytes.ReplaceAll(want, []byte("E+300.0"), []byte("E+300"))
	want = bytes.ReplaceAll(want, []byte("E-324.0"), []byte("E-324"))
	if !reflect.DeepEqual(decoded(t, got), decoded(t, want)) {
		t.Errorf("canonical\n%s\nwant\n%s", got, want)
	}
	again, err := Parse(got)
	if err != nil || !bytes.Equal(again, doc) {
		t.Errorf("the canonical text is parsed as another document: %v", err)
	}
}

// The stored dialect preserves all values, except the width of small integers.
func TestStoredReadsBack(t *testing.T) {
	doc := marshal(t, everyType())
	text := convert(t, Stored, doc)
	again, err := Parse(text)
	if err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	var want, got bson.D
	if err := bson.Unmarshal(doc, &want); err != nil {
		t.Fatal(err)
	}
	if err := bson.Unmarshal(again, &got); err != nil {
		t.Fatal(err)
	}
	for i := range want {
		w, g := want[i].Value, got[i].Value
		if f, ok := w.(float64); ok && math.IsNaN(f) {
			if f, ok := g.(float64); !ok || !math.IsNaN(f) {
				t.Errorf("%s = %v; want NaN", want[i].Key, g)
			}
			continue
		}
		if f, ok := w.(float64); ok && f == 0 && math.Signbit(f) {
			if f, ok := g.(float64); !ok || !math.Signbit(f) {
				t.Errorf("%s = %v; want -0", want[i].Key, g)
			}
			continue
		}
		if !reflect.DeepEqual(g, w) {
			t.Errorf("%s = %#v; want %#v", want[i].Key, g, w)
		}
	}
	if err := CheckJSON(text, RejectNUL); err != nil {
		t.Errorf("CheckJSON rejects the stored dialect: %v", err)
	}
}

func TestStoredNumbers(t *testing.T) {
	for _, tc := range []struct {
		v    any
		want string
	}{
		{int32(5), `5`}, {int64(5), `5`}, {5.0, `5.0`}, {-0.5, `-0.5`}, {0.1, `0.1`}, {1e20, `100000000000000000000.0`},
		{1e21, `{"$numberDouble":"1E+21"}`}, {1e-7, `1e-07`}, {math.Copysign(0, -1), `{"$numberDouble":"-0.0"}`},
		{int64(1 << 53), `9007199254740992`}, {int64(1<<53 + 1), `{"$numberLong":"9007199254740993"}`},
		{int64(-1<<53 - 1), `{"$numberLong":"-9007199254740993"}`}, {math.NaN(), `{"$numberDouble":"NaN"}`},
		{bson.DateTime(0), `{"$date":"1970-01-01T00:00:00Z"}`}, {bson.DateTime(-1), `{"$date":{"$numberLong":"-1"}}`},
		{time.Date(9999, 12, 31, 23, 59, 59, 999e6, time.UTC), `{"$date":"9999-12-31T23:59:59.999Z"}`},
	} {
		if got := string(convert(t, Stored, marshal(t, bson.D{{Key: "v", Value: tc.v}}))); got != `{"v":`+tc.want+`}` {
			t.Errorf("stored(%v) = %s; want %s", tc.v, got, tc.want)
		}
	}
}

// The legacy dialect is the output of encoding/json for the driver's types, which older
// hubs stored.
func TestLegacy(t *testing.T) {
	oid, _ := bson.ObjectIDFromHex("65f000000000000000000001")
	doc := marshal(t, bson.D{{Key: "id", Value: oid}, {Key: "at", Value: bson.DateTime(1700000000123)}, {Key: "n", Value: int64(math.MaxInt64)},
		{Key: "x", Value: 5.0}, {Key: "b", Value: bson.Binary{Subtype: 4, Data: []byte("ab")}}, {Key: "a", Value: bson.A{"x", nil, true}}})
	want := `{"id":"65f000000000000000000001","at":"2023-11-14T22:13:20.123Z","n":9223372036854775807,"x":5,"b":{"Subtype":4,"Data":"YWI="},"a":["x",null,true]}`
	if got := string(convert(t, Legacy, doc)); got != want {
		t.Errorf("legacy = %s; want %s", got, want)
	}
}

func TestRefusals(t *testing.T) {
	deep := any("x")
	for range MaxDepth + 1 {
		deep = bson.A{deep}
	}
	scopes := any("x")
	for range MaxDepth + 1 {
		scopes = bson.CodeWithScope{Scope: bson.D{{Key: "s", Value: scopes}}}
	}
	many := bson.D{}
	for i := range 100 {
		many = append(many, bson.E{Key: strings.Repeat("k", i+1), Value: i})
	}
	twice := append(many[:100:100], bson.E{Key: "kkk", Value: 0})
	for _, tc := range []struct {
		name         string
		v            any
		reason, path string
	}{
		{"NUL in a text", bson.D{{Key: "a", Value: bson.A{"x", "y\x00"}}}, "nul", "v.a.1"},
		{"not UTF-8", "\xff", "invalid_utf8", "v"},
		{"symbol that is not UTF-8", bson.Symbol("\xff"), "invalid_utf8", "v"},
		{"code that is not UTF-8", bson.JavaScript("\xff"), "invalid_utf8", "v"},
		{"half a surrogate pair", "\xed\xa0\x80", "invalid_utf8", "v"},
		{"key that is not UTF-8", bson.D{{Key: "\xff", Value: 1}}, "invalid_utf8", "v"},
		{"key twice", bson.D{{Key: "a", Value: 1}, {Key: "b", Value: 1}, {Key: "a", Value: 2}}, "duplicate_key", "v.a"},
		{"same key in different objects", bson.D{{Key: "a", Value: bson.D{{Key: "a", Value: 1}}}, {Key: "b", Value: bson.D{{Key: "a", Value: 1}}}}, "", ""},
		{"many keys", many, "", ""},
		{"many keys, one twice", twice, "duplicate_key", "v.kkk"},
		{"deep", deep, "too_deep", ""},
		{"deep scopes of code", scopes, "too_deep", ""},
	} {
		c := Converter{Dialect: Stored, NUL: RejectNUL}
		_, err := c.Append(nil, rawbson.Document(marshal(t, bson.D{{Key: "v", Value: tc.v}})))
		if tc.reason == "" {
			if err != nil {
				t.Errorf("%s: %v; want none", tc.name, err)
			}
			continue
		}
		r, ok := err.(*Refusal)
		if !ok || r.Reason != tc.reason || tc.path != "" && r.Path != tc.path {
			t.Errorf("%s: %#v; want %s at %s", tc.name, err, tc.reason, tc.path)
		}
	}
}

func TestNULIsReplaced(t *testing.T) {
	c := Converter{Dialect: Stored, NUL: ReplaceNUL}
	got, err := c.Append(nil, rawbson.Document(marshal(t, bson.D{{Key: "v", Value: "a\x00b"}})))
	if want := `{"v":"a�b"}`; err != nil || string(got) != want {
		t.Errorf("%s, %v; want %s", got, err, want)
	}
}

// randomValue returns a value of a random type.
func randomValue(r *rand.Rand, depth int) any {
	text := func() string {
		b := make([]byte, r.IntN(20))
		for i := range b {
			switch r.IntN(10) {
			case 0:
				b[i] = byte(r.IntN(256))
			case 1:
				b[i] = `"\/<&`[r.IntN(5)]
			default:
				b[i] = byte('a' + r.IntN(26))
			}
		}
		return string(b)
	}
	all := everyType()
	switch n := r.IntN(len(all) + 20); {
	case n < len(all):
		return all[n].Value
	case n < len(all)+4:
		return math.Float64frombits(r.Uint64())
	case n < len(all)+6:
		return int64(r.Uint64())
	case n < len(all)+8:
		return bson.DateTime(r.Int64N(1<<50) - 1<<49)
	case n < len(all)+9:
		return bson.NewDecimal128(r.Uint64(), r.Uint64())
	case n < len(all)+11 && depth > 0:
		array := bson.A{}
		for range r.IntN(5) {
			array = append(array, randomValue(r, depth-1))
		}
		return array
	case n < len(all)+14 && depth > 0:
		object := bson.D{}
		for range r.IntN(40) >> r.IntN(4) {
			object = append(object, bson.E{Key: strings.ReplaceAll(text(), "\x00", ""), Value: randomValue(r, depth-1)})
		}
		return object
	}
	return text()
}

// No bytes make the Converter panic. For a document that it accepts, it writes the same
// as the driver.
func FuzzConverter(f *testing.F) {
	for seed := range uint64(20) {
		f.Add(seed, uint8(seed%3))
	}
	f.Fuzz(func(t *testing.T, seed uint64, damage uint8) {
		r := rand.New(rand.NewPCG(seed, 0))
		doc := marshal(t, bson.D{{Key: "_id", Value: randomValue(r, 1)}, {Key: "timestamp", Value: randomValue(r, 0)},
			{Key: "source", Value: randomValue(r, 1)}, {Key: "payload", Value: randomValue(r, 4)}, {Key: "meta", Value: randomValue(r, 3)}})
		for range damage {
			doc[r.IntN(len(doc))] = byte(r.IntN(256))
		}
		for _, d := range []Dialect{Canonical, Stored, Legacy} {
			c := Converter{Dialect: d}
			text, err := c.Append(nil, rawbson.Document(doc))
			if err != nil {
				continue
			}
			if !json.Valid(text) {
				t.Fatalf("dialect %d: not JSON: %s", d, text)
			}
			if d == Stored {
				if err := CheckJSON(bytes.Clone(text), KeepNUL); err != nil {
					t.Fatalf("CheckJSON rejects the output of the Converter: %v: %s", err, text)
				}
			}
		}
		if bson.Raw(doc).Validate() != nil {
			return
		}
		strict := Converter{Dialect: Stored}
		if _, err := strict.Append(nil, rawbson.Document(doc)); err != nil {
			return // duplicate keys, text that is not UTF-8, deep nesting
		}
		want, err := bson.MarshalExtJSON(bson.Raw(doc), true, false)
		if err != nil {
			return
		}
		got := convert(t, Canonical, doc)
		if w, g := normal(decoded(t, want)), normal(decoded(t, got)); !reflect.DeepEqual(g, w) {
			t.Fatalf("canonical\n%s\nwant\n%s", got, want)
		}
	})
}

// normal removes the differences of the driver, which writes 1E+300.0 and sorts the
// options of regular expressions.
func normal(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k, x := range v {
			if s, ok := x.(string); ok && k == "$numberDouble" && strings.Contains(s, "E") {
				x = strings.TrimSuffix(s, ".0")
			}
			if s, ok := x.(string); ok && k == "options" {
				x = len(s)
			}
			v[k] = normal(x)
		}
	case []any:
		for i := range v {
			v[i] = normal(v[i])
		}
	}
	return v
}

func BenchmarkStored(b *testing.B) {
	doc := marshal(b, bson.D{{Key: "title", Value: strings.Repeat("reading ", 100)}, {Key: "n", Value: 5}, {Key: "x", Value: 0.25}, {Key: "tags", Value: bson.A{"a", "b"}}})
	c := Converter{Dialect: Stored}
	var buf []byte
	b.SetBytes(int64(len(doc)))
	for b.Loop() {
		buf, _ = c.Append(buf[:0], rawbson.Document(doc))
	}
}

package moment

import (
	"math"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"observability-hub/readsync/internal/extjson"
	"observability-hub/readsync/internal/rawbson"
)

func TestMoment(t *testing.T) {
	const bad, outside = "bad_timestamp", "timestamp_out_of_range"
	decimal, err := bson.ParseDecimal128("1700000000.5")
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		v    any
		want string // the text, or the reason of a refusal
	}{
		{bson.DateTime(1700000000123), "2023-11-14T22:13:20.123Z"},
		{bson.DateTime(0), "1970-01-01T00:00:00Z"},
		{bson.DateTime(-1), "1969-12-31T23:59:59.999Z"},
		{bson.DateTime(253402300800000), "10000-01-01T00:00:00Z"},
		{bson.DateTime(9224318015999999), "294276-12-31T23:59:59.999Z"},
		{bson.DateTime(9224318016000000), outside},
		{bson.DateTime(-62135596800000), "0001-01-01T00:00:00Z"},
		{bson.DateTime(-62135596800001), "0001-12-31T23:59:59.999Z BC"},
		{bson.DateTime(-210866803200000), "4714-11-24T00:00:00Z BC"},
		{bson.DateTime(-210866803200001), outside},
		{bson.DateTime(math.MaxInt64), outside},
		{bson.DateTime(math.MinInt64), outside},
		{bson.Timestamp{T: 1700000000, I: 5}, "2023-11-14T22:13:20Z"},
		{int32(1700000000), "2023-11-14T22:13:20Z"},
		{int64(1700000000), "2023-11-14T22:13:20Z"},
		{int64(1700000000123), "2023-11-14T22:13:20.123Z"},
		{1700000000.25, "2023-11-14T22:13:20.25Z"},
		{1700000000123.5, "2023-11-14T22:13:20.1235Z"},
		{decimal, "2023-11-14T22:13:20.5Z"},
		{int64(0), "1970-01-01T00:00:00Z"},
		{int64(-1), "1969-12-31T23:59:59Z"},
		{int64(253402300799999), "9999-12-31T23:59:59.999Z"}, // beyond 2^53 microseconds
		{int64(99999999999), "5138-11-16T09:46:39Z"},
		{int64(1700000000123456), outside},
		{int64(math.MinInt64), outside},
		{math.NaN(), outside},
		{math.Inf(1), outside},
		{true, bad},
		{bson.D{}, bad},
		{"2023-11-14T22:13:20Z", "2023-11-14T22:13:20Z"},
		{"2023-11-14t22:13:20.123456789z", "2023-11-14T22:13:20.123457Z"},
		{"2023-11-14T22:13:20.9999999Z", "2023-11-14T22:13:21Z"},
		{"2023-11-14T22:13:20+02:00", "2023-11-14T20:13:20Z"},
		{"2023-11-14T22:13:20-0330", "2023-11-15T01:43:20Z"},
		{"2023-11-14 22:13:20+01", "2023-11-14T21:13:20Z"},
		{"2023-11-14 22:13:20.5", "2023-11-14T22:13:20.5Z"},
		{"2023-011-14T22:13:20Z", bad},
		{"2016-12-31T23:59:60Z", "2017-01-01T00:00:00Z"},
		{"2024-02-29T00:00:00Z", "2024-02-29T00:00:00Z"},
		{"2023-02-29T00:00:00Z", bad},
		{"0000-01-01T00:00:00Z", outside},
		{"0001-01-01T00:00:00+01:00", "0001-12-31T23:00:00Z BC"},
		{"4714-11-24T00:00:00Z BC", "4714-11-24T00:00:00Z BC"},
		{"4714-11-23T00:00:00Z BC", outside},
		{"294276-12-31T23:59:59.999Z", "294276-12-31T23:59:59.999Z"},
		{"294277-01-01T00:00:00Z", outside},
		{"999999-01-01T00:00:00Z", outside},
		{"2023-11-14", "2023-11-14T00:00:00Z"}, {"2023-11-14T22:13Z", "2023-11-14T22:13:00Z"}, {"2017-12-25T13:15-05:00", "2017-12-25T18:15:00Z"},
		{"2023-11-14 22:13:20 +02:00", "2023-11-14T20:13:20Z"}, {"2023-11-14 22:13", "2023-11-14T22:13:00Z"}, {"2023-11-14T22:13:20 Z", "2023-11-14T22:13:20Z"},
		{"", bad}, {"now", bad}, {"2023-11-", bad}, {"2023-11-14T", bad}, {"2023-11-14T22", bad}, {"2023-11-14T22:13.5Z", bad}, {"2023-13-01T00:00:00Z", bad}, {"2023-11-14T24:00:00Z", bad},
		{"2023-11-14T22:13:20.Z", bad}, {"2023-11-14T22:13:20Zx", bad}, {"2023-11-14T22:13:20+", bad},
		{"2023-11-14T22:13:20\x00", bad}, {"-2023-11-14T22:13:20Z", bad},
	} {
		doc, err := bson.Marshal(bson.D{{Key: "v", Value: tc.v}})
		if err != nil {
			t.Fatal(err)
		}
		got, err := Append(nil, rawbson.Lookup(doc, "v"))
		text := string(got)
		if r, ok := err.(*extjson.Refusal); ok {
			text = r.Reason
		} else if err != nil {
			t.Errorf("%v: %v", tc.v, err)
		}
		if text != tc.want {
			t.Errorf("Append(%v) = %q; want %q", tc.v, text, tc.want)
		}
	}
}

// Parse accepts its own output and does not change it.
func FuzzMoment(f *testing.F) {
	f.Add("2023-11-14T22:13:20.5+01:00")
	f.Add("4714-11-24T00:00:00Z BC")
	f.Fuzz(func(t *testing.T, s string) {
		once, err := Parse(nil, []byte(s))
		if err != nil {
			return
		}
		again, err := Parse(nil, once)
		if err != nil || string(again) != string(once) {
			t.Fatalf("%q became %q, and that %q, %v", s, once, again, err)
		}
		if want, err := time.Parse(time.RFC3339Nano, s); err == nil && want.Year() > 0 && want.UTC().Year() > 0 {
			got, err := time.Parse(time.RFC3339Nano, string(once))
			if err != nil || !got.Equal(want.Round(time.Microsecond)) {
				t.Fatalf("%q became %q; want %v", s, once, want)
			}
		}
	})
}

// Readable rejects texts that do not plainly mean one moment.
func TestReadable(t *testing.T) {
	for text, want := range map[string]bool{
		"20260104T100000Z": true, "20260104": true, "2026-01-04T24:00:00Z": true, "Sun Jan 04 10:00:00 2026 UTC": true, "4 January 2026 10:00 Europe/Berlin": true,
		"04-Jan-2026": true, "2026-Jan-04T10:00:00-05:00": true, "04/01/2026": true,
		"now": false, "NOW": false, "today": false, "tomorrow 10:00": false, "Yesterday": false, "epoch": false, "infinity": false, "-infinity": false,
		"2026-01-04 allballs": false, "now 2026": false, "10:00": false, "": false,
		"1735689600": false, "1701010112": false, "1735689600123": false, "2026": false, "2026.5": false, "2e15": false, "Infinity": false, "NaN": false,
		"Sun Jan 04 2026 10:00:00 GMT+0100": false, "2026-01-04 10:00 UTC-3": false, "2026-01-04 10:00 Etc/GMT+1": false,
		"04-01-26": false, "2026-01-04\t10:00": false, "2026-01-04\u00a010:00": false, "2026-01-04T10:00:00Z\x00": false,
	} {
		if got := Readable([]byte(text)); got != want {
			t.Errorf("Readable(%q) = %v", text, got)
		}
	}
}

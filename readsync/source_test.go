package main

import (
	"strings"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"observability-hub/lib/sysexits"
)

func TestSourceConfiguration(t *testing.T) {
	t.Setenv("CREDENTIALS_DIRECTORY", "")
	const secret = "hunter2S3cret"
	for _, tc := range []struct{ uri, database, collection string }{
		{"", "hub", "readings"},
		{"mongodb://h", "", "readings"},
		{"mongodb://h", "hub", ""},
		{"mongodb://h", "a/b", "readings"},
		{"mongodb://h", "hub", "$cmd"},
		{"postgres://h", "hub", "readings"},
		{"mongodb://u:" + secret + "@h:port/", "hub", "readings"},
		{"mongodb://u:" + secret + "%zz@h/", "hub", "readings"},
		{"mongodb://u:" + secret + "@h/?tls=true&tlsCAFile=/nowhere", "hub", "readings"},
	} {
		t.Setenv("MONGO_URI", tc.uri)
		t.Setenv("MONGO_DB_NAME", tc.database)
		t.Setenv("MONGO_COLLECTION", tc.collection)
		s, err := openSource(t.Context(), nil, time.Second)
		if err == nil {
			s.close()
		}
		if sysexits.Code(err) != sysexits.Config || strings.Contains(err.Error(), secret) {
			t.Errorf("%+v: %v, status %d; want 78 without the password", tc, err, sysexits.Code(err))
		}
	}
}

// TLS is said in the URI, or it is demanded of every host but this one.
func TestWithTLS(t *testing.T) {
	for uri, want := range map[string]string{
		"mongodb://h":             "mongodb://h/?tls=true",
		"mongodb://h/":            "mongodb://h/?tls=true",
		"mongodb://u:p%2F@h,i":    "mongodb://u:p%2F@h,i/?tls=true",
		"mongodb://h/db":          "mongodb://h/db?tls=true",
		"mongodb://h/?w=majority": "mongodb://h/?w=majority&tls=true",
	} {
		if got := withTLS(uri); got != want {
			t.Errorf("withTLS(%s) = %s; want %s", uri, got, want)
		}
	}
	for uri, want := range map[string]bool{
		"mongodb://h": false, "mongodb://h/?tls=false": true, "mongodb://h/?w=1&ssl=true": true, "mongodb+srv://h": true,
		"mongodb://h/?TLS=true": true, "mongodb://tls=true@h": false, "mongodb://h/?authSource=tls": false,
	} {
		if got := saysTLS(uri); got != want {
			t.Errorf("saysTLS(%s) = %v; want %v", uri, got, want)
		}
	}
	for hosts, want := range map[string]bool{
		"localhost:27017": true, "127.0.0.1:1,[::1]:2": true, "/tmp/mongodb-27017.sock": true, "localhost": true, "::1": true,
		"mongo:27017": false, "localhost:1,mongo:2": false, "10.0.0.1": false, "localhost.example.org:1": false,
	} {
		if got := allLocal(strings.Split(hosts, ",")); got != want {
			t.Errorf("allLocal(%s) = %v; want %v", hosts, got, want)
		}
	}
}

// The types behind one are those that MongoDB sorts behind it.
func TestTypesAbove(t *testing.T) {
	if got := typesAbove(bson.TypeMaxKey); len(got) != 0 {
		t.Errorf("behind MaxKey: %v", got)
	}
	if got := typesAbove(bson.TypeMinKey); len(got) != 20 || got[0] != 6 {
		t.Errorf("behind MinKey: %v", got)
	}
	a, b := typesAbove(bson.TypeInt32), typesAbove(bson.TypeDecimal128)
	if len(a) != len(b) || a[0] != 2 {
		t.Errorf("behind numbers: %v, %v; want the same, from strings on", a, b)
	}
}

// The guard demands every field as it was read, and that what was missing still is.
func TestGuard(t *testing.T) {
	r := newBuilder(nulKeep, datesFlag{}).row(marshal(t, bson.D{{Key: "_id", Value: int32(5)}, {Key: "payload", Value: bson.D{{Key: "$gt", Value: 1}}}, {Key: "meta", Value: bson.Undefined{}}, {Key: "source", Value: nil}}))
	guard := func(r *row) string {
		got, err := bson.MarshalExtJSON(bson.Raw(appendDocument(nil, func(b []byte) []byte { return appendGuard(b, r) })), false, false)
		if err != nil {
			t.Fatal(err)
		}
		return string(got)
	}
	const five = `"_id":5,"timestamp":{"$exists":false},"source":{"$eq":null},"event_type":{"$exists":false},"payload":{"$eq":{"$gt":1}},"meta":{"$type":6}}`
	if got := guard(&r); got != `{`+five {
		t.Errorf("guard %s", got)
	}
}

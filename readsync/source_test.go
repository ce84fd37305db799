package main

import (
	"strings"
	"testing"
	"time"

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
		s, err := openSource(t.Context(), nil, peerFlags{Timeout: time.Second, peers: peers{collection: dialCollection}})
		if err == nil {
			s.close()
		}
		if sysexits.Code(err) != sysexits.Config || strings.Contains(err.Error(), secret) {
			t.Errorf("%+v: %v, status %d; want 78 without the password", tc, err, sysexits.Code(err))
		}
	}
}

package mongopeer

import (
	"strings"
	"testing"
)

// withTLS adds tls=true, which ParseURI does unless the URI decides about TLS or all hosts
// are this machine.
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
		if got := decidesTLS(uri); got != want {
			t.Errorf("decidesTLS(%s) = %v; want %v", uri, got, want)
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

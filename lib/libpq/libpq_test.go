package libpq

import (
	"net/netip"
	"strings"
	"testing"

	"observability-hub/lib/sysexits"
)

func TestTLS(t *testing.T) {
	t.Setenv("PGSSLMODE", "")
	for _, tc := range []struct {
		hosts, dsn, want string // "" is an error
	}{
		{"localhost", "", "disable"}, {"127.0.0.1", "", "disable"}, {"127.8.8.8", "", "disable"}, {"::1", "", "disable"},
		{"/run/postgresql", "", "disable"}, {"@abstract", "", "disable"}, {"::ffff:127.0.0.1", "", "disable"}, {"localhost,::1", "", "disable"},
		{"db", "", "verify-full"}, {"localhost.example.com", "", "verify-full"}, {"10.0.0.1", "", "verify-full"}, {"::", "", "verify-full"},
		{"localhost,db", "", "verify-full"}, {"db,localhost", "", "verify-full"}, {"db,/run/postgresql", "", "verify-full"},
		{"/run/postgresql,db", "", ""}, {"/run/postgresql,db", "host=/run/postgresql,db sslmode = disable", "verify-full"},
	} {
		var hosts []Host
		for _, h := range strings.Split(tc.hosts, ",") {
			hosts = append(hosts, Host{Name: h})
		}
		got, err := TLS(tc.dsn, hosts)
		if got != tc.want || (err == nil) != (tc.want != "") {
			t.Errorf("TLS(%q, %s) = %q, %v; want %q", tc.dsn, tc.hosts, got, err, tc.want)
		}
	}
	// The address is where the connection goes, whatever the name is.
	if got, _ := TLS("", []Host{{Name: "localhost", Addr: netip.MustParseAddr("10.0.0.1")}}); got != "verify-full" {
		t.Errorf("localhost at 10.0.0.1: %q; want verify-full", got)
	}
}

func TestConfigured(t *testing.T) {
	for _, v := range []string{"CREDENTIALS_DIRECTORY", "DATABASE_URL", "PGHOST", "PGHOSTADDR", "PGSERVICE", "PGDATABASE", "PGUSER"} {
		t.Setenv(v, "")
	}
	if _, ok, err := Configured(); ok || err != nil {
		t.Errorf("nothing is set: %v, %v; want none", ok, err)
	}
	for dsn, good := range map[string]bool{
		"postgres://u@h/d": true, "postgresql:///d": true, "host=h": true,
		"mysql://u@h/d": false, "hub": false, "postgres://u:secret%zz@h/d": false,
	} {
		t.Setenv("DATABASE_URL", dsn)
		got, ok, err := Configured()
		if good != ok || good && got != dsn || !good && sysexits.Code(err) != sysexits.Config {
			t.Errorf("%s: %q, %v, %v", dsn, got, ok, err)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: the secret is in %v", dsn, err)
		}
	}
	t.Setenv("DATABASE_URL", "")
	t.Setenv("PGDATABASE", "d")
	if dsn, ok, err := Configured(); dsn != "" || !ok || err != nil {
		t.Errorf("PGDATABASE alone: %q, %v, %v; want it to do", dsn, ok, err)
	}
}

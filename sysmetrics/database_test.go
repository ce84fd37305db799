package main

import (
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lib/pq"
	"github.com/lib/pq/pqerror"

	"observability-hub/lib/libpq"
	"observability-hub/lib/sysexits"
	"observability-hub/sysmetrics/internal/statfs"
)

// where returns a configuration in one line: user, hosts, database, TLS modes.
func where(cfg libpq.Config) string {
	var hosts, modes []string
	for _, h := range cfg.Hosts {
		host := h.Name
		if h.Addr.IsValid() {
			host = h.Addr.String()
		}
		hosts = append(hosts, host)
		if !slices.Contains(modes, h.SSLMode) {
			modes = append(modes, h.SSLMode)
		}
	}
	return cfg.User + "@" + strings.Join(hosts, ",") + "/" + cfg.Database + " " + strings.Join(modes, ",")
}

func TestDatabaseConfig(t *testing.T) {
	service := filepath.Join(t.TempDir(), "service")
	writeTree(t, filepath.Dir(service), map[string]string{"service": "[hub]\nhost=db.example.com\ndbname=hub\nuser=u\n"})
	for _, tc := range []struct {
		name, url string
		env       map[string]string
		want      string // "" for none
	}{
		{"nothing", "", nil, ""},
		{"a password alone names no database", "", map[string]string{"PGPASSWORD": "p", "PGSSLMODE": "require", "PGPORT": "5433"}, ""},
		{"the local socket", "postgres:///hub", map[string]string{"PGUSER": "u"}, "u@/run/postgresql/hub disable"},
		{"the local socket, which has no TLS", "postgres://u@/hub?sslmode=require", nil, "u@/run/postgresql/hub disable"},
		{"a name that is a keyword", "postgres://hostaddr:service@/customerservice", nil, "hostaddr@/run/postgresql/customerservice disable"},
		{"a name that is a keyword, in a keyword string", "user=hostmaster dbname=service", nil, "hostmaster@/run/postgresql/service disable"},
		{"another socket", "postgres:///hub?host=/tmp/pg&user=u", nil, "u@/tmp/pg/hub disable"},
		{"postgresql://", "postgresql://u@db.example.com/hub", nil, "u@db.example.com/hub verify-full"},
		{"loopback", "postgres://u:p@127.0.0.1:5433/hub", nil, "u@127.0.0.1/hub disable"},
		{"loopback, IPv6", "postgres://u@[::1]/hub", nil, "u@::1/hub disable"},
		{"localhost", "postgres://u@localhost/hub", nil, "u@localhost/hub disable"},
		{"not loopback", "postgres://u@127.example.com/hub", nil, "u@127.example.com/hub verify-full"},
		{"any address is not loopback", "postgres://u@0.0.0.0/hub", nil, "u@0.0.0.0/hub verify-full"},
		{"hostaddr", "user=u hostaddr=192.0.2.7 dbname=hub", nil, "u@192.0.2.7/hub verify-full"},
		{"hostaddr decides, not the name", "user=u host=localhost hostaddr=192.0.2.7 dbname=hub", nil, "u@192.0.2.7/hub verify-full"},
		{"an explicit mode is kept", "postgres://u@db.example.com/hub?sslmode=verify-ca", nil, "u@db.example.com/hub verify-ca"},
		{"an explicit weak mode is kept", "postgres://u@db.example.com/hub?sslmode=disable", nil, "u@db.example.com/hub disable"},
		{"an explicit mode is kept on loopback", "postgres://u@localhost/hub?sslmode=verify-full", nil, "u@localhost/hub verify-full"},
		{"mode from PGSSLMODE", "postgres://u@db.example.com/hub", map[string]string{"PGSSLMODE": "require"}, "u@db.example.com/hub require"},
		{"keywords", "user=u host=db.example.com dbname=hub", nil, "u@db.example.com/hub verify-full"},
		{"keywords without a host", "user=u dbname=hub", nil, "u@/run/postgresql/hub disable"},
		{"host occurs in other values", "user=u password=localhost-host=x dbname=ghost", nil, "u@/run/postgresql/ghost disable"},
		{"host occurs in a quoted value", `user=u password='a host=x \' host=y' dbname=hub`, nil, "u@/run/postgresql/hub disable"},
		{"spaces around =", "user = u host = db.example.com dbname = hub", nil, "u@db.example.com/hub verify-full"},
		{"a service", "service=hub", map[string]string{"PGSERVICEFILE": service}, "u@db.example.com/hub verify-full"},
		{"PGSERVICE", "", map[string]string{"PGSERVICE": "hub", "PGSERVICEFILE": service}, "u@db.example.com/hub verify-full"},
		{"PGHOST", "", map[string]string{"PGHOST": "db.example.com", "PGUSER": "u", "PGDATABASE": "hub"}, "u@db.example.com/hub verify-full"},
		{"PGHOST is a directory", "", map[string]string{"PGHOST": "/tmp/pg", "PGUSER": "u", "PGDATABASE": "hub"}, "u@/tmp/pg/hub disable"},
		{"PGDATABASE alone", "", map[string]string{"PGDATABASE": "hub", "PGUSER": "u"}, "u@/run/postgresql/hub disable"},
		{"PGHOST if the URL names no host", "postgres://u@/hub", map[string]string{"PGHOST": "db.example.com"}, "u@db.example.com/hub verify-full"},
		{"the URL wins over PGHOST", "postgres://u@db.example.com/hub", map[string]string{"PGHOST": "localhost"}, "u@db.example.com/hub verify-full"},
		{"two hosts", "postgres://u@a.example.com,b.example.com/hub", nil, "u@a.example.com,b.example.com/hub verify-full"},
		{"two hosts, one of them local", "postgres://u@localhost,b.example.com/hub", nil, "u@localhost,b.example.com/hub disable,verify-full"},
		{"two local hosts", "user=u host=localhost,127.0.0.1 dbname=hub", nil, "u@localhost,127.0.0.1/hub disable"},
		{"two hosts, explicit sslmode=disable", "user=u host=/tmp/pg,b.example.com dbname=hub sslmode=disable", nil, "u@/tmp/pg,b.example.com/hub disable"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Setenv("DATABASE_URL", tc.url)
			for name, value := range tc.env {
				t.Setenv(name, value)
			}
			cfg, ok, err := databaseConfig()
			got := ""
			if ok {
				got = where(cfg)
			}
			if got != tc.want || err != nil {
				t.Errorf("databaseConfig = %q, %v; want %q", got, err, tc.want)
			}
			if ok && (cfg.ConnectTimeout <= 0 || cfg.ApplicationName != name) {
				t.Errorf("connect timeout %v, application name %q; want both set", cfg.ConnectTimeout, cfg.ApplicationName)
			}
		})
	}
}

// A socket has no TLS. A remote host in the same list keeps its TLS mode.
func TestDatabaseConfigKeepsTLSBesideASocket(t *testing.T) {
	for url, want := range map[string]string{
		"user=u host=/tmp/pg,b.example.com dbname=hub":                      "disable,verify-full",
		"user=u host=/tmp/pg,b.example.com dbname=hub sslmode=require":      "disable,require",
		"postgres:///hub?host=/tmp/pg,b.example.com&user=u&sslmode=require": "disable,require",
		"user=u host=/tmp/pg,/tmp/pg2 dbname=hub":                           "disable",
	} {
		t.Setenv("DATABASE_URL", url)
		if cfg, ok, err := databaseConfig(); !ok || err != nil || !strings.HasSuffix(where(cfg), " "+want) {
			t.Errorf("databaseConfig(%s) = %s, %v; want %s", url, where(cfg), err, want)
		}
	}
}

// The unit's credential wins over the environment.
func TestDatabaseConfigCredential(t *testing.T) {
	dir := t.TempDir()
	writeTree(t, dir, map[string]string{"database_url": "postgres://u:p@db.example.com/hub?connect_timeout=9&application_name=mine\n"})
	t.Setenv("CREDENTIALS_DIRECTORY", dir)
	t.Setenv("DATABASE_URL", "postgres://other@other.example.com/other")
	cfg, ok, err := databaseConfig()
	if err != nil || !ok || where(cfg) != "u@db.example.com/hub verify-full" || cfg.Hosts[0].Password != "p" ||
		cfg.ConnectTimeout != 9*time.Second || cfg.ApplicationName != "mine" {
		t.Errorf("databaseConfig = %q, %v, %v, timeout %v, name %q", where(cfg), ok, err, cfg.ConnectTimeout, cfg.ApplicationName)
	}
}

// An error about a connection string shows no part of it, although the driver's
// own messages quote what they cannot parse.
func TestDatabaseConfigShowsNoSecret(t *testing.T) {
	const secret = "hunter2S3cret"
	for _, url := range []string{
		"postgres://u:" + secret + "@db.example.com:port/hub",
		"postgres://u:" + secret + "%zz@db.example.com/hub",
		"postgres://u:" + secret + "@[::1/hub",
		"postgres://u:pa ss" + secret + "@db/hub",
		"postgres://u:a/" + secret + "@db/hub",
		"postgres://u:a#" + secret + "@db/hub",
		"postgres://u:a?" + secret + "@db/hub",
		"postgres://u:p@db/hub?sslmode=" + secret,
		"postgres://u:p@db/hub?port=" + secret,
		"postgres://u:p@db/hub?connect_timeout=" + secret,
		"postgres://u:p@db/hub?target_session_attrs=" + secret,
		"postgres://u:p@db/hub?hostaddr=" + secret,
		"mysql://u:" + secret + "@db/hub",
		"://u:" + secret + "@db",
		"user=u password=" + secret + " host",
		"user=u password='" + secret,
		"user=u password=" + secret + `\`,
		"user=u password=" + secret + " port=x host=db",
		"user=u password=a " + secret + " host=db",
		"user=u password=a " + secret + "=b sslmode=x",
		secret,
		"host=/tmp/pg,db.example.com password=" + secret,
		"\x00" + secret,
		"postgres://u:" + secret + "\n@db/hub",
	} {
		t.Run(strings.ReplaceAll(url, secret, "…"), func(t *testing.T) {
			dir := t.TempDir()
			writeTree(t, dir, map[string]string{"database_url": url})
			t.Setenv("CREDENTIALS_DIRECTORY", dir)
			_, ok, err := databaseConfig()
			if err == nil {
				if ok {
					return // the string is valid, so there is no error
				}
				t.Fatalf("databaseConfig(%q) = none; want an error", url)
			}
			if e, is := errors.AsType[*sysexits.Error](err); !is || e.Code != sysexits.Config || e.Hint == "" {
				t.Errorf("databaseConfig(%q) = %v; want status 78 and a hint", url, err)
			}
			for i := range len(secret) - 4 {
				if part := secret[i : i+5]; strings.Contains(err.Error(), part) {
					t.Fatalf("the error shows %q of the secret: %s", part, err)
				}
			}
		})
	}
}

// A run with such a connection string shows no part of it either.
func TestRunShowsNoSecret(t *testing.T) {
	const secret = "hunter2S3cret"
	root := t.TempDir()
	writeTree(t, root, minimalProc)
	for _, url := range []string{
		"postgres://u:" + secret + "@db.example.com:port/hub",
		"postgres://u:" + secret + "@127.0.0.1:1/hub?connect_timeout=1",
		"user=u password=" + secret + " host=127.0.0.1 port=1 dbname=hub",
	} {
		t.Setenv("DATABASE_URL", url)
		r := run(t, func(string) (statfs.Usage, error) { return statfs.Usage{}, nil }, "", "--flush", "--procfs="+root, "--sysfs="+root, "--state-dir="+t.TempDir())
		if r.status != sysexits.Config && r.status != sysexits.Unavailable {
			t.Errorf("%q: status %d; want 78 or 69: %s", url, r.status, r.stderr)
		}
		if strings.Contains(r.stdout+r.stderr, secret) {
			t.Errorf("%q: the secret is in\n%s%s", url, r.stdout, r.stderr)
		}
		if !strings.Contains(r.stdout, `"spooled":4`) {
			t.Errorf("%q: the records are not kept: %s", url, r.stdout)
		}
	}
}

func TestRefusesContent(t *testing.T) {
	for code, want := range map[pqerror.Code]bool{
		"22P05": true, "22007": true, "22021": true, "23502": true, "23514": true, "54000": true, "P0001": true,
		"53100": false, "57014": false, "40001": false, "08006": false, "42P01": false, "28P01": false, "25006": false, "XX000": false, "58030": false,
	} {
		if got := refusesContent(&pq.Error{Code: code}); got != want {
			t.Errorf("refusesContent(%s) = %v; want %v", code, got, want)
		}
	}
	if !refusesContent(errNUL) || refusesContent(errors.New("other")) || refusesContent(nil) {
		t.Error("refusesContent: want true for errNUL alone")
	}
}

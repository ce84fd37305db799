package libpq

import (
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"observability-hub/lib/sysexits"
)

// clean removes everything from the environment that names a database.
func clean(t *testing.T) {
	t.Helper()
	for _, v := range os.Environ() {
		if name, _, _ := strings.Cut(v, "="); strings.HasPrefix(name, "PG") {
			t.Setenv(name, "")
		}
	}
	t.Setenv("CREDENTIALS_DIRECTORY", t.TempDir())
	t.Setenv("DATABASE_URL", "")
	t.Setenv("PGSYSCONFDIR", t.TempDir())
	t.Setenv("HOME", t.TempDir())
}

// where returns a configuration in one line.
func where(c Config) string {
	s := c.User + "@"
	for i, h := range c.Hosts {
		if i > 0 {
			s += ","
		}
		s += h.Name
		if h.Addr.IsValid() {
			s += "=" + h.Addr.String()
		}
		s += ":" + strconv.Itoa(int(h.Port)) + " " + h.SSLMode
	}
	s += " /" + c.Database
	if len(c.Hosts) > 0 && c.Hosts[0].Password != "" {
		s += " " + c.Hosts[0].Password
	}
	return s
}

func TestParse(t *testing.T) {
	clean(t)
	for _, tc := range []struct{ dsn, want string }{
		{"postgres://u@h/d", "u@h:5432 verify-full /d"},
		{"postgresql://u@h:5433/d", "u@h:5433 verify-full /d"},
		{"postgres://u@h", "u@h:5432 verify-full /"},
		{"postgres://u@h?dbname=d", "u@h:5432 verify-full /d"},
		{"postgres://u@/d", "u@/run/postgresql:5432 disable /d"},
		{"postgres:///d?user=u&host=/tmp/s", "u@/tmp/s:5432 disable /d"},
		{"postgres://u@%2Ftmp%2Fs:5433/d", "u@/tmp/s:5433 disable /d"},
		{"postgres://u@%40abstract/d", "u@@abstract:5432 disable /d"},
		{"postgres://u@[::1]/d", "u@::1:5432 disable /d"},
		{"postgres://u@[2001:db8::1]:5433/d", "u@2001:db8::1:5433 verify-full /d"},
		{"postgres://u@h1:5432,h2:5433/d", "u@h1:5432 verify-full,h2:5433 verify-full /d"},
		{"postgres://u@h1,[::1]:5433/d?sslmode=require", "u@h1:5432 require,::1:5433 require /d"},
		{"postgres://u@h1,h2/d?port=6432", "u@h1:6432 verify-full,h2:6432 verify-full /d"},
		{"postgres://u@%2Fs,h2/d", "u@/s:5432 disable,h2:5432 verify-full /d"},
		{"host=h1,h2 port=1,2 user=u dbname=d", "u@h1:1 verify-full,h2:2 verify-full /d"},
		{"host=,h2 user=u", "u@/run/postgresql:5432 disable,h2:5432 verify-full /"},
		{"hostaddr=127.0.0.1,192.0.2.1 user=u", "u@=127.0.0.1:5432 disable,=192.0.2.1:5432 verify-full /"},
		{"host=localhost hostaddr=192.0.2.1 user=u", "u@localhost=192.0.2.1:5432 verify-full /"},
		{"postgres://u:p#q@h/d", "u@h:5432 verify-full /d p#q"},
		{"postgres://u:p?q@h/d", "u@h:5432 verify-full /d p?q"},
		{"postgres://u:p:q@h/d", "u@h:5432 verify-full /d p:q"},
		{"postgres://u:p%40q%2F%25@h/d", "u@h:5432 verify-full /d p@q/%"},
		{"postgres://u@%2ftmp%2Fs/d", "u@/tmp/s:5432 disable /d"},
		{"postgres://u:a@h/d?password=b&user=v", "v@h:5432 verify-full /d b"},
		{`user=u password='a b\'c' host=h`, "u@h:5432 verify-full / a b'c"},
		{`user = u password = a\ b host=h dbname=`, "u@h:5432 verify-full / a b"},
		{"user=a user=u host=h", "u@h:5432 verify-full /"},
		{"postgres://u@h/d?ssl=true", "u@h:5432 require /d"},
		{"postgres://u@h/d?sslrootcert=system", "u@h:5432 verify-full /d"},
		{"postgres://u@localhost/d?sslmode=prefer", "u@localhost:5432 prefer /d"},
		{"postgres://u@h/d?channel_binding=prefer&gssencmode=disable&keepalives=1&keepalives_idle=5&tcp_user_timeout=0&krbsrvname=x&sslcompression=0&client_encoding=latin1&sslcertmode=allow&connect_timeout=3&fallback_application_name=x&load_balance_hosts=random&target_session_attrs=any", "u@h:5432 verify-full /d"},
	} {
		got, err := Parse(tc.dsn)
		if where(got) != tc.want || err != nil || len(got.Runtime) > 0 {
			t.Errorf("Parse(%s) = %s, %v, runtime %v; want %s", tc.dsn, where(got), err, got.Runtime, tc.want)
		}
	}
}

// Settings of the server are passed on as they are.
func TestParseServerSettings(t *testing.T) {
	clean(t)
	cfg, err := Parse("postgres://u@h/d?search_path=hub&statement_timeout=5s")
	if want := map[string]string{"search_path": "hub", "statement_timeout": "5s"}; !maps.Equal(cfg.Runtime, want) || err != nil {
		t.Errorf("runtime %v, %v; want %v", cfg.Runtime, err, want)
	}
}

// The error names an unsupported parameter. It shows no value, because a value may be a password.
func TestParseRejects(t *testing.T) {
	clean(t)
	for dsn, want := range map[string]string{
		"postgres://u@h/d?channel_binding=require":    "channel_binding=require is not supported",
		"postgres://u@h/d?gssencmode=require":         "gssencmode=require is not supported",
		"postgres://u@h/d?sslcrl=hunter2":             "sslcrl is not supported",
		"postgres://u@h/d?requirepeer=hunter2":        "requirepeer is not supported",
		"host=h require_auth=hunter2":                 "require_auth is not supported",
		"host=h replication=hunter2":                  "replication is not supported",
		"host=h oauth_issuer=hunter2":                 "oauth_issuer is not supported",
		"host=h sslmode=hunter2":                      "sslmode: not one of disable, allow",
		"host=h port=hunter2":                         "port: not a number",
		"host=h port=0":                               "port: not a number",
		"host=h port=1,2":                             "2 ports and 1 hosts",
		"host=a,b hostaddr=127.0.0.1":                 "2 values of host and 1 of hostaddr",
		"host=h hostaddr=hunter2":                     "hostaddr: not an IP address",
		"host=h connect_timeout=hunter2":              "connect_timeout: not a number",
		"host=h sslrootcert=system sslmode=require":   "sslrootcert=system needs",
		"host=h sslnegotiation=direct sslmode=prefer": "sslnegotiation=direct needs",
		"postgres://u:hunter2/x@h/d":                  "percent-encoded",
		"postgres://u:12/hunter2@h/d":                 "percent-encoded",
		"postgres://u:x@hunter2@h/d":                  "percent-encoded",
		"postgres://u:hunter2%zz@h/d":                 "percent-encoded",
		"postgres://u:hunter2%@h/d":                   "percent-encoded",
		"postgres://u@h%zz/d":                         "percent-encoded",
		"postgres://u@h/d?hunter2":                    "name=value",
		"postgres://u@[hunter2/d":                     "IPv6",
		"user=u password=a hunter2=b":                 "quoting",
		"user=u password='hunter2":                    "quoting",
		"mysql://u:hunter2@h/d":                       "not a PostgreSQL connection string",
		"hunter2":                                     "not a PostgreSQL connection string",
		"service=nowhere":                             `service "nowhere"`,
	} {
		_, err := Parse(dsn)
		if sysexits.Code(err) != sysexits.Config || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("Parse(%s) = %v; want status 78 and %q", dsn, err, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"postgres://u:p@h:1,h2:2/d?sslmode=require", "user=u password='p' host=/tmp", "postgres://[::1]/%2F"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, dsn string) {
		cfg, err := Parse(dsn)
		if err == nil && len(cfg.Hosts) == 0 {
			t.Fatalf("Parse(%q): no host", dsn)
		}
	})
}

func TestVariables(t *testing.T) {
	for _, tc := range []struct{ variable, value, want string }{
		{"PGHOST", "h1,h2", "u@h1:5432 verify-full,h2:5432 verify-full /d"},
		{"PGHOSTADDR", "192.0.2.1", "u@=192.0.2.1:5432 verify-full /d"},
		{"PGPORT", "5433", "u@/run/postgresql:5433 disable /d"},
		{"PGPASSWORD", "p", "u@/run/postgresql:5432 disable /d p"},
		{"PGUSER", "other", "u@/run/postgresql:5432 disable /d"},
		{"PGPORT", "", "u@/run/postgresql:5432 disable /d"},
		{"PGGSSENCMODE", "disable", "u@/run/postgresql:5432 disable /d"},
		{"PGCHANNELBINDING", "prefer", "u@/run/postgresql:5432 disable /d"},
		{"PGKRBSRVNAME", "x", "u@/run/postgresql:5432 disable /d"},
		{"PGSSLCOMPRESSION", "0", "u@/run/postgresql:5432 disable /d"},
		{"PGREALM", "x", "u@/run/postgresql:5432 disable /d"},
		{"PGCLIENTENCODING", "latin1", "u@/run/postgresql:5432 disable /d"},
		{"PGDATESTYLE", "german", "u@/run/postgresql:5432 disable /d"},
		{"PGCHANNELBINDING", "require", "$PGCHANNELBINDING: channel_binding=require"},
		{"PGSSLCRL", "/x", "$PGSSLCRL: sslcrl"},
		{"PGREQUIREPEER", "postgres", "$PGREQUIREPEER: requirepeer"},
		{"PGSSLMODE", "on", "$PGSSLMODE: sslmode"},
	} {
		t.Run(tc.variable+"="+tc.value, func(t *testing.T) {
			clean(t)
			t.Setenv(tc.variable, tc.value)
			cfg, err := Parse("user=u dbname=d")
			if got := where(cfg); err == nil && got != tc.want || err != nil && !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%s, %v; want %s", got, err, tc.want)
			}
		})
	}
}

func TestService(t *testing.T) {
	clean(t)
	write := func(dir, name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(os.Getenv("HOME"), ".pg_service.conf", "# mine\n[hub]\nhost=home\ndbname = hub1\nuser=u\n\n[bad]\nnonsense\n[odd]\nhunter=1\n[ldap]\nldap://x\n")
	write(os.Getenv("PGSYSCONFDIR"), "pg_service.conf", "[hub]\nhost=system\n[all]\nhost=system\nuser=u\npassword=p\n")
	for dsn, want := range map[string]string{
		"service=hub":                      "u@home:5432 verify-full /hub1",
		"service=hub dbname=hub4":          "u@home:5432 verify-full /hub4", // the connection string wins
		"postgres://v@h/hub4?service=hub":  "v@h:5432 verify-full /hub4",
		"service=all":                      "u@system:5432 verify-full / p",
		"service=bad":                      ".pg_service.conf:8",
		"service=odd":                      "hunter is not a connection parameter",
		"service=ldap":                     "LDAP",
		"service=none":                     `service "none"`,
		"service=hub servicefile=/nowhere": "/nowhere",
	} {
		cfg, err := Parse(dsn)
		if got := where(cfg); err == nil && got != want || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("Parse(%s) = %s, %v; want %s", dsn, got, err, want)
		}
	}
	t.Setenv("PGHOST", "env") // the service file wins
	t.Setenv("PGSERVICE", "hub")
	if cfg, err := Parse("user=v"); where(cfg) != "v@home:5432 verify-full /hub1" || err != nil {
		t.Errorf("PGSERVICE: %s, %v", where(cfg), err)
	}
}

func TestPasswordFile(t *testing.T) {
	clean(t)
	path := filepath.Join(os.Getenv("HOME"), ".pgpass")
	const file = "# comment\nh:5432:d:u:first\nh:*:d:u:second\nlocalhost:*:*:u:socket\n/tmp/s:*:*:u:other socket\n192.0.2.1:*:*:*:by:address\n*:*:*:e\\:v:a\\\\b\\:c\n"
	if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
		t.Fatal(err)
	}
	for dsn, want := range map[string]string{
		"postgres://u@h/d":                 "first",
		"postgres://u@h:5433/d":            "second",
		"postgres://u@h/other":             "",
		"postgres:///d?user=u":             "socket",
		"postgres:///d?user=u&host=/tmp/s": "other socket",
		"user=u hostaddr=192.0.2.1":        "by:address",
		"user=e:v host=x":                  `a\b:c`,
		"postgres://u:said@h/d":            "said",
		"postgres://u@x,h:5433/d":          ",second",
		"host=h user=d":                    "",
	} {
		cfg, err := Parse(dsn)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, h := range cfg.Hosts {
			got = append(got, h.Password)
		}
		if strings.Join(got, ",") != want || len(cfg.Warnings) > 0 {
			t.Errorf("Parse(%s): passwords %q, warnings %q; want %q", dsn, got, cfg.Warnings, want)
		}
	}
	// A file that other users can read is ignored with a warning.
	for _, mode := range []os.FileMode{0o644, 0o640, 0o606, 0o660} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		cfg, err := Parse("postgres://u@h/d")
		if err != nil || cfg.Hosts[0].Password != "" || len(cfg.Warnings) != 1 || !strings.Contains(cfg.Warnings[0], path) {
			t.Errorf("mode %#o: %s, %v, %q; want no password and a warning", mode, where(cfg), err, cfg.Warnings)
		}
	}
	if cfg, err := Parse("postgres://u:said@h/d"); err != nil || len(cfg.Warnings) > 0 {
		t.Errorf("a password in the URL: %v, %q; want no warning", err, cfg.Warnings)
	}
}

// The certificate in the home directory is used unless the string says otherwise.
func TestCertificates(t *testing.T) {
	clean(t)
	home := os.Getenv("HOME")
	if err := os.Mkdir(filepath.Join(home, ".postgresql"), 0o700); err != nil {
		t.Fatal(err)
	}
	inHome := func(name string) string { return filepath.Join(home, ".postgresql", name) }
	for _, name := range []string{"root.crt", "postgresql.crt"} {
		if err := os.WriteFile(inHome(name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, tc := range []struct{ dsn, root, cert, key string }{
		{"postgres://u@h/d", inHome("root.crt"), inHome("postgresql.crt"), inHome("postgresql.key")},
		{"postgres://u@h/d?sslcertmode=disable", inHome("root.crt"), "", ""},
		{"postgres://u@h/d?sslcertmode=disable&sslcert=/c&sslkey=/k", inHome("root.crt"), "", ""},
		{"postgres://u@h/d?sslcert=/c", inHome("root.crt"), "/c", inHome("postgresql.key")},
		{"postgres://u@h/d?sslrootcert=/r&sslcert=/c&sslkey=/k", "/r", "/c", "/k"},
	} {
		cfg, err := Parse(tc.dsn)
		if cfg.SSLRootCert != tc.root || cfg.SSLCert != tc.cert || cfg.SSLKey != tc.key || err != nil {
			t.Errorf("Parse(%s): root %q, cert %q, key %q, %v; want %q, %q, %q", tc.dsn, cfg.SSLRootCert, cfg.SSLCert, cfg.SSLKey, err, tc.root, tc.cert, tc.key)
		}
	}
}

func TestConfigured(t *testing.T) {
	clean(t)
	if _, ok, err := Configured("tool"); ok || err != nil {
		t.Errorf("nothing is set: %v, %v; want none", ok, err)
	}
	t.Setenv("PGDATABASE", "d")
	if cfg, ok, err := Configured("tool"); cfg.Database != "d" || cfg.ApplicationName != "tool" || cfg.ConnectTimeout == 0 || !ok || err != nil {
		t.Errorf("PGDATABASE alone: %s, %v, %v; want it to do", where(cfg), ok, err)
	} // A credential that cannot be read is not the same as none: without it the run would go to another database.
	if err := os.Mkdir(filepath.Join(os.Getenv("CREDENTIALS_DIRECTORY"), "database_url"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Configured("tool"); sysexits.Code(err) != sysexits.Config {
		t.Errorf("a directory in place of the credential: %v; want status 78", err)
	}
}

package e2e

import (
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"observability-hub/e2e/postgres"
)

// sessions returns "user@database" of each session that the server has accepted.
func sessions(tb testing.TB, c *postgres.Cluster) []string {
	tb.Helper()
	b, err := os.ReadFile(filepath.Join(c.Dir, "log"))
	if err != nil {
		tb.Fatal(err)
	}
	var all []string
	for _, m := range regexp.MustCompile(`connection authorized: user=(\S+) database=(\S+)`).FindAllStringSubmatch(string(b), -1) {
		all = append(all, m[1]+"@"+m[2])
	}
	return all
}

// sysmetrics accepts what psql accepts, and reaches the same database as the same user.
func TestConnectionStringsOfPsql(t *testing.T) {
	c := postgres.Run(t, postgres.Config{TCP: true, Conf: []string{"log_connections = on"}})
	tls := postgres.Run(t, postgres.Config{TLS: true, Conf: []string{"log_connections = on"}})
	dir := t.TempDir()
	write := func(name, text string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	awkward := "p#a?ss:w"
	for _, c := range []*postgres.Cluster{c, tls} {
		psql(t, c, "CREATE ROLE odd LOGIN SUPERUSER PASSWORD '"+awkward+"'; CREATE DATABASE hub4 OWNER hub; CREATE DATABASE \"a b\"; CREATE DATABASE odd")
	}
	socket, port, pw := filepath.Dir(c.Socket()), c.Port, c.Password
	passfile := write("pgpass", fmt.Sprintf("127.0.0.1:%d:*:hub:%s\nlocalhost:%d:*:hub:%s\n", port, pw, port, pw))
	open := write("pgpass-open", fmt.Sprintf("*:*:*:*:%s\n", pw))
	if err := os.Chmod(open, 0o644); err != nil {
		t.Fatal(err)
	}
	services := write("services", fmt.Sprintf("[hub]\nhost=%s\nport=%d\nuser=hub\ndbname=hub\n", socket, port))
	write("pg_service.conf", fmt.Sprintf("[everyone]\nhost=%s\nport=%d\nuser=hub\ndbname=hub4\n", socket, port))
	tcp := fmt.Sprintf("127.0.0.1:%d", port)
	ca := url.QueryEscape(tls.CACert())
	for _, tc := range []struct {
		name, dsn string
		env       []string
		to        *postgres.Cluster
		want      string // user@database, or the exit status of sysmetrics
	}{
		{"harmless parameters", fmt.Sprintf("postgres://hub:%s@%s/hub?channel_binding=prefer&gssencmode=disable&keepalives=1&keepalives_idle=9&keepalives_interval=3&keepalives_count=2&tcp_user_timeout=0&krbsrvname=postgres&gsslib=gssapi&sslcompression=0&sslsni=1&sslpassword=x&client_encoding=UTF8&fallback_application_name=x&connect_timeout=9&target_session_attrs=any", pw, tcp), nil, c, "hub@hub"},
		{"harmless variables", fmt.Sprintf("postgres://hub:%s@%s/hub", pw, tcp), []string{"PGCHANNELBINDING=prefer", "PGGSSENCMODE=disable", "PGKRBSRVNAME=postgres", "PGSSLCOMPRESSION=0", "PGREQUIREPEER=", "PGDATESTYLE=ISO", "PGTZ=UTC", "PGCLIENTENCODING=UTF8", "PGSSLMODE=prefer", "PGOPTIONS=-c work_mem=8MB", "PGSYSCONFDIR=/nowhere"}, c, "hub@hub"},
		{"a list of hosts", fmt.Sprintf("postgres://hub:%s@127.0.0.1:1,%s/hub", pw, tcp), nil, c, "hub@hub"},
		{"a list of hosts, the first one unknown", fmt.Sprintf("postgres://hub:%s@nowhere.invalid,127.0.0.1/hub?port=%d&sslmode=disable", pw, port), nil, c, "hub@hub"},
		{"a list of hosts in keyword form", fmt.Sprintf("host=127.0.0.1,%s port=1,%d user=hub dbname=hub", socket, port), nil, c, "hub@hub"},
		{"read-write", fmt.Sprintf("postgres://hub:%s@127.0.0.1:1,%s/hub?target_session_attrs=read-write", pw, tcp), nil, c, "hub@hub"},
		{"primary", fmt.Sprintf("postgres://hub:%s@%s/hub?target_session_attrs=primary", pw, tcp), nil, c, "hub@hub"},
		{"prefer-standby without a standby", fmt.Sprintf("postgres://hub:%s@%s/hub?target_session_attrs=prefer-standby", pw, tcp), nil, c, "hub@hub"},
		{"standby without a standby", fmt.Sprintf("postgres://hub:%s@%s/hub?target_session_attrs=standby", pw, tcp), nil, c, "69"},
		{"an encoded socket", fmt.Sprintf("postgres://hub@%s:%d/hub", url.QueryEscape(socket), port), nil, c, "hub@hub"},
		{"a socket as a parameter", fmt.Sprintf("postgres:///hub?host=%s&port=%d&user=hub", socket, port), nil, c, "hub@hub"},
		{"a socket in keyword form", fmt.Sprintf("host=%s port=%d user=hub dbname=hub", socket, port), nil, c, "hub@hub"},
		{"a socket and require", fmt.Sprintf("host=%s port=%d user=hub dbname=hub sslmode=require", socket, port), nil, c, "hub@hub"},
		{"hostaddr", fmt.Sprintf("host=nowhere.invalid hostaddr=127.0.0.1 port=%d user=hub dbname=hub password=%s", port, pw), nil, c, "hub@hub"},
		{"an awkward password", fmt.Sprintf("postgres://odd:%s@%s/hub", awkward, tcp), nil, c, "odd@hub"},
		{"the same, encoded", fmt.Sprintf("postgres://odd:%s@%s/hub", url.QueryEscape(awkward), tcp), nil, c, "odd@hub"},
		{"the same, quoted", fmt.Sprintf("user=odd password='%s' host=127.0.0.1 port=%d dbname=hub", awkward, port), nil, c, "odd@hub"},
		{"a database with a blank", fmt.Sprintf("postgres://odd:%s@%s/a%%20b", url.QueryEscape(awkward), tcp), nil, c, "odd@a"},
		{"no database", fmt.Sprintf("postgres://odd@%s", url.QueryEscape(socket)+":"+fmt.Sprint(port)), nil, c, "odd@odd"},
		{"a service", "service=hub", []string{"PGSERVICEFILE=" + services}, c, "hub@hub"},
		{"a service, and what is said", "service=hub dbname=hub4", []string{"PGSERVICEFILE=" + services}, c, "hub@hub4"},
		{"a service in a URL", "postgres://odd@/?service=hub", []string{"PGSERVICEFILE=" + services}, c, "odd@hub"},
		{"PGSERVICE before PGDATABASE", "", []string{"PGSERVICE=hub", "PGSERVICEFILE=" + services, "PGDATABASE=hub4"}, c, "hub@hub"},
		{"the host's service file", "service=everyone", []string{"PGSYSCONFDIR=" + dir}, c, "hub@hub4"},
		{"the host's service file after the user's", "service=everyone", []string{"PGSYSCONFDIR=" + dir, "PGSERVICEFILE=" + services}, c, "hub@hub4"},
		{"no such service", "service=none", []string{"PGSERVICEFILE=" + services}, c, "78"},
		{"a password file", fmt.Sprintf("postgres://hub@%s/hub", tcp), []string{"PGPASSFILE=" + passfile}, c, "hub@hub"},
		{"a password file by parameter", fmt.Sprintf("postgres://hub@localhost:%d/hub?passfile=%s", port, passfile), nil, c, "hub@hub"},
		{"a password file that others can read", fmt.Sprintf("postgres://hub@%s/hub", tcp), []string{"PGPASSFILE=" + open}, c, "78"},
		{"options", fmt.Sprintf("postgres://hub:%s@%s/hub?options=-csearch_path%%3Dpublic", pw, tcp), nil, c, "hub@hub"},
		{"a wrong password", fmt.Sprintf("postgres://hub:wrong@%s/hub", tcp), nil, c, "78"},
		{"no password", fmt.Sprintf("postgres://hub@%s/hub", tcp), nil, c, "78"},
		{"no such database", fmt.Sprintf("postgres://hub:%s@%s/none", pw, tcp), nil, c, "78"},
		{"nothing listens", "postgres://hub@127.0.0.1:1/hub", nil, c, "69"},
		{"a bad parameter", fmt.Sprintf("postgres://hub:%s@%s/hub?sslmod=require", pw, tcp), nil, c, "78"},
		{"a password that breaks the URL", "postgres://hub:a/b@127.0.0.1/hub", nil, c, "78"},
		{"TLS, and the server has none", fmt.Sprintf("postgres://hub:%s@%s/hub?sslmode=require", pw, tcp), nil, c, "78"},
		{"TLS", tls.TLSURL(), nil, tls, "hub@hub"},
		{"require", tls.TCPURL() + "?sslmode=require", nil, tls, "hub@hub"},
		{"require, and the authority", tls.TCPURL() + "?sslmode=require&sslrootcert=" + ca, nil, tls, "hub@hub"},
		{"verify-ca", tls.TCPURL() + "?sslmode=verify-ca&sslrootcert=" + ca, nil, tls, "hub@hub"},
		{"ssl=true", tls.TCPURL() + "?ssl=true", nil, tls, "hub@hub"},
		{"PGREQUIRESSL", tls.TCPURL(), []string{"PGREQUIRESSL=1"}, tls, "hub@hub"},
		{"TLS 1.3 alone", tls.TLSURL() + "&ssl_min_protocol_version=TLSv1.3&ssl_max_protocol_version=TLSv1.3", nil, tls, "hub@hub"},
		{"no such authority file", tls.TCPURL() + "?sslmode=verify-full&sslrootcert=/nowhere.pem", nil, tls, "78"},
		{"disable, and the server wants TLS", tls.TCPURL() + "?sslmode=disable", nil, tls, "78"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			env := append([]string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=" + t.TempDir()}, tc.env...)
			reference := exec.Command("psql", "-X", "-w", "-Atc", "SELECT 1")
			if tc.dsn != "" {
				reference.Args = append(reference.Args, tc.dsn)
			}
			reference.Env = env
			before := len(sessions(t, tc.to))
			out, err := reference.CombinedOutput()
			if connected := strings.Contains(tc.want, "@"); connected != (err == nil) {
				t.Fatalf("psql: %v: %s; the table says %s", err, out, tc.want)
			}
			after := sessions(t, tc.to)
			if strings.Contains(tc.want, "@") && (len(after) == before || after[len(after)-1] != tc.want) {
				t.Fatalf("psql was %q; the table says %s", after[before:], tc.want)
			}
			m := sysmetrics(t, append(tc.env, "DATABASE_URL="+tc.dsn)...)
			got := m.run(records("web1", 1), "flush")
			opened := sessions(t, tc.to)[len(after):]
			if connected := strings.Contains(tc.want, "@"); connected && (got.status != 0 || len(opened) == 0 || opened[len(opened)-1] != tc.want) || !connected && fmt.Sprint(got.status) != tc.want {
				t.Errorf("sysmetrics: status %d, sessions %q; want %s\n%s", got.status, opened, tc.want, got.stderr)
			}
			expectNoSecret(t, tc.to, got)
			for line := range strings.Lines(got.stderr) {
				if !strings.HasPrefix(line, "{") {
					t.Errorf("not a JSON line: %s", line)
				}
			}
		})
	}
}

// No library may need a home directory that the sandbox of the units hides.
func TestTLSWithAHomeThatCannotBeRead(t *testing.T) {
	c := postgres.Run(t, postgres.Config{TLS: true})
	m := sysmetrics(t)
	home := filepath.Join(t.TempDir(), "server")
	if err := os.Mkdir(home, 0o700); err != nil {
		t.Fatal(err)
	}
	// As with ProtectHome=yes. Root can read a directory of any mode, so the test uses
	// another user in a mount namespace.
	script := `mount -t tmpfs -o mode=0000 tmpfs "$1" && shift && exec setpriv --reuid=65534 --clear-groups "$@"`
	copied := filepath.Join("/tmp", fmt.Sprintf("sysmetrics-%d", os.Getpid()))
	b, err := os.ReadFile(m.path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(copied, b, 0o755); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(copied)
	ca, err := os.ReadFile(c.CACert())
	if err != nil {
		t.Fatal(err)
	}
	authority := copied + ".pem"
	if err := os.WriteFile(authority, ca, 0o644); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(authority)
	for _, query := range []string{"?sslmode=require", "?sslmode=verify-full&sslrootcert=" + authority} {
		state, err := os.MkdirTemp("/tmp", "sysmetrics-state")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(state)
		if err := os.Chown(state, 65534, 65534); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("unshare", "--mount", "sh", "-c", script, "sh", home, copied, "flush", "--state-dir", state)
		cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=" + home, "DATABASE_URL=" + c.TCPURL() + query}
		cmd.Stdin = strings.NewReader(records("web1", 1))
		cmd.Dir = "/"
		if got := finish(t, cmd); got.status != 0 {
			t.Errorf("%s: status %d: %s", query, got.status, got.stderr)
		}
	}
}

// Each kind of failure has its own status and hint, from the answer of a real server.
func TestDatabaseHints(t *testing.T) {
	c := postgres.Run(t, postgres.Config{TCP: true})
	tls := postgres.Run(t, postgres.Config{TLS: true})
	peer := postgres.Run(t, postgres.Config{Peer: true})
	psql(t, c, "CREATE ROLE full LOGIN CONNECTION LIMIT 0; CREATE ROLE closed NOLOGIN; CREATE ROLE plain LOGIN; SET ROLE hub; "+oldTable)
	ca := url.QueryEscape(tls.CACert())
	for _, tc := range []struct {
		name, dsn string
		status    int
		hint      string
	}{
		{"wrong password", strings.Replace(c.TCPURL(), c.Password, "wrong", 1), exitConfig, "password"},
		{"no such role", c.SocketURL("missing", "hub"), exitConfig, "createuser"},
		{"no login", c.SocketURL("closed", "hub"), exitConfig, "ALTER ROLE"},
		{"no such database", c.SocketURL("hub", "missing"), exitConfig, "createdb"},
		{"no right", c.SocketURL("plain", "hub"), exitConfig, "GRANT SELECT, INSERT ON system_metrics TO"},
		{"unknown parameter", c.URL() + "&sslmod=require", exitConfig, "no such parameter"},
		{"bad value", c.URL() + "&options=-cwork_mem%3Dnone", exitConfig, "correct the parameter"},
		{"too many connections", c.SocketURL("full", "hub"), exitUnavailable, "max_connections"},
		{"read-only", c.URL() + "&options=-cdefault_transaction_read_only%3Don", exitUnavailable, "target_session_attrs"},
		{"no standby", c.URL() + "&target_session_attrs=standby", exitUnavailable, "target_session_attrs"},
		{"nothing listens", "postgres://hub@127.0.0.1:1/hub", exitUnavailable, "nothing listens"},
		{"no socket", "postgres://hub@/hub?host=/nowhere", exitUnavailable, "no such socket"},
		{"no such host", "postgres://hub@nowhere.invalid/hub", exitUnavailable, "name server"},
		{"no TLS", c.TCPURL() + "?sslmode=require", exitConfig, "sslmode=disable"},
		{"TLS is wanted", tls.TCPURL() + "?sslmode=disable", exitConfig, "sslmode=verify-full"},
		{"unknown authority", tls.TCPURL() + "?sslmode=verify-full", exitConfig, "sslrootcert="},
		{"another name", strings.Replace(tls.TLSURL(), "127.0.0.1", "db.example.com", 1) + "&hostaddr=127.0.0.1", exitConfig, "use that name"},
		{"no authority file", tls.TCPURL() + "?sslmode=verify-full&sslrootcert=/nowhere", exitConfig, "must be PEM"},
		{"no certificate file", tls.TCPURL() + "?sslmode=verify-full&sslrootcert=" + ca + "&sslcert=" + ca + "&sslkey=/nowhere", exitConfig, "must be PEM"},
		{"not a PEM file", tls.TCPURL() + "?sslmode=verify-full&sslrootcert=/etc/passwd", exitConfig, "must be PEM"},
		{"peer", strings.Replace(peer.SocketURL("server", "hub"), "?", "?application_name=x&", 1), exitConfig, "hub-run"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := sysmetrics(t, "DATABASE_URL="+tc.dsn).run(records("web1", 1), "flush")
			var said struct{ Hint string }
			if err := json.Unmarshal([]byte(got.stderr), &said); err != nil {
				t.Fatalf("%v: %s", err, got.stderr)
			}
			if got.status != tc.status || !strings.Contains(said.Hint, tc.hint) {
				t.Errorf("status %d, hint %q; want %d, %q\n%s", got.status, said.Hint, tc.status, tc.hint, got.stderr)
			}
		})
	}
	// The command of the hint repairs the failure.
	psql(t, c, "GRANT SELECT, INSERT ON system_metrics TO plain")
	sysmetrics(t, "DATABASE_URL="+c.SocketURL("plain", "hub")).want(0, records("web1", 1), "flush")
}

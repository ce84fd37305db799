package e2e

import (
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"observability-hub/e2e/await"
	"observability-hub/e2e/postgres"
)

// oldTable is the table of hubs from before this tool: whole seconds, no unique index.
const oldTable = `CREATE TABLE system_metrics (time TIMESTAMPTZ(0) NOT NULL, host TEXT NOT NULL, os TEXT NOT NULL, metric_type TEXT NOT NULL, payload JSONB NOT NULL)`

// tables are the forms of system_metrics that a database may have, as functions that create one owned by hub.
var tables = []table{
	{"old table", func(tb testing.TB, c *postgres.Cluster) { psql(tb, c, drop+"SET ROLE hub; "+oldTable) }},
	{"made by flush", func(tb testing.TB, c *postgres.Cluster) {
		psql(tb, c, drop)
		sysmetrics(tb, "DATABASE_URL="+c.URL()).want(0, records("first", 1), "flush")
		psql(tb, c, "TRUNCATE system_metrics")
	}},
	{"partitioned", func(tb testing.TB, c *postgres.Cluster) { psql(tb, c, drop+"SET ROLE hub;\n"+schema(tb)) }},
	{"old table with the new index", func(tb testing.TB, c *postgres.Cluster) {
		psql(tb, c, drop+"SET ROLE hub; "+oldTable+";\n"+schema(tb))
	}},
}

type table struct {
	name string
	make func(tb testing.TB, c *postgres.Cluster)
}

const drop = "DROP TABLE IF EXISTS system_metrics;\n"

func schema(tb testing.TB) string {
	tb.Helper()
	return sysmetrics(tb).want(0, "", "schema").stdout
}

func psql(tb testing.TB, c *postgres.Cluster, statements string) string {
	tb.Helper()
	out, err := c.PSQL(statements, "-AtF|", "-q")
	if err != nil {
		tb.Fatal(err)
	}
	return strings.TrimSpace(out)
}

// slow makes every insert take a while (an SQL expression, in seconds) before it commits, as on a busy server. So it does not
// depend on luck what another session does meanwhile.
func slow(tb testing.TB, c *postgres.Cluster, seconds string) {
	tb.Helper()
	psql(tb, c, `CREATE OR REPLACE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN PERFORM pg_sleep(`+seconds+`); RETURN NULL; END$$;
		CREATE TRIGGER slow AFTER INSERT ON system_metrics FOR EACH STATEMENT EXECUTE FUNCTION slow()`)
}

// expect runs a query and compares its rows, fields joined by |.
func expect(tb testing.TB, c *postgres.Cluster, query, want string) {
	tb.Helper()
	if got := psql(tb, c, query); got != want {
		tb.Errorf("%s\ngot  %s\nwant %s", query, got, want)
	}
}

// expectRows checks the number of rows, and that no two rows have the same record.
func expectRows(tb testing.TB, c *postgres.Cluster, want int) {
	tb.Helper()
	expect(tb, c, "SELECT count(*), count(DISTINCT (time, host, metric_type)) FROM system_metrics", fmt.Sprintf("%d|%d", want, want))
}

// expectNoSecret fails the test if the output of a run contains the password.
func expectNoSecret(tb testing.TB, c *postgres.Cluster, o outcome) {
	tb.Helper()
	if strings.Contains(o.stdout+o.stderr, c.Password) {
		tb.Errorf("the password is in the output\nstdout: %s\nstderr: %s", o.stdout, o.stderr)
	}
}

func expectSpooled(tb testing.TB, m *tool, want int) {
	tb.Helper()
	if got := len(m.spooled("spool.jsonl")); got != want {
		tb.Errorf("the spool holds %d records; want %d", got, want)
	}
}

func TestConnections(t *testing.T) {
	socket := postgres.Run(t, postgres.Config{Peer: true})
	tcp := postgres.Run(t, postgres.Config{TCP: true})
	tls := postgres.Run(t, postgres.Config{TLS: true})
	credentials := t.TempDir()
	if err := os.WriteFile(filepath.Join(credentials, "database_url"), []byte(tcp.TCPURL()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	pgpass := filepath.Join(t.TempDir(), "pgpass")
	if err := os.WriteFile(pgpass, fmt.Appendf(nil, "127.0.0.1:%d:hub:hub:%s\n", tcp.Port, tcp.Password), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		to   *postgres.Cluster
		env  []string
	}{
		{"unix socket", socket, []string{"DATABASE_URL=" + socket.URL()}},
		{"unix socket in libpq's keyword form", socket, []string{fmt.Sprintf("DATABASE_URL=host=%s port=%d user=hub dbname=hub", filepath.Dir(socket.Socket()), socket.Port)}},
		{"unix socket by PGHOST", socket, []string{"PGHOST=" + filepath.Dir(socket.Socket()), fmt.Sprintf("PGPORT=%d", socket.Port), "PGUSER=hub", "PGDATABASE=hub"}},
		{"variables that are empty", socket, []string{"DATABASE_URL=" + socket.URL(), "PGPORT=", "PGHOST=", "PGSSLMODE=", "PGCONNECT_TIMEOUT=", "PGREQUIRESSL="}},
		{"password", tcp, []string{"DATABASE_URL=" + tcp.TCPURL()}},
		{"password by PGPASSWORD", tcp, []string{"PGHOST=127.0.0.1", fmt.Sprintf("PGPORT=%d", tcp.Port), "PGUSER=hub", "PGDATABASE=hub", "PGPASSWORD=" + tcp.Password}},
		{"password by .pgpass", tcp, []string{"PGHOST=127.0.0.1", fmt.Sprintf("PGPORT=%d", tcp.Port), "PGUSER=hub", "PGDATABASE=hub", "PGPASSFILE=" + pgpass}},
		{"credential before environment", tcp, []string{"CREDENTIALS_DIRECTORY=" + credentials, "DATABASE_URL=postgres://nobody@127.0.0.1:1/nothing"}},
		{"TLS", tls, []string{"DATABASE_URL=" + tls.TLSURL()}},
		{"TLS by name", tls, []string{"DATABASE_URL=" + strings.Replace(tls.TLSURL(), "127.0.0.1", "localhost", 1)}},
		{"TLS by PGSSLMODE", tls, []string{"DATABASE_URL=" + tls.TCPURL(), "PGSSLMODE=verify-full", "PGSSLROOTCERT=" + tls.CACert()}},
	} {
		t.Run(c.name, func(t *testing.T) {
			psql(t, c.to, "DROP TABLE IF EXISTS system_metrics")
			host := newFixtureHost(t, "web1")
			host.tick(t)
			m := sysmetrics(t, c.env...)
			got := m.want(0, "", append([]string{"collect", "--flush"}, host.args()...)...)
			if f := got.flushed(t); f.Inserted != 4 || f.Duplicates+f.Rejected+f.Spooled+f.Dropped != 0 || f.Service != "system-metrics" {
				t.Errorf("flushed %+v; want 4 inserted and nothing else", f)
			}
			if got.stderr != "" {
				t.Errorf("stderr: %s", got.stderr)
			}
			expectNoSecret(t, c.to, got)
			expectSpooled(t, m, 0)
			expect(t, c.to, "SELECT string_agg(metric_type, ' ' ORDER BY metric_type), count(DISTINCT time), min(host) FROM system_metrics", "cpu disk memory network|1|web1")
		})
	}
}

func TestFailuresKeepTheRecords(t *testing.T) {
	tcp := postgres.Run(t, postgres.Config{TCP: true})
	psql(t, tcp, "SET ROLE hub;\n"+schema(t))
	psql(t, tcp, "CREATE ROLE guest LOGIN PASSWORD '"+tcp.Password+"'; GRANT CONNECT ON DATABASE hub TO guest")
	standby := postgres.RunStandby(t, tcp)
	tls := postgres.Run(t, postgres.Config{TLS: true, Conf: []string{"listen_addresses = '127.0.0.1,127.0.0.2'"}})
	stranger := filepath.Join(t.TempDir(), "stranger.pem")
	if _, _, err := postgres.WriteAuthority(stranger); err != nil {
		t.Fatal(err)
	}
	wrongPassword := strings.Replace(tcp.TCPURL(), tcp.Password, "not-"+tcp.Password, 1)
	for _, c := range []struct {
		name string
		url  string
		says string // pattern that the diagnostic must match
	}{
		{"nothing listens", "postgres://hub:" + tcp.Password + "@127.0.0.1:1/hub", "refused"},
		{"no such socket", "postgres://hub@/hub?host=/nowhere", "no such file"},
		{"no such database", strings.TrimSuffix(tcp.TCPURL(), "/hub") + "/missing", "missing"},
		{"wrong password", wrongPassword, "password authentication"},
		{"no privilege", strings.Replace(tcp.TCPURL(), "//hub:", "//guest:", 1), "permission denied"},
		{"read-only standby", standby.TCPURL(), "read-only|recovery"},
		{"another authority", tls.TCPURL() + "?sslmode=verify-full&sslrootcert=" + stranger, "certificate"},
		{"authority that is not there", tls.TCPURL() + "?sslmode=verify-full&sslrootcert=/nowhere.pem", "nowhere.pem"},
		{"another name", strings.Replace(tls.TLSURL(), "127.0.0.1", "127.0.0.2", 1), "certificate"},
		{"no TLS where it is demanded", tls.TCPURL(), "no encryption|pg_hba"},
		{"not a URL", "postgres://hub:" + tcp.Password + "@[broken/hub", "."},
		{"an unknown TLS mode", tcp.TCPURL() + "?sslmode=perhaps", "perhaps|sslmode"},
	} {
		t.Run(c.name, func(t *testing.T) {
			host := newFixtureHost(t, "web1")
			m := sysmetrics(t, "DATABASE_URL="+c.url)
			for minute := 1; minute <= 2; minute++ {
				host.tick(t)
				got := m.run("", append([]string{"collect", "--flush"}, host.args()...)...)
				if got.status != exitUnavailable && got.status != exitConfig {
					t.Errorf("exit status %d; want %d or %d", got.status, exitUnavailable, exitConfig)
				}
				if !regexp.MustCompile(c.says).MatchString(got.stderr) {
					t.Errorf("stderr does not say %q: %s", c.says, got.stderr)
				}
				if !strings.Contains(got.stderr, `"level":"ERROR"`) || strings.Contains(got.stderr, "panic") {
					t.Errorf("stderr is not a diagnostic: %s", got.stderr)
				}
				expectNoSecret(t, tcp, got)
				expectNoSecret(t, tls, got)
				if got.took > 10*time.Second {
					t.Errorf("took %s", got.took)
				}
				expectSpooled(t, m, 4*minute)
			}
			// After the fault the next run inserts all records, with the original times.
			psql(t, tcp, "TRUNCATE system_metrics")
			host.tick(t)
			m.with("DATABASE_URL="+tcp.TCPURL()).want(0, "", append([]string{"collect", "--flush"}, host.args()...)...)
			expectRows(t, tcp, 12)
			expect(t, tcp, "SELECT count(DISTINCT time), min(time) = '"+sampleTime(0).Format(time.RFC3339Nano)+"' FROM system_metrics", "3|t")
			expectSpooled(t, m, 0)
		})
	}
}

func TestWithoutDatabase(t *testing.T) {
	host := newFixtureHost(t, "web1")
	m := sysmetrics(t)
	for minute := 1; minute <= 3; minute++ {
		host.tick(t)
		got := m.want(0, "", append([]string{"collect", "--flush"}, host.args()...)...)
		if f := got.flushed(t); f.Inserted != 0 || f.Spooled != 4 {
			t.Errorf("minute %d: %+v; want 4 spooled", minute, f)
		}
	}
	// collect without --flush prints its records, and does not use the spool.
	if got := m.want(0, "", append([]string{"collect"}, host.args()...)...); strings.Count(got.stdout, "\n") != 4 {
		t.Errorf("collect prints %q; want four records", got.stdout)
	}
	expectSpooled(t, m, 12)
}

// A listener that accepts and never answers, and a server whose processes are all stopped: both count as down, within a limited time.
func TestDatabaseThatNeverAnswers(t *testing.T) {
	mute, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { mute.Close() })
	accepted := make(chan net.Conn, 16)
	go func() {
		for {
			c, err := mute.Accept()
			if err != nil {
				close(accepted)
				return
			}
			accepted <- c // kept, so that it stays open
		}
	}()
	frozen := postgres.Run(t, postgres.Config{})
	if err := frozen.Freeze(); err != nil {
		t.Fatal(err)
	}
	for name, address := range map[string]string{
		"mute TCP":     "postgres://hub:secret-word@" + mute.Addr().String() + "/hub",
		"mute TLS":     "postgres://hub:secret-word@" + mute.Addr().String() + "/hub?sslmode=require",
		"frozen":       frozen.URL(),
		"frozen twice": "postgres://hub@/hub?" + url.Values{"host": {filepath.Dir(frozen.Socket()) + "," + filepath.Dir(frozen.Socket())}, "port": {fmt.Sprintf("%d,%d", frozen.Port, frozen.Port)}}.Encode(),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			host := newFixtureHost(t, "web1")
			host.tick(t)
			m := sysmetrics(t, "DATABASE_URL="+address)
			got := m.want(exitUnavailable, "", append([]string{"collect", "--flush", "--timeout", "1s"}, host.args()...)...)
			if got.took > 5*time.Second {
				t.Errorf("took %s with --timeout 1s", got.took)
			}
			if strings.Contains(got.stderr, "secret-word") {
				t.Errorf("the password is in stderr: %s", got.stderr)
			}
			expectSpooled(t, m, 4)
		})
	}
}

// Several hosts in one connection string: the rows go to the host that accepts writes, also after a failover.
func TestPromotedStandbyGetsTheRows(t *testing.T) {
	primary := postgres.Run(t, postgres.Config{TCP: true})
	psql(t, primary, "SET ROLE hub;\n"+schema(t))
	standby := postgres.RunStandby(t, primary)
	both := fmt.Sprintf("postgres://hub:%s@127.0.0.1,127.0.0.1/hub?port=%d,%d&target_session_attrs=read-write", primary.Password, standby.Port, primary.Port)
	host := newFixtureHost(t, "web1")
	m := sysmetrics(t, "DATABASE_URL="+both)
	flush := func(status int) outcome {
		t.Helper()
		host.tick(t)
		return m.want(status, "", append([]string{"collect", "--flush"}, host.args()...)...)
	}

	flush(0) // the first host is a standby
	expectRows(t, primary, 4)
	if err := standby.AwaitReplay(primary); err != nil {
		t.Fatal(err)
	}
	if err := primary.Kill9(); err != nil {
		t.Fatal(err)
	}
	expectNoSecret(t, primary, flush(exitUnavailable)) // one is down and the other read-only
	expectSpooled(t, m, 4)
	if err := standby.Promote(); err != nil {
		t.Fatal(err)
	}
	flush(0)
	expectRows(t, standby, 12)
	expectSpooled(t, m, 0)

	// Now the first host is down.
	m.env = []string{fmt.Sprintf("DATABASE_URL=postgres://hub:%s@127.0.0.1,127.0.0.1/hub?port=%d,%d&target_session_attrs=read-write", primary.Password, primary.Port, standby.Port)}
	flush(0)
	expectRows(t, standby, 16)
}

// The table of a hub from before this tool, with its rows: it accepts new rows, and the queries of its dashboards still work.
func TestOldTableAndItsQueries(t *testing.T) {
	c := postgres.Run(t, postgres.Config{})
	psql(t, c, "SET ROLE hub; "+oldTable+`;
		INSERT INTO system_metrics VALUES
		('2026-02-28 23:59:00+00', 'web1', 'debian 12', 'cpu', '{"usage": 3.2, "package_temp": 41, "core_temps": {"core_0": 40}}'),
		('2026-02-28 23:59:00+00', 'web1', 'debian 12', 'memory', '{"total": 8192000000, "available": 5000000000, "used": 3192000000, "used_percent": 38.9}'),
		('2026-02-28 23:59:00+00', 'web1', 'debian 12', 'disk', '{"/": {"total": 1000, "used": 400, "free": 600, "used_percent": 40}}'),
		('2026-02-28 23:59:00+00', 'web1', 'debian 12', 'network', '{"eth0": {"rx_bytes": 940000, "tx_bytes": 470000}}')`)
	host := newFixtureHost(t, "web1")
	m := sysmetrics(t, "DATABASE_URL="+c.URL())
	for minute := 1; minute <= 2; minute++ {
		host.tick(t)
		f := m.want(0, "", append([]string{"collect", "--flush"}, host.args()...)...).flushed(t)
		if f.Inserted != 4 {
			t.Errorf("minute %d: %+v; want 4 inserted", minute, f)
		}
	}
	expectRows(t, c, 12)
	expect(t, c, "SELECT data_type, datetime_precision FROM information_schema.columns WHERE table_name = 'system_metrics' AND column_name = 'time'", "timestamp with time zone|0")
	expect(t, c, "SELECT payload->>'usage' FROM system_metrics WHERE metric_type = 'cpu' ORDER BY time LIMIT 1", "3.2")
	expect(t, c, "SELECT bool_and((payload->>'usage')::float BETWEEN 0 AND 100) FROM system_metrics WHERE metric_type = 'cpu'", "t")
	// From the fixture: 2250 of 6750 jiffies are busy in the last minute.
	expect(t, c, "SELECT round((payload->>'usage')::numeric, 1) FROM system_metrics WHERE metric_type = 'cpu' ORDER BY time DESC LIMIT 1", "33.3")
	expect(t, c, "SELECT payload->>'total', payload->>'used_percent' FROM system_metrics WHERE metric_type = 'memory' ORDER BY time DESC LIMIT 1", "8192000000|37.5")
	expect(t, c, "SELECT count(payload->'/'->>'used_percent') FROM system_metrics WHERE metric_type = 'disk'", "3")
	expect(t, c, "SELECT string_agg(payload->'eth0'->>'rx_bytes', ' ' ORDER BY time) FROM system_metrics WHERE metric_type = 'network'", "940000 1000000 1060000")
	expect(t, c, "SELECT string_agg(payload->'eth0'->>'tx_bytes', ' ' ORDER BY time) FROM system_metrics WHERE metric_type = 'network'", "470000 500000 530000")
}

func TestReplayMakesNoDuplicate(t *testing.T) {
	const minutes = 40
	input := records("web2", minutes)
	c := postgres.Run(t, postgres.Config{})
	for _, table := range tables {
		t.Run(table.name, func(t *testing.T) {
			table.make(t, c)
			m := sysmetrics(t, "DATABASE_URL="+c.URL())
			if f := m.want(0, input, "flush").flushed(t); f.Inserted != 4*minutes || f.Duplicates != 0 {
				t.Errorf("first: %+v; want %d inserted", f, 4*minutes)
			}
			if f := m.want(0, input, "flush").flushed(t); f.Inserted != 0 || f.Duplicates != 4*minutes {
				t.Errorf("again: %+v; want %d duplicates", f, 4*minutes)
			}
			// A record that is twice in one stream becomes one row too.
			if f := m.want(0, records("web3", 1)+records("web3", 1), "flush").flushed(t); f.Inserted != 4 || f.Duplicates != 4 {
				t.Errorf("twice in one stream: %+v; want 4 inserted, 4 duplicates", f)
			}
			expectRows(t, c, 4*minutes+4)
			expect(t, c, "SELECT count(*) FROM system_metrics WHERE host = 'web2' AND metric_type = 'cpu' AND payload->>'package_temp' = '41'", fmt.Sprint(minutes))
		})
	}
}

// Several hosts replay the same records at the same moment, each with its own state. Then one host is started several times at once.
func TestConcurrentReplayMakesNoDuplicate(t *testing.T) {
	const minutes, runs = 30, 6
	c := postgres.Run(t, postgres.Config{})
	variants := slices.Clone(tables)
	for _, level := range []string{"repeatable read", "serializable"} {
		// A snapshot that is older than the lock would not show the rows that the previous run committed.
		variants = append(variants, table{"old table, " + level, func(tb testing.TB, c *postgres.Cluster) {
			tables[0].make(tb, c)
			psql(tb, c, "ALTER DATABASE hub SET default_transaction_isolation = '"+level+"'")
		}})
	}
	for _, table := range variants {
		t.Run(table.name, func(t *testing.T) {
			table.make(t, c)
			slow(t, c, "0.1")
			inserted := 0
			for i, got := range atOnce(runs, func(int) outcome {
				return sysmetrics(t, "DATABASE_URL="+c.URL()).run(records("web2", minutes), "flush")
			}) {
				if got.status != 0 {
					t.Errorf("run %d: exit status %d: %s", i, got.status, got.stderr)
					continue
				}
				inserted += got.flushed(t).Inserted
			}
			if inserted != 4*minutes {
				t.Errorf("the runs claim %d inserted rows together; want %d", inserted, 4*minutes)
			}
			expectRows(t, c, 4*minutes)

			m := sysmetrics(t, "DATABASE_URL="+c.URL())
			for i, got := range atOnce(runs, func(int) outcome { return m.run(records("web3", minutes), "flush") }) {
				if got.status != 0 && got.status != exitTryLater {
					t.Errorf("run %d on a shared state: exit status %d: %s", i, got.status, got.stderr)
				}
			}
			m.want(0, records("web3", minutes), "flush")
			expectRows(t, c, 2*4*minutes)
			expectSpooled(t, m, 0)
		})
	}
}

func atOnce(n int, run func(int) outcome) []outcome {
	all := make([]outcome, n)
	var group sync.WaitGroup
	start := make(chan struct{})
	for i := range n {
		group.Go(func() {
			<-start
			all[i] = run(i)
		})
	}
	close(start)
	group.Wait()
	return all
}

// Records that PostgreSQL refuses because of their content, between good ones.
func TestPoisonIsSetAside(t *testing.T) {
	bad := func(minute int, fields string) string {
		return fmt.Sprintf(`{"time":%q,"level":"INFO","msg":"sample","service":"system-metrics","os":"debian 12","metric_type":"cpu",%s}`, sampleTime(600+minute).Format("2006-01-02T15:04:05.000Z"), fields)
	}
	poison := map[string]string{
		"NUL in a text":          bad(0, `"host":"web2","payload":{"name":"a\u0000b"}`),
		"a lone surrogate":       bad(1, `"host":"web2","payload":{"name":"\ud800"}`),
		"a huge number":          bad(2, `"host":"web2","payload":{"usage":1e200000}`),
		"NUL in the host":        bad(3, `"host":"we\u0000b2","payload":{}`),
		"not UTF-8":              bad(5, `"host":"web2","payload":{"name":"`+"\xff\xfe"+`"}`),
		"nested too deep":        bad(6, `"host":"web2","payload":{"name":`+strings.Repeat("[", 9000)+strings.Repeat("]", 9000)+`}`),
		"against the constraint": bad(4, `"host":"forbidden","payload":{}`),
	}
	// The smallest stack, so that a record with too deep nesting need not be huge.
	c := postgres.Run(t, postgres.Config{Conf: []string{"max_stack_depth = '100kB'"}})
	for _, table := range tables {
		t.Run(table.name, func(t *testing.T) {
			table.make(t, c)
			psql(t, c, "ALTER TABLE system_metrics ADD CHECK (host <> 'forbidden')")
			for name, bad := range poison {
				t.Run(name, func(t *testing.T) {
					psql(t, c, "TRUNCATE system_metrics")
					m := sysmetrics(t)
					good := strings.SplitAfter(records("web2", 3), "\n")
					input := strings.Join(good[:5], "") + bad + "\n" + strings.Join(good[5:], "")

					// Directly from stdin.
					m.env = []string{"DATABASE_URL=" + c.URL()}
					got := m.run(input, "flush")
					if got.status != exitPartial {
						t.Errorf("exit status %d; want %d: %s", got.status, exitPartial, got.stderr)
					}
					if f := got.flushed(t); f.Inserted != 12 || f.Rejected != 1 {
						t.Errorf("%+v; want 12 inserted, 1 rejected", f)
					}
					if got.stderr == "" {
						t.Error("no diagnostic for the refused record")
					}
					expectRows(t, c, 12)
					expectSpooled(t, m, 0)
					expectRejected(t, m, bad)
					// The record was set aside, so the next run reports nothing.
					m.want(0, records("web2", 4), "flush")
					expectRows(t, c, 16)

					// From the spool, where it must not block the records after it.
					psql(t, c, "TRUNCATE system_metrics")
					m = sysmetrics(t)
					m.want(0, input, "flush")
					expectSpooled(t, m, 13)
					m.env = []string{"DATABASE_URL=" + c.URL()}
					host := newFixtureHost(t, "web1")
					host.tick(t)
					m.want(exitPartial, "", append([]string{"collect", "--flush"}, host.args()...)...)
					expectRows(t, c, 16)
					expectSpooled(t, m, 0)
					expectRejected(t, m, bad)
					host.tick(t)
					m.want(0, "", append([]string{"collect", "--flush"}, host.args()...)...)
					expectRows(t, c, 20)
				})
			}
		})
	}
}

func expectRejected(tb testing.TB, m *tool, bad string) {
	tb.Helper()
	content, err := os.ReadFile(filepath.Join(m.state, "rejected.jsonl"))
	if err != nil {
		tb.Error(err)
		return
	}
	if string(content) != bad+"\n" {
		tb.Errorf("rejected.jsonl holds\n%s\nwant only the refused record\n%s", content, bad)
	}
}

// Lines that are not records are refused, and the good ones around them are still inserted.
func TestBadInputLines(t *testing.T) {
	c := postgres.Run(t, postgres.Config{})
	psql(t, c, "SET ROLE hub;\n"+schema(t))
	long := `{"time":"` + sampleTime(0).Format(time.RFC3339Nano) + `","msg":"sample","host":"web2","os":"debian 12","metric_type":"cpu","payload":{"x":"` + strings.Repeat("x", 70_000) + `"}}`
	for name, bad := range map[string]string{
		"not JSON":      "what is this",
		"half a record": `{"time":"2026-03-01T00:00:00.000Z","host":"web`,
		"no host":       `{"time":"2026-03-01T00:00:00.000Z","msg":"sample","os":"debian 12","metric_type":"cpu","payload":{}}`,
		"host is null":  `{"time":"2026-03-01T00:00:00.000Z","msg":"sample","host":null,"os":"debian 12","metric_type":"cpu","payload":{}}`,
		"no time":       `{"msg":"sample","host":"web2","os":"debian 12","metric_type":"cpu","payload":{}}`,
		"a wrong time":  `{"time":"yesterday","msg":"sample","host":"web2","os":"debian 12","metric_type":"cpu","payload":{}}`,
		"no payload":    `{"time":"2026-03-01T00:00:00.000Z","msg":"sample","host":"web2","os":"debian 12","metric_type":"cpu"}`,
		"an array":      `[1,2,3]`,
	} {
		t.Run(name, func(t *testing.T) {
			psql(t, c, "TRUNCATE system_metrics")
			m := sysmetrics(t, "DATABASE_URL="+c.URL())
			good := strings.SplitAfter(records("web2", 2), "\n")
			got := m.run(strings.Join(good[:3], "")+bad+"\n"+strings.Join(good[3:], ""), "flush")
			if got.status != exitDataErr {
				t.Errorf("exit status %d; want %d: %s", got.status, exitDataErr, got.stderr)
			}
			expectRows(t, c, 8)
			expectSpooled(t, m, 0)
		})
	}
	t.Run("a long record is a record", func(t *testing.T) {
		psql(t, c, "TRUNCATE system_metrics")
		m := sysmetrics(t, "DATABASE_URL="+c.URL())
		m.want(0, records("web3", 1)+long+"\n", "flush")
		expectRows(t, c, 5)
	})
	t.Run("the last line has no line break", func(t *testing.T) {
		psql(t, c, "TRUNCATE system_metrics")
		m := sysmetrics(t, "DATABASE_URL="+c.URL())
		m.want(0, strings.TrimSuffix(records("web3", 1), "\n"), "flush")
		expectRows(t, c, 4)
	})
}

// The pipeline of the manual: one host collects, another flushes.
func TestRecordsOfAnotherHost(t *testing.T) {
	c := postgres.Run(t, postgres.Config{})
	host := newFixtureHost(t, "web2")
	host.tick(t)
	stream := sysmetrics(t).want(0, "", host.args()...).stdout
	m := sysmetrics(t, "DATABASE_URL="+c.URL())
	m.want(0, stream, "flush")
	expect(t, c, "SELECT count(*), min(host), min(time) = '"+sampleTime(0).Format(time.RFC3339Nano)+"' FROM system_metrics", "4|web2|t")
}

func TestPrune(t *testing.T) {
	c := postgres.Run(t, postgres.Config{})
	for _, table := range tables {
		t.Run(table.name, func(t *testing.T) {
			table.make(t, c)
			m := sysmetrics(t, "DATABASE_URL="+c.URL())
			var input strings.Builder
			for _, days := range []int{200, 100, 91, 89, 1} {
				at := time.Now().UTC().AddDate(0, 0, -days).Format("2006-01-02T15:04:05.000Z")
				fmt.Fprintf(&input, `{"time":%q,"level":"INFO","msg":"sample","service":"system-metrics","host":"web2","os":"debian 12","metric_type":"cpu","payload":{"usage":%d}}`+"\n", at, days)
			}
			m.want(0, input.String(), "flush")
			expectRows(t, c, 5)
			for range 2 { // pruning twice changes nothing more
				m.want(0, "", "prune", "--keep", "90d")
				expect(t, c, "SELECT string_agg(payload->>'usage', ' ' ORDER BY time) FROM system_metrics", "89 1")
			}
		})
	}
	m := sysmetrics(t, "DATABASE_URL="+c.URL())
	for _, keep := range []string{"", "0d", "-1d", "soon"} {
		if got := m.run("", "prune", "--keep="+keep); got.status != 64 {
			t.Errorf("prune --keep=%s: exit status %d; want 64: %s", keep, got.status, got.stderr)
		}
	}
}

// A run that gives up on a locked table ends its session. Otherwise hosts would use up the server's connections.
func TestNoSessionStaysBehind(t *testing.T) {
	c := postgres.Run(t, postgres.Config{})
	tables[0].make(t, c)
	m := sysmetrics(t, "DATABASE_URL="+c.URL())
	lock, err := c.DB().Begin()
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Rollback()
	if _, err := lock.Exec("LOCK TABLE system_metrics"); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		m.want(exitUnavailable, "", "collect", "--flush", "--timeout=300ms")
	}
	m.want(exitUnavailable, "", "prune", "--keep=30d", "--timeout=300ms")
	await.Until(t, "the sessions to end", func() bool {
		rows, err := c.Query("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'sysmetrics'")
		return err == nil && rows[0][0] == "0"
	})
}

// Partitions of another program may have names like those of sysmetrics and hold a month. Their bounds decide.
func TestPruneBelievesBounds(t *testing.T) {
	c := postgres.Run(t, postgres.Config{})
	first := time.Now().UTC().AddDate(0, 0, -5)
	if err := c.Exec(fmt.Sprintf(`CREATE TABLE system_metrics (time timestamptz NOT NULL, host text, os text, metric_type text, payload jsonb) PARTITION BY RANGE (time);
		CREATE TABLE system_metrics_p%s PARTITION OF system_metrics FOR VALUES FROM ('%s') TO (MAXVALUE);
		ALTER TABLE system_metrics OWNER TO hub; ALTER TABLE system_metrics_p%[1]s OWNER TO hub;
		INSERT INTO system_metrics SELECT now() - n * interval '1 hour' FROM generate_series(0, 100) n`,
		first.AddDate(0, 0, -20).Format("20060102"), first.AddDate(0, 0, -20).Format(time.DateOnly))); err != nil {
		t.Fatal(err)
	}
	sysmetrics(t, "DATABASE_URL="+c.URL()).want(0, "", "prune", "--keep", "7d")
	expectRows(t, c, 101)
}

// Partitions with other lengths and names than the tool's own: the time of their end decides.
func TestPruneGoesByTheBounds(t *testing.T) {
	c := postgres.Run(t, postgres.Config{})
	day := time.Now().UTC().Truncate(24 * time.Hour)
	bounds := func(name string, from, to int) string {
		return fmt.Sprintf("CREATE TABLE %s PARTITION OF system_metrics FOR VALUES FROM ('%s') TO ('%s');\n", name,
			day.AddDate(0, 0, -from).Format(time.RFC3339), day.AddDate(0, 0, -to).Format(time.RFC3339))
	}
	month := "system_metrics_p" + day.AddDate(0, 0, -40).Format("20060102")
	for name, timezone := range map[string]string{"UTC": "UTC", "far from UTC": "Pacific/Kiritimati"} {
		t.Run(name, func(t *testing.T) {
			psql(t, c, "ALTER DATABASE hub SET timezone = '"+timezone+"';\n"+drop+"SET ROLE hub;\n"+schema(t)+
				bounds(`"An old one"`, 90, 60)+bounds(month, 40, 10)+bounds("system_metrics_old", 10, -1)+
				"CREATE TABLE system_metrics_p20000101 PARTITION OF system_metrics DEFAULT;\n"+
				"CREATE TABLE system_metrics_p20010101 PARTITION OF system_metrics FOR VALUES FROM ('2100-01-01') TO (MAXVALUE);\n"+
				fmt.Sprintf("INSERT INTO system_metrics SELECT '%s'::timestamptz - d * interval '1 day', 'web2', '', 'cpu', to_jsonb(d) FROM unnest(ARRAY[200, 70, 35, 20, 5]) d", day.Format(time.RFC3339)))
			m := sysmetrics(t, "DATABASE_URL="+c.URL())
			got := m.want(0, "", "prune", "--keep", "30d")
			if !strings.Contains(got.stdout, `"partitions":1,"rows":2`) {
				t.Errorf("%s; want 1 partition and 2 rows", got.stdout)
			}
			expect(t, c, "SELECT string_agg(payload::text, ' ' ORDER BY time) FROM system_metrics", "20 5")
			expect(t, c, `SELECT count(*) FROM pg_inherits WHERE inhparent = 'system_metrics'::regclass`, "4")
		})
	}
	t.Run("partitioned by something else", func(t *testing.T) {
		psql(t, c, drop+"SET ROLE hub; "+oldTable+` PARTITION BY RANGE (host);
			CREATE TABLE system_metrics_p20000101 PARTITION OF system_metrics FOR VALUES FROM (MINVALUE) TO ('1999-01-01');
			CREATE TABLE system_metrics_p20000102 PARTITION OF system_metrics FOR VALUES FROM ('1999-01-01') TO ('zzz');
			INSERT INTO system_metrics VALUES (now(), '1', '', 'cpu', '{}'), (now(), 'web2', '', 'cpu', '{}')`)
		sysmetrics(t, "DATABASE_URL="+c.URL()).want(0, "", "prune", "--keep", "30d")
		expectRows(t, c, 2)
	})
}

// A timeout that is longer than the largest limit of the server must not count as a fault of the records.
func TestVeryLongTimeout(t *testing.T) {
	c := postgres.Run(t, postgres.Config{})
	m := sysmetrics(t, "DATABASE_URL="+c.URL())
	m.want(0, records("web2", 1), "flush", "--timeout=1000h")
	m.want(0, "", "prune", "--keep=30d", "--timeout=1000h")
}

// An insert may take too long because the table has no index. The message says what to do.
func TestSlowTableNamesTheSchema(t *testing.T) {
	c := postgres.Run(t, postgres.Config{})
	tables[0].make(t, c)
	slow(t, c, "30")
	m := sysmetrics(t, "DATABASE_URL="+c.URL())
	got := m.want(exitUnavailable, records("web2", 1), "flush", "--timeout=1s")
	if !strings.Contains(got.stderr, "sysmetrics schema | psql") {
		t.Errorf("stderr says %s; want the command that makes the index", got.stderr)
	}
	expectSpooled(t, m, 4)
}

// A day for which no partition can be created does not block the records of other days.
func TestPartitionThatCannotBeMade(t *testing.T) {
	c := postgres.Run(t, postgres.Config{})
	day := time.Now().UTC().Truncate(24 * time.Hour)
	sample := func(age time.Duration) string {
		return fmt.Sprintf(`{"time":%q,"host":"web2","os":"","metric_type":"cpu","payload":{}}`, day.Add(-age).Format("2006-01-02T15:04:05.000Z"))
	}
	name := "system_metrics_p" + day.AddDate(0, 0, -1).Format("20060102")
	for what, tc := range map[string]struct{ before, says string }{
		"overlap": {fmt.Sprintf("CREATE TABLE half PARTITION OF system_metrics FOR VALUES FROM ('%s+00') TO ('%s 12:00+00')",
			day.AddDate(0, 0, -2).Format(time.DateOnly), day.AddDate(0, 0, -1).Format(time.DateOnly)), "would overlap"},
		"another table of that name": {"CREATE TABLE " + name + " ()", "already exists"},
	} {
		t.Run(what, func(t *testing.T) {
			psql(t, c, drop+"DROP TABLE IF EXISTS "+name+"; SET ROLE hub;\n"+schema(t)+tc.before)
			bad := sample(6 * time.Hour) // the later half of yesterday
			m := sysmetrics(t, "DATABASE_URL="+c.URL())
			got := m.want(exitPartial, sample(3*24*time.Hour)+"\n"+bad+"\n"+sample(0)+"\n", "flush")
			if !strings.Contains(got.stderr, "no partition holds its time") || !strings.Contains(got.stderr, tc.says) || strings.Contains(got.stderr, "clock") {
				t.Errorf("stderr says %s; want the reason %q", got.stderr, tc.says)
			}
			expectRows(t, c, 2)
			expectRejected(t, m, bad)
			expectSpooled(t, m, 0)
		})
	}
}

// If a trigger lacks a table that it uses, sysmetrics does not change its own table.
func TestTriggerThatMissesATable(t *testing.T) {
	c := postgres.Run(t, postgres.Config{})
	psql(t, c, "SET ROLE hub; "+oldTable+`;
		CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN INSERT INTO audited VALUES (1); RETURN NULL; END$$;
		CREATE TRIGGER audit AFTER INSERT ON system_metrics FOR EACH STATEMENT EXECUTE FUNCTION audit()`)
	m := sysmetrics(t, "DATABASE_URL="+c.URL())
	got := m.want(exitConfig, records("web2", 1), "flush")
	if !strings.Contains(got.stderr, "audited") {
		t.Errorf("stderr does not name the table: %s", got.stderr)
	}
	expectSpooled(t, m, 4)
	expect(t, c, "SELECT count(*) FROM pg_indexes WHERE tablename = 'system_metrics'", "0")
}

// sysmetrics does not fill further columns of the table, even if they have names of other fields of the record.
func TestFurtherColumns(t *testing.T) {
	c := postgres.Run(t, postgres.Config{})
	for _, table := range tables {
		t.Run(table.name, func(t *testing.T) {
			table.make(t, c)
			psql(t, c, "ALTER TABLE system_metrics ADD level int DEFAULT 7, ADD msg inet, ADD service int")
			m := sysmetrics(t, "DATABASE_URL="+c.URL())
			m.want(0, records("web2", 1), "flush")
			m.want(0, records("web2", 1), "flush")
			expectRows(t, c, 4)
			expect(t, c, "SELECT min(level), max(level) FROM system_metrics", "7|7")
		})
	}
}

// serverClock gives the role hub a now() that differs by an interval, as if the clocks of the two machines differed.
func serverClock(tb testing.TB, c *postgres.Cluster, off string) {
	tb.Helper()
	psql(tb, c, `CREATE OR REPLACE FUNCTION public.now() RETURNS timestamptz LANGUAGE sql STABLE AS $$SELECT pg_catalog.now() + interval '`+off+`'$$;
		ALTER ROLE hub SET search_path = public, pg_catalog`)
}

// A host with a wrong clock neither deletes the rows of other hosts nor creates partitions by its own time.
func TestClocksThatDiffer(t *testing.T) {
	c := postgres.Run(t, postgres.Config{})
	for off, differs := range map[string]bool{"-100 days": true, "100 days": true, "-6 minutes": true, "6 minutes": true, "-3 minutes": false, "0": false} {
		for _, table := range tables {
			t.Run(off+", "+table.name, func(t *testing.T) {
				serverClock(t, c, "0")
				table.make(t, c)
				m := sysmetrics(t, "DATABASE_URL="+c.URL())
				old := fmt.Sprintf(`{"time":%q,"host":"web2","os":"","metric_type":"cpu","payload":{}}`+"\n", time.Now().UTC().AddDate(0, 0, -150).Format("2006-01-02T15:04:05.000Z"))
				m.want(0, old, "flush")
				serverClock(t, c, off)
				status := 0
				if differs {
					status = exitConfig
				}
				got := m.want(status, "", "prune", "--keep=120d")
				if differs {
					expectRows(t, c, 1)
					if !strings.Contains(got.stderr, "clock of this host") {
						t.Errorf("prune says %s; want it to name the clock", got.stderr)
					}
				} else {
					expectRows(t, c, 0)
				}
				psql(t, c, "TRUNCATE system_metrics")
				// A first sample with an empty spool, and a second one after a backlog.
				for n := 1; n <= 2; n++ {
					if n == 2 {
						m.with().want(0, "", "collect", "--flush")
					}
					got = m.run("", "collect", "--flush")
					if strings.Contains(got.stderr, "clock_differs") != differs {
						t.Errorf("flush %d says %q; want clock_differs: %v", n, got.stderr, differs)
					}
				}
				marked := psql(t, c, `SELECT count(*) FILTER (WHERE (payload#>>'{_meta,clock_skew_s}')::float8 <> 0), count(*) FROM system_metrics`)
				switch rejected := len(m.spooled("rejected.jsonl")); {
				case off == "-100 days" && strings.HasPrefix(table.name, "partitioned"), off == "-100 days" && table.name == "made by flush":
					// By the server's clock the day of these records is too far ahead.
					if marked != "0|0" || rejected != 12 {
						t.Errorf("marked|rows = %s, rejected %d; want 0|0 and 12", marked, rejected)
					}
					expect(t, c, "SELECT count(*) FROM pg_inherits WHERE inhparent = 'system_metrics'::regclass AND pg_get_expr((SELECT relpartbound FROM pg_class WHERE oid = inhrelid), inhrelid) LIKE '%"+time.Now().UTC().Format("2006-01-02")+"%'", "0")
				case table.name == "old table with the new index": // it accepts one record of a type in a second
				case differs && marked != "8|12" || !differs && marked != "0|12" || rejected != 0:
					t.Errorf("marked|rows = %s, rejected %d; differs: %v", marked, rejected, differs)
				}
			})
		}
	}
}

// Rows in a temporary table are lost when the session ends, so they must never count as inserted.
func TestNoTemporaryTable(t *testing.T) {
	c := postgres.Run(t, postgres.Config{})
	for name, tc := range map[string]struct {
		setup  string
		status int
		rows   string
	}{
		"nothing but pg_temp":                   {"ALTER ROLE hub SET search_path = pg_temp", exitConfig, "0"},
		"no schema that exists, then pg_temp":   {"ALTER ROLE hub SET search_path = absent, pg_temp", exitConfig, "0"},
		"pg_temp last, public not writable":     {"REVOKE CREATE ON SCHEMA public FROM PUBLIC, hub; ALTER ROLE hub SET search_path = public, pg_temp", exitConfig, "0"},
		"pg_temp first, the table after it":     {"SET ROLE hub; " + oldTable + "; RESET ROLE; ALTER ROLE hub SET search_path = pg_temp, public", 0, "4"},
		"an empty path":                         {"ALTER ROLE hub SET search_path = ''", exitConfig, "0"},
		"a view of a table":                     {"SET ROLE hub; " + strings.Replace(oldTable, "system_metrics", "real_metrics", 1) + "; CREATE VIEW system_metrics AS SELECT * FROM real_metrics", 0, "4"},
		"a schema ahead of public":              {"CREATE SCHEMA ahead AUTHORIZATION hub; SET ROLE hub; " + oldTable + "; RESET ROLE; ALTER ROLE hub SET search_path = ahead, public", 0, "4"},
		"a sequence of that name":               {"CREATE SEQUENCE system_metrics OWNED BY NONE; GRANT ALL ON system_metrics TO hub", exitConfig, "0"},
		"a materialized view of that name":      {"CREATE MATERIALIZED VIEW system_metrics AS SELECT now() AS time, '' AS host, '' AS os, '' AS metric_type, '{}'::jsonb AS payload; GRANT ALL ON system_metrics TO hub", exitConfig, "0"},
		"a table of other columns":              {"CREATE TABLE system_metrics (id int); GRANT ALL ON system_metrics TO hub", exitConfig, "0"},
		"a view whose rule does something else": {"CREATE VIEW system_metrics AS SELECT now() AS time, ''::text AS host, ''::text AS os, ''::text AS metric_type, '{}'::jsonb AS payload WHERE false; CREATE RULE r AS ON INSERT TO system_metrics DO INSTEAD NOTHING; GRANT ALL ON system_metrics TO hub", exitPartial, "0"},
		"a trigger that discards":               {"SET ROLE hub; " + oldTable + "; CREATE FUNCTION discard() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RETURN NULL; END$$; CREATE TRIGGER t BEFORE INSERT ON system_metrics FOR EACH ROW EXECUTE FUNCTION discard()", exitPartial, "0"},
		"a trigger that discards one type":      {"SET ROLE hub; " + oldTable + "; CREATE FUNCTION discard() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RETURN NULL; END$$; CREATE TRIGGER t BEFORE INSERT ON system_metrics FOR EACH ROW WHEN (NEW.metric_type = 'disk') EXECUTE FUNCTION discard()", exitPartial, "3"},
		"a trigger that changes the keys":       {"SET ROLE hub; " + oldTable + "; CREATE FUNCTION change() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN NEW.host = 'x' || NEW.host; RETURN NEW; END$$; CREATE TRIGGER t BEFORE INSERT ON system_metrics FOR EACH ROW EXECUTE FUNCTION change()", 0, "4"},
	} {
		t.Run(name, func(t *testing.T) {
			psql(t, c, `DROP SCHEMA public CASCADE; DROP SCHEMA IF EXISTS ahead CASCADE; CREATE SCHEMA public; GRANT ALL ON SCHEMA public TO hub; ALTER ROLE hub RESET search_path`)
			psql(t, c, tc.setup)
			m := sysmetrics(t, "DATABASE_URL="+c.URL())
			got := m.want(tc.status, "", "collect", "--flush")
			f := got.flushed(t)
			if n := fmt.Sprint(f.Inserted); n != tc.rows || f.Inserted+f.Rejected+f.Spooled != 4 || f.Duplicates != 0 {
				t.Errorf("flushed %+v; want %s inserted and the rest kept", f, tc.rows)
			}
			if f.Rejected != len(m.spooled("rejected.jsonl")) || f.Spooled != len(m.spooled("spool.jsonl")) {
				t.Errorf("flushed %+v; the files hold other records", f)
			}
			if tc.status == 0 || tc.status == exitPartial {
				expect(t, c, "SELECT count(*) FROM public.system_metrics", tc.rows)
			}
		})
	}
}

// The tool's writes to the unix socket of the server: each write is a round trip or a wake-up for every host every minute.
func TestClientWritesPerFlush(t *testing.T) {
	c := postgres.Run(t, postgres.Config{})
	for _, table := range tables {
		t.Run(table.name, func(t *testing.T) {
			table.make(t, c)
			m := sysmetrics(t, "DATABASE_URL="+c.URL())
			host := newFixtureHost(t, "web1")
			host.tick(t)
			m.want(0, "", append([]string{"collect", "--flush"}, host.args()...)...)
			host.tick(t)
			trace := filepath.Join(t.TempDir(), "trace")
			cmd := m.command("", append([]string{"collect", "--flush"}, host.args()...)...)
			traced(t, cmd, "-f", "-yy", "-e", "trace=write,writev,sendto,sendmsg", "-o", trace)
			if got := finish(t, cmd); got.status != 0 {
				t.Fatalf("exit status %d: %s", got.status, got.stderr)
			}
			expectRows(t, c, 8)
			log, err := os.ReadFile(trace)
			if err != nil {
				t.Fatal(err)
			}
			writes := regexp.MustCompile(`(?m)^.*(?:write|writev|sendto|sendmsg)\(\d+<UNIX-STREAM:.*$`).FindAllString(string(log), -1)
			t.Logf("%d client writes", len(writes))
			if len(writes) == 0 || len(writes) > 3 {
				t.Errorf("%d client writes; want 1 to 3:\n%s", len(writes), strings.Join(writes, "\n"))
			}
		})
	}
}

// Each partition gets the indexes of the table, with their settings.
func TestPartitionsHaveTheIndexes(t *testing.T) {
	c := postgres.Run(t, postgres.Config{})
	psql(t, c, "SET ROLE hub;\n"+schema(t))
	sysmetrics(t, "DATABASE_URL="+c.URL()).want(0, records("web1", 1), "flush")
	expect(t, c, "SELECT string_agg(a.amname || coalesce(' ' || array_to_string(i.reloptions, ' '), ''), ', ' ORDER BY a.amname) FROM pg_inherits p JOIN pg_index x ON x.indrelid = p.inhrelid JOIN pg_class i ON i.oid = x.indexrelid JOIN pg_am a ON a.oid = i.relam WHERE p.inhparent = 'system_metrics'::regclass",
		"brin autosummarize=on, btree")
}

package e2e

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"observability-hub/e2e/await"
	"observability-hub/e2e/postgres"
)

// pgbouncer starts Debian's pooler in transaction mode in front of a cluster. Each transaction may get another session, and each
// session serves many clients. It returns the URL of the database hub through the pooler.
func pgbouncer(tb testing.TB, c *postgres.Cluster) string {
	tb.Helper()
	dir, err := os.MkdirTemp("", "pgbouncer")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { os.RemoveAll(dir) })
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	port := listener.Addr().(*net.TCPAddr).Port
	listener.Close()
	conf := fmt.Sprintf("[databases]\nhub = host=%s port=%d dbname=hub user=hub\n[pgbouncer]\nlisten_addr=127.0.0.1\nlisten_port=%d\nunix_socket_dir=\nauth_type=any\npool_mode=transaction\ndefault_pool_size=1\n",
		filepath.Dir(c.Socket()), c.Port, port)
	path := filepath.Join(dir, "pgbouncer.ini")
	if err := os.WriteFile(path, []byte(conf), 0o644); err != nil {
		tb.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		tb.Fatal(err)
	}
	cmd := exec.Command("pgbouncer", "-u", "postgres", path)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	address := fmt.Sprintf("127.0.0.1:%d", port)
	await.Until(tb, "pgbouncer listens", func() bool {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			return false
		}
		conn.Close()
		return true
	})
	return "postgres://hub@" + address + "/hub"
}

// sysmetrics works through a pooler in transaction mode, and does not change the session for the next client.
func TestPgbouncerInTransactionMode(t *testing.T) {
	c := postgres.Run(t, postgres.Config{})
	pooled := pgbouncer(t, c)
	// transaction_isolation is reset at the end of the transaction, but keeps the source that SET TRANSACTION set.
	state := func() string {
		t.Helper()
		cmd := exec.Command("psql", "-X", "-AtF|", pooled, "-c", `SELECT string_agg(name || '=' || setting, ' ' ORDER BY name) FROM pg_settings WHERE source = 'session' AND name NOT IN ('application_name', 'transaction_isolation');`,
			"-c", "SELECT count(*) FROM pg_prepared_statements", "-c", "SELECT count(*) FROM pg_class WHERE relpersistence = 't'", "-c", "SELECT pg_backend_pid()")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return string(out)
	}
	before := state()
	for _, table := range tables {
		table.make(t, c)
		m := sysmetrics(t, "DATABASE_URL="+pooled)
		if f := m.want(0, records("web1", 3), "flush").flushed(t); f.Inserted != 12 {
			t.Errorf("%s: %+v; want 12 inserted", table.name, f)
		}
		if f := m.want(0, records("web1", 3), "flush").flushed(t); f.Duplicates != 12 {
			t.Errorf("%s, again: %+v; want 12 duplicates", table.name, f)
		}
		m.want(0, "", "prune", "--keep", "36500d")
		expectRows(t, c, 12)
		if after := state(); after != before {
			t.Errorf("%s: the session was\n%sand is\n%s", table.name, before, after)
		}
	}
	got := sysmetrics(t, "DATABASE_URL="+pooled+"?work_mem=8MB").run(records("web1", 1), "flush")
	if got.status != exitConfig || !strings.Contains(got.stderr, "ignore_startup_parameters") {
		t.Errorf("a parameter that pgbouncer does not know: status %d, %s", got.status, got.stderr)
	}
}

package e2e

import (
	"os/exec"
	"strings"
	"testing"

	"observability-hub/e2e/postgres"
)

// sysmetrics works through a pooler in transaction mode, and does not change the session for the next client.
func TestPgbouncerInTransactionMode(t *testing.T) {
	c := postgres.Run(t, postgres.Config{})
	pooled := postgres.RunPooler(t, c, "default_pool_size = 1").URL()
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

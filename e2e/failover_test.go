package e2e

import (
	"fmt"
	"testing"

	"observability-hub/e2e/postgres"
)

// A primary with a synchronous standby commits a record locally and loses its standby before the record is there. The client
// gets no answer. The primary crashes and restarts: now the record is visible, and still only on the primary's disk. A flush
// that finds nothing but such records must not forget them, because the primary may be lost next.
func TestRecordsOfASynchronousPrimaryStaySpooledUntilTheStandbyHasThem(t *testing.T) {
	primary := postgres.Run(t, postgres.Config{TCP: true})
	psql(t, primary, "SET ROLE hub;\n"+schema(t))
	link, err := postgres.NewLink(0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = link.Close() })
	standby := postgres.RunLinkedStandby(t, primary, link)
	psql(t, primary, "ALTER SYSTEM SET synchronous_standby_names = '*'")
	psql(t, primary, "SELECT pg_reload_conf()")
	if err := primary.AwaitStreaming(true); err != nil {
		t.Fatal(err)
	}
	host := newFixtureHost(t, "web1")
	m := sysmetrics(t, fmt.Sprintf("DATABASE_URL=postgres://hub:%s@127.0.0.1,127.0.0.1/hub?port=%d,%d&target_session_attrs=read-write", primary.Password, primary.Port, standby.Port))
	sample := func(status int) {
		t.Helper()
		host.tick(t)
		m.want(status, "", append([]string{"collect", "--flush", "--timeout", "1s"}, host.args()...)...)
	}

	sample(0)
	link.Cut()
	sample(exitUnavailable) // committed, but not acknowledged
	expectSpooled(t, m, 4)
	if err := primary.Kill9(); err != nil {
		t.Fatal(err)
	}
	if err := primary.Start(); err != nil {
		t.Fatal(err)
	}
	expectRows(t, primary, 8)
	m.want(exitUnavailable, "", "flush", "--timeout", "1s")
	expectSpooled(t, m, 4)

	if err := primary.Kill9(); err != nil {
		t.Fatal(err)
	}
	if err := standby.Promote(); err != nil {
		t.Fatal(err)
	}
	psql(t, standby, "ALTER SYSTEM SET synchronous_standby_names = ''")
	psql(t, standby, "SELECT pg_reload_conf()")
	sample(0)
	expectSpooled(t, m, 0)
	expectRows(t, standby, 12)
}

package main

import (
	"errors"
	"os"
	"testing"
	"time"

	"observability-hub/e2e/workspace"
)

func TestMain(m *testing.M) {
	os.Exit(workspace.Run(m))
}

// An asynchronous failover over a slow link loses the records that were on the link, and nothing else.
func TestAsynchronousFailover(t *testing.T) {
	t.Parallel()
	r := fail(t, scenario{delay: 500 * time.Millisecond, strike: killAfterCommit})
	if r.unreplicated == 0 {
		t.Error("nothing was lost, although the link was slow")
	}
}

// Rows that only the old primary has can be flushed into the new one, which recognizes the others.
func TestRowsOfTheOldPrimaryAreSalvaged(t *testing.T) {
	t.Parallel()
	fail(t, scenario{delay: 500 * time.Millisecond, strike: killAfterCommit, salvage: true, lossless: true})
}

// killAfterCommit kills the primary immediately after the next commit, which is then still on the link.
func killAfterCommit(s *site) error {
	count := func() (string, error) {
		rows, err := s.primary.Query("SELECT count(*) FROM system_metrics")
		if err != nil {
			return "", err
		}
		return rows[0][0], nil
	}
	before, err := count()
	for now := before; err == nil && now == before; {
		now, err = count()
	}
	return errors.Join(err, s.primary.Kill9())
}

// A synchronous failover loses nothing. Records whose commit arrived at the standby but was not acknowledged are not doubled.
func TestSynchronousFailover(t *testing.T) {
	t.Parallel()
	r := fail(t, scenario{sync: true, lossless: true, strike: mute})
	if r.replayed == 0 {
		t.Error("no replay found its records in the table, although commits were not acknowledged")
	}
}

func fail(t *testing.T, s scenario) result {
	t.Helper()
	r, err := s.run(4, 400*time.Millisecond, 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v", r)
	if err := r.check(s.lossless); err != nil {
		t.Error(err)
	}
	return r
}

// readsync verify names the documents whose rows an asynchronous failover lost, and its hint repairs them.
func TestFailoverOfReadsync(t *testing.T) {
	t.Parallel()
	s, err := runReadsync(400)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.check(); err != nil {
		t.Error(err)
	}
}

// The audit finds what it has to find.
func TestAudit(t *testing.T) {
	at := time.UnixMilli(1_000_000)
	sample := func(n int) run {
		began := at.Add(time.Duration(n) * time.Second)
		return run{began: began, ended: began.Add(100 * time.Millisecond)}
	}
	put := func(all rows, n, count int, types ...string) {
		for _, metricType := range types {
			all[key{"a", metricType, at.Add(time.Duration(n)*time.Second + 50*time.Millisecond).UnixMilli()}] = count
		}
	}
	all := []string{"cpu", "memory", "disk", "network"}
	final, old := rows{}, rows{}
	put(final, 0, 1, all...)
	put(final, 1, 2, all...)          // doubled
	put(old, 2, 1, all...)            // only on the old primary
	put(final, 3, 1, "cpu", "memory") // two are nowhere
	put(final, 9, 1, "cpu")           // from no run
	f := &fleet{hosts: []*host{{name: "a", runs: []run{sample(0), sample(1), sample(2), sample(3)}}}}
	r := audit(f, final, old)
	if r.taken != 16 || r.stored != 10 || r.doubled != 4 || r.unreplicated != 4 || r.lost != 2 || r.unexplained != 1 {
		t.Errorf("audit: %+v", r)
	}
	if r.check(false) == nil {
		t.Error("check accepts lost and doubled records")
	}
}

// Failover shows what a failover of PostgreSQL does to the records of sysmetrics and to the documents of readsync. It runs a
// primary and a streaming standby, and hosts that send samples to whichever of them accepts writes. It kills, freezes or
// isolates the primary in several ways, promotes the standby, makes the old primary the next standby, and counts at
// the end: every record must be in the table once, unless the replication mode itself can lose it.
//
// Run it as root from the project's directory: make bench-failover, or go run ./e2e/scale/failover. It takes about four minutes and
// changes nothing else on the host. It exits with status 1 if a record was lost or doubled that should not have been.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	"observability-hub/e2e/workspace"
)

func main() {
	hosts := flag.Int("hosts", 12, "number of simulated hosts")
	period := flag.Duration("period", time.Second, "time between two samples of a host")
	rounds := flag.Int("rounds", 2, "failovers of each kind")
	flag.Parse()
	if err := errors.Join(show(os.Stdout, *hosts, *period, *rounds), workspace.Clean()); err != nil {
		fmt.Fprintln(os.Stderr, "failover: error:", err)
		os.Exit(1)
	}
}

// show runs all scenarios and prints their results as a Markdown table.
func show(w io.Writer, hosts int, period time.Duration, rounds int) error {
	fmt.Fprintf(w, "%d hosts, a sample of 4 records every %v from each, %d failovers of each kind.\n\n", hosts, period, rounds)
	fmt.Fprintln(w, "| replication | what happens to the primary | records | in the table | lost by the replication mode | lost otherwise | doubled | found there by a replay | standby promoted to all delivered |")
	fmt.Fprintln(w, "|---|---|---:|---:|---:|---:|---:|---:|---:|")
	var wrong error
	for _, s := range scenarios() {
		r, err := s.run(hosts, period, rounds)
		if err != nil {
			return fmt.Errorf("%s, %s: %w", s.replication(), s.fault, err)
		}
		fmt.Fprintf(w, "| %s | %s | %d | %d | %d | %d | %d | %d | %.1f s |\n", s.replication(), s.fault, r.taken, r.stored, r.unreplicated, r.lost, r.doubled+r.unexplained, r.replayed, r.recovery.Seconds())
		if err := r.check(s.lossless); err != nil {
			wrong = errors.Join(wrong, fmt.Errorf("%s, %s: %w", s.replication(), s.fault, err))
		}
	}
	s, err := runReadsync(5000)
	if err != nil {
		return fmt.Errorf("readsync: %w", err)
	}
	fmt.Fprintf(w, "\nreadsync, asynchronous, the primary is killed after the sync and before the standby has the rows: %d documents marked processed, "+
		"%d rows after the failover, readsync verify exits with %d and names %d documents; after their status is ingested again and readsync run: %d rows, verify exits with %d.\n",
		s.processed, s.rowsAfter, s.verifyStatus, s.named, s.rowsRepaired, s.verifyAgain)
	return errors.Join(wrong, s.check())
}

// scenario is one kind of failover.
type scenario struct {
	sync     bool
	delay    time.Duration // of the link from the primary to its standby
	fault    string
	lossless bool // the replication mode can lose nothing here
	// strike ends with a primary that is dead or frozen.
	strike func(*site) error
	// after, if not nil, is called when the standby is promoted, before the old primary is fenced.
	after func(*site) error
	// salvage flushes the rows of the old primary into the new one.
	salvage bool
}

func (s scenario) replication() string {
	mode := "asynchronous"
	if s.sync {
		mode = "synchronous"
	}
	if s.delay > 0 {
		mode += fmt.Sprintf(", link of %v", s.delay)
	}
	return mode
}

func kill(s *site) error   { return s.primary.Kill9() }
func freeze(s *site) error { return s.primary.Freeze() }

// mute lets the standby have commits that it cannot confirm to the primary, and then kills the primary.
func mute(s *site) error {
	s.link.Mute()
	time.Sleep(time.Second)
	if err := s.standby.AwaitReplay(s.primary); err != nil {
		return err
	}
	return s.primary.Kill9()
}

// isolate cuts the link, and kills the primary later.
func isolate(s *site) error {
	s.link.Cut()
	time.Sleep(2 * time.Second)
	return s.primary.Kill9()
}

// crash makes the primary restart without its standby, before it dies.
func crash(s *site) error {
	s.link.Cut()
	time.Sleep(1500 * time.Millisecond)
	if err := s.primary.Kill9(); err != nil {
		return err
	}
	if err := s.primary.Start(); err != nil {
		return err
	}
	time.Sleep(1500 * time.Millisecond)
	return s.primary.Kill9()
}

// thaw lets the old primary run beside the new one for a while, as without fencing.
func thaw(s *site) error {
	if err := s.primary.Thaw(); err != nil {
		return err
	}
	time.Sleep(3 * time.Second)
	return nil
}

// hang lets the old primary hang after the promotion too, until the administrator has fenced it. The hosts that try it first wait
// for connect_timeout, and have the rest of their own timeout for the new one.
func hang(*site) error {
	time.Sleep(8 * time.Second)
	return nil
}

func scenarios() []scenario {
	const near, far = 0, 500 * time.Millisecond
	return []scenario{
		{fault: "killed", delay: near, strike: kill},
		{fault: "killed", delay: far, strike: kill},
		{fault: "killed, its rows are flushed into the new one", delay: far, strike: kill, salvage: true, lossless: true},
		{fault: "hangs, is killed 8 s after the promotion", delay: near, strike: freeze, after: hang},
		{fault: "hangs, works again beside the new one (no fencing)", delay: near, strike: freeze, after: thaw},
		{sync: true, lossless: true, fault: "killed", delay: near, strike: kill},
		{sync: true, lossless: true, fault: "killed", delay: far, strike: kill},
		{sync: true, lossless: true, fault: "killed, the last commits replicated but not acknowledged", delay: near, strike: mute},
		{sync: true, lossless: true, fault: "loses its standby, then is killed", delay: near, strike: isolate},
		{sync: true, lossless: true, fault: "loses its standby, crashes, restarts, is killed", delay: near, strike: crash},
		{sync: true, lossless: true, fault: "hangs, works again beside the new one (no fencing)", delay: near, strike: freeze, after: thaw},
	}
}

// The pauses of a round.
const (
	calm      = 1500 * time.Millisecond // samples arrive
	detection = 1500 * time.Millisecond // the primary does not answer, and the standby is not promoted yet
)

// run makes rounds failovers while hosts send samples, and counts.
func (s scenario) run(hosts int, period time.Duration, rounds int) (result, error) {
	site, err := newSite(s.sync, s.delay)
	if err != nil {
		return result{}, err
	}
	defer site.close()
	fleet, err := startFleet(site, hosts, period)
	if err != nil {
		return result{}, err
	}
	defer fleet.stop()
	old := rows{}
	var longest time.Duration
	for range rounds {
		took, err := s.round(site, fleet, old)
		if err != nil {
			return result{}, err
		}
		longest = max(longest, took)
	}
	fleet.stop()
	if err := fleet.drain(); err != nil {
		return result{}, err
	}
	final, err := readRows(site.primary)
	if err != nil {
		return result{}, err
	}
	r := audit(fleet, final, old)
	r.recovery = longest
	return r, nil
}

// round is one failover. It adds the rows of the old primary to old, and returns how long after the promotion the last host had
// delivered everything.
func (s scenario) round(site *site, fleet *fleet, old rows) (time.Duration, error) {
	time.Sleep(calm)
	if err := s.strike(site); err != nil {
		return 0, err
	}
	site.link.Cut()
	time.Sleep(detection)
	if err := site.standby.Promote(); err != nil {
		return 0, err
	}
	promoted := time.Now()
	if s.after != nil {
		if err := s.after(site); err != nil {
			return 0, err
		}
	}
	if err := site.fence(old); err != nil {
		return 0, err
	}
	if err := site.rebuild(); err != nil {
		return 0, err
	}
	if s.salvage {
		if err := site.salvage(); err != nil {
			return 0, err
		}
	}
	delivered, err := fleet.awaitDelivery(promoted)
	return delivered.Sub(promoted), err
}

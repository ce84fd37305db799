// Rollout shows what happens when a bad commit is pushed to a fleet of hosts that follow one repository with gitsync, and what
// pulls cost the Git server. It prints the tables of docs/scale.md, "gitsync for a fleet".
//
// What is real: the Git server and its processes; each pull, apply and verdict is the gitsync binary with the state directory of
// its host. The bad commit brings a program that exits with 1. apply deploys it, starts it, sees that it failed, restores the host,
// quarantines the commit and exits with 10.
//
// What is simulated: the clock, systemd and the machines. Hosts do not wait for their timers: a queue of events runs the pulls in
// the order of their times, one after the other, and before each pull the times in pulled.json are moved back by the time that
// has passed in the simulation. A host is a few directories, which a mount namespace puts in the place of /etc/systemd/system and
// /usr/local/bin. Its systemctl is a script that runs the program of the one unit. An apply takes 20 s of the simulated time: the
// health window of 10 s, and 10 s for the rest.
//
// Run it as root from the project's directory: make bench-rollout, or go run ./e2e/scale/rollout [-hosts 200].
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
	hosts := flag.Int("hosts", 200, "number of hosts")
	flag.Parse()
	if err := errors.Join(run(os.Stdout, *hosts), workspace.Clean()); err != nil {
		fmt.Fprintln(os.Stderr, "rollout: error:", err)
		os.Exit(1)
	}
}

// interval is that of gitops-sync.timer.
const interval = 15 * time.Minute

// scenarios are the roll-outs that are compared.
var scenarios = []scenario{
	{name: "at once (the default)", jitter: 2 * time.Minute},
	{name: "at once, verdicts", jitter: 2 * time.Minute, stopAfter: 1},
	{name: "at once, verdicts, timer spread over 15 min", jitter: interval, stopAfter: 1},
	{name: "stagger 30 min, no verdicts", jitter: 2 * time.Minute, stagger: 30 * time.Minute},
	{name: "stagger 30 min, verdicts", jitter: 2 * time.Minute, stagger: 30 * time.Minute, stopAfter: 1},
	{name: "stagger 30 min, verdicts, timer spread over 15 min", jitter: interval, stagger: 30 * time.Minute, stopAfter: 1},
	{name: "the same, 2 canaries", jitter: interval, stagger: 30 * time.Minute, stopAfter: 1, canaries: 2},
	{name: "the same, stop after 2", jitter: interval, stagger: 30 * time.Minute, stopAfter: 2, canaries: 2},
}

func run(out io.Writer, hosts int) error {
	dir, err := os.MkdirTemp("", "rollout-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	f, err := newFleet(dir, hosts)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "A bad commit is pushed to a repository that %d hosts follow, every %v.\n\n", hosts, interval)
	fmt.Fprintln(out, "| roll-out | took the bad commit | stopped before it | first took it after | last took it after |\n|---|---|---|---|---|")
	for _, s := range scenarios {
		r, err := f.rollOut(s)
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		fmt.Fprintf(out, "| %s | %d (%.1f%%) | %d | %s | %s |\n", s.name, r.took, 100*float64(r.took)/float64(hosts), r.stopped, minutes(r.first), minutes(r.last))
	}
	return f.costs(out, 30)
}

func minutes(d time.Duration) string { return fmt.Sprintf("%.1f min", d.Minutes()) }

package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"observability-hub/e2e/nspawn"
	"observability-hub/e2e/torture"
)

// houseTimes are how long runs of the jobs take that have work, on an idle machine: most of it, for the cuts to hit.
var houseTimes = map[string]time.Duration{
	"gitops-sync.service":    250 * time.Millisecond,
	"gitops-apply.service":   1600 * time.Millisecond,
	"reading-sync.service":   1200 * time.Millisecond,
	"system-metrics.service": 100 * time.Millisecond,
	"volume-backup.service":  3500 * time.Millisecond,
}

// TestHouseKill cuts the power of a host with all four unit families at random moments: each during a run of one of the jobs, and
// some again during the boot after that. PostgreSQL is down before every third cut. After each boot the jobs finish their work, by
// their timers alone, and nothing is lost or doubled.
//
// The kernel goes on, so what a process has written to a file is there after the cut. The tests of lost writes are others.
func TestHouseKill(t *testing.T) {
	t.Parallel()
	if !torture.Full {
		houseKill(t, nspawn.Bookworm, 3)
		return
	}
	for _, suite := range []string{nspawn.Bookworm, nspawn.Trixie} {
		t.Run(suite, func(t *testing.T) { houseKill(t, suite, 20) })
	}
}

func houseKill(t *testing.T, suite string, cuts int) {
	random := torture.Random(t, 14)
	h := newHouse(t, suite, "*:*:0/5")
	h.check()

	var done, hit, aimed, rebooting, down int
	hits := map[string]int{}
	var longest time.Duration
	cut := func() (busy bool) {
		done++
		for _, unit := range houseServices {
			if h.machine.Busy(unit) {
				hits[unit]++
				busy = true
			}
		}
		if busy {
			hit++
		}
		h.machine.CutPower()
		return busy
	}
	targets := random.Perm(len(houseServices))
	for n := 0; done < cuts; n++ {
		h.work()
		h.mark()
		if n%3 == 2 {
			down++
			if err := h.pg.Stop(); err != nil {
				t.Fatal(err)
			}
		}
		h.start()
		target := houseServices[targets[n%len(targets)]]
		h.untilEvery(time.Millisecond, target+" runs", func() string {
			if h.machine.Busy(target) {
				return ""
			}
			return "it does not run"
		})
		time.Sleep(time.Duration(random.Int64N(int64(houseTimes[target]))))
		if err := h.pg.Start(); err != nil {
			t.Fatal(err)
		}
		if cut() {
			aimed++
		}
		if done < cuts && random.IntN(4) == 0 {
			rebooting++
			time.Sleep(time.Duration(random.Int64N(int64(5 * time.Second))))
			cut()
		}
		began := time.Now()
		h.check()
		longest = max(longest, time.Since(began))
		if t.Failed() {
			t.Fatalf("after %d cuts; the last one was during a run of %s", done, target)
		}
	}
	result := h.machine.Stop()

	if aimed*2 < done-rebooting {
		t.Errorf("%d of %d cuts hit a run before its end; want half of them at least", aimed, done-rebooting)
	}
	// Each run that has printed its last record has taken a sample, which is in the table.
	var samples int
	if _, err := fmt.Sscanf(h.query("SELECT count(DISTINCT time) FROM system_metrics"), "[[%d]]", &samples); err != nil {
		t.Fatal(err)
	}
	flushed := 0
	for _, entry := range of(result.Journal, "system-metrics.service") {
		if strings.Contains(entry["MESSAGE"], `"msg":"flushed"`) {
			flushed++
		}
	}
	if flushed == 0 || samples < flushed {
		t.Errorf("%d samples are in the table; %d runs have reported theirs", samples, flushed)
	}
	var units []string
	for _, unit := range houseServices {
		units = append(units, fmt.Sprintf("%s %d", strings.TrimSuffix(unit, ".service"), hits[unit]))
	}
	t.Logf("%d power cuts, %d of them during runs (%s), %d during the boot after a cut; PostgreSQL was down before %d; after each boot all was done within %v",
		done, hit, strings.Join(units, ", "), rebooting, down, longest.Round(100*time.Millisecond))
	t.Logf("%d commits, %d documents in as many rows, %d samples in the table, %d reported", h.round, h.documents, samples, flushed)
	t.Logf("what the jobs did:\n%s", h.table(result.Journal))
	for _, entry := range result.Journal {
		if !slices.Contains(houseServices, entry["_SYSTEMD_UNIT"]) || !strings.HasPrefix(entry["MESSAGE"], "{") || entry["PRIORITY"] > "4" {
			continue
		}
		if entry["_SYSTEMD_UNIT"] == "volume-backup.service" && entry["PRIORITY"] == "3" { // Docker was never down
			t.Errorf("%.500s", entry["MESSAGE"])
		} else {
			t.Logf("%.500s", entry["MESSAGE"])
		}
	}
}

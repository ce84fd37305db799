package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"observability-hub/e2e/torture"
)

// TestHouseKill cuts the power of a host with all four unit families at random moments during its jobs, and sometimes again
// during the boot after that. PostgreSQL is down before every third cut. After each boot the jobs finish their work, by their
// timers alone, and nothing is lost or doubled.
func TestHouseKill(t *testing.T) {
	t.Parallel()
	rounds := 3
	if torture.Full {
		rounds = 20
	}
	random := torture.Random(t, 14)
	h := newHouse(t, "*:*:0/5")
	// system-metrics runs as often as the others, so that cuts hit it too.
	h.run("bash", "-c", `mkdir -p /etc/systemd/system/system-metrics.timer.d && printf "$0" >/etc/systemd/system/system-metrics.timer.d/often.conf && systemctl daemon-reload`,
		"[Timer]\nOnCalendar=*:*:0/2\nAccuracySec=100ms\n")
	h.check()
	h.start()

	kills := torture.NewKills(random, 10*time.Second)
	hits := map[string]int{}
	cut := func() {
		hit := false
		for _, unit := range houseServices {
			if h.machine.Busy(unit) {
				hit = true
				hits[unit]++
			}
		}
		kills.Add(hit)
		h.machine.CutPower()
	}
	var down, again int
	var longest time.Duration
	for kills.More(rounds) {
		h.work()
		h.mark()
		if kills.Tried()%3 == 2 {
			down++
			if err := h.pg.Stop(); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(kills.After())
		if err := h.pg.Start(); err != nil {
			t.Fatal(err)
		}
		cut()
		if random.IntN(4) == 0 {
			again++
			time.Sleep(kills.After() / 2)
			cut()
		}
		began := time.Now()
		h.check()
		longest = max(longest, time.Since(began))
		h.start()
		if t.Failed() {
			t.Fatalf("after %d cuts", kills.Tried())
		}
	}
	result := h.machine.Stop()
	kills.Check(t)
	var units []string
	for _, unit := range houseServices {
		units = append(units, fmt.Sprintf("%s %d", strings.TrimSuffix(unit, ".service"), hits[unit]))
	}
	t.Logf("%d power cuts, %d of them during jobs (%s), %d during the boot after a cut; PostgreSQL was down before %d; converged %v after the boot at the latest",
		kills.Tried(), kills.Hit(), strings.Join(units, ", "), again, down, longest.Round(100*time.Millisecond))
	t.Logf("%d documents, rows: %s, samples: %s", h.documents, h.query("SELECT count(*) FROM reading_analytics"), h.query("SELECT count(*) / 4 FROM system_metrics"))
	t.Logf("what the jobs did:\n%s", h.table(result.Journal))
}

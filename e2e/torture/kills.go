package torture

import (
	"math/rand/v2"
	"testing"
	"time"
)

// Kills draws the moments at which the runs of a test are killed, and counts
// the kills that hit: those before the run's end. Other load changes how long a
// run takes, so the moments follow it: five of six kills hit in the long run.
type Kills struct {
	random     *rand.Rand
	span       time.Duration // a moment is before it
	hit, tried int
}

// NewKills returns kills of runs that take about as long as typical.
func NewKills(random *rand.Rand, typical time.Duration) *Kills {
	return &Kills{random: random, span: max(typical, time.Millisecond)}
}

// After returns when to kill the next run, counted from its start.
func (k *Kills) After() time.Duration { return time.Duration(k.random.Int64N(int64(k.span))) }

// Add counts a kill that hit, or one that came too late.
func (k *Kills) Add(hit bool) {
	k.tried++
	if hit {
		k.hit++
		k.span += k.span / 20
	} else {
		k.span -= k.span / 4
	}
	k.span = max(k.span, time.Millisecond)
}

// More says whether the test needs another run: it has as many as rounds says,
// and up to as many again while too few kills have hit.
func (k *Kills) More(rounds int) bool {
	return k.tried < rounds || !k.enough() && k.tried < 2*rounds
}

// Hit and Tried return how many kills hit, of how many.
func (k *Kills) Hit() int   { return k.hit }
func (k *Kills) Tried() int { return k.tried }

// enough is a quarter, and one at least.
func (k *Kills) enough() bool { return k.hit > 0 && k.hit*4 >= k.tried }

// Check fails the test if too few kills hit for it to show anything.
func (k *Kills) Check(tb testing.TB) {
	tb.Helper()
	if !k.enough() {
		tb.Errorf("%d of %d kills hit a run before its end; want a quarter of them at least", k.hit, k.tried)
	}
}

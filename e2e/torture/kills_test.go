package torture

import (
	"math/rand/v2"
	"testing"
	"time"
)

// TestKillsFollowTheLoad takes runs whose time is not what was measured before.
func TestKillsFollowTheLoad(t *testing.T) {
	for _, tc := range []struct {
		name           string
		measured, took time.Duration
		rounds         int
	}{
		{"as measured", time.Second, time.Second, 9},
		{"measured beside other load", 20 * time.Second, time.Second, 40},
		{"slower than measured", time.Second, 20 * time.Second, 9},
		{"shorter than the clock's tick", 0, time.Millisecond, 9},
	} {
		for seed := range uint64(1000) {
			k := NewKills(rand.New(rand.NewPCG(seed, 0)), tc.measured)
			for k.More(tc.rounds) {
				k.Add(k.After() < tc.took)
			}
			if k.Check(t); t.Failed() {
				t.Fatalf("%s, seed %d", tc.name, seed)
			}
		}
	}
}

// TestKillsThatMiss is a test whose runs all end before their kill.
func TestKillsThatMiss(t *testing.T) {
	k := NewKills(rand.New(rand.NewPCG(1, 0)), time.Second)
	for k.More(10) {
		k.Add(false)
	}
	if k.Tried() != 20 || k.Hit() != 0 {
		t.Errorf("%d of %d hit; want 0 of 20", k.Hit(), k.Tried())
	}
	judged := &recorder{TB: t}
	if k.Check(judged); !judged.failed {
		t.Error("Check accepts a test without a kill")
	}
}

// recorder notes that a test would have failed.
type recorder struct {
	testing.TB
	failed bool
}

func (r *recorder) Errorf(string, ...any) { r.failed = true }

// Package torture provides what tests of random faults share: the number of faults, and random numbers.
package torture

import (
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"
)

// Full reports whether the tests use the full number of faults, which takes minutes, instead of a sample: HUB_TORTURE=1.
var Full = os.Getenv("HUB_TORTURE") != ""

// Random returns random numbers for a test and prints their seed. HUB_SEED repeats a run. Tests that must not hit the same
// moments have different streams.
func Random(tb testing.TB, stream uint64) *rand.Rand {
	tb.Helper()
	seed := uint64(time.Now().UnixNano())
	if given := os.Getenv("HUB_SEED"); given != "" {
		var err error
		if seed, err = strconv.ParseUint(given, 10, 64); err != nil {
			tb.Fatalf("HUB_SEED: %v", err)
		}
	}
	tb.Logf("HUB_SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, stream))
}

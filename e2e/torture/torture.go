// Package torture is what tests of random faults have in common: how many, and which.
package torture

import (
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"
)

// Full asks for the full number of faults, which takes minutes, instead of a sample: HUB_TORTURE=1.
var Full = os.Getenv("HUB_TORTURE") != ""

// Random gives a test its random numbers and prints their seed; HUB_SEED repeats a run. Tests that must not hit the same
// moments have streams of their own.
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

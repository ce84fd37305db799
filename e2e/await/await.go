// Package await waits for conditions that are not signalled, such as a file that another process creates.
package await

import (
	"testing"
	"time"
)

// limit is longer than any wait in the tests takes on a machine that is busy with other tests.
const limit = 30 * time.Second

// Until asks every few milliseconds whether a condition is met, and fails the test if it is not after 30 s.
func Until(tb testing.TB, what string, met func() bool) {
	tb.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(limit)
	for !met() {
		select {
		case <-tick.C:
		case <-deadline:
			tb.Fatalf("waited %s for %s", limit, what)
		}
	}
}

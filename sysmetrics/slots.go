package main

import (
	"fmt"
	"hash/fnv"
	"time"
)

// slots divide time into periods of equal length, the slots. Their beginnings
// differ from host to host, so that the hosts of a fleet do not all send at the
// same time.
type slots struct {
	length time.Duration
	phase  time.Duration // from 0 to length
}

// newSlots returns the slots of a host. Machines that were copied from one image
// may have the same machine id, so the phase depends on the name too.
func newSlots(length time.Duration, machineID, host string) slots {
	h := fnv.New64a()
	fmt.Fprintf(h, "%s\x00%s", machineID, host)
	// The high bits of FNV hardly depend on the last bytes of a short text.
	x := h.Sum64()
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd // of MurmurHash3
	x ^= x >> 33
	return slots{length, time.Duration(x % uint64(length))}
}

// begin returns the beginning of the slot that holds t, by the wall clock.
func (s slots) begin(t time.Time) time.Time {
	into := (t.UnixNano() - int64(s.phase)) % int64(s.length)
	if into < 0 {
		into += int64(s.length)
	}
	return t.Round(0).Add(-time.Duration(into))
}

// next returns the beginning of the slot after the one that holds t.
func (s slots) next(t time.Time) time.Time { return s.begin(t).Add(s.length) }

// same reports whether two times are in the same slot.
func (s slots) same(a, b time.Time) bool { return s.begin(a).Equal(s.begin(b)) }

package main

import "strings"

// counters are the kernel's monotonic counters at one moment, by name, for
// example "net eth0 rx_bytes". Names have no line breaks.
type counters map[string]uint64

// window is the time between two snapshots, and what became of the counters
// in it. Everything in it is a pure function of the two snapshots.
type window struct {
	prev, cur counters
	first     bool    // there is no usable previous snapshot: the window begins at boot, when all counters were 0
	seconds   float64 // CLOCK_MONOTONIC, which stands still in suspend, as the counters do
	suspended float64 // seconds of suspend inside the window
}

// newWindow compares two snapshots. A previous one of another boot, or whose
// monotonic clock is ahead of ours (a restored virtual machine), is no base.
func newWindow(prev, cur *snapshot) *window {
	w := &window{cur: cur.counters}
	base := clock{}
	if prev == nil || prev.bootID != cur.bootID || prev.clock.monotonic > cur.clock.monotonic {
		w.first = true
	} else {
		w.prev, base = prev.counters, prev.clock
	}
	active := cur.clock.monotonic - base.monotonic
	w.seconds = active.Seconds()
	if asleep := cur.clock.boottime - base.boottime - active; asleep > 0 {
		w.suspended = asleep.Seconds()
	}
	return w
}

// outcome says what a counter did in the window.
type outcome int

const (
	counted   outcome = iota // it grew, or jittered back by next to nothing, which counts as 0
	unknown                  // it is missing now, or it is new: there is nothing to compare
	wentBack                 // it was reset; how much it counted since cannot be known
	jumpAhead                // it grew by more than is possible
)

// delta is the growth of one counter. A step back of at most slack is the
// jitter of per-CPU sums and clamps to 0; a larger one is a reset. Only a
// counter that is known to wrap, and that has just passed the end of its range,
// is read as wrapped: a reset taken for a wrap is a spike of exabytes.
func delta(prev, cur, slack, size uint64) (uint64, outcome) {
	switch {
	case cur >= prev:
		return cur - prev, counted
	case prev-cur <= slack:
		return 0, counted
	case size > 0 && prev < size && prev >= size/4*3 && cur < size/4:
		return size - prev + cur, counted
	}
	return 0, wentBack
}

// wrapsAt returns the size of the range of a counter that may have 32 bits, 0
// for others. In /proc/diskstats the times always have (block/genhd.c prints
// them with %u), and on 32-bit kernels all columns; the counters of network
// drivers there may, too. A device that was reset shows by its other counters:
// these do not all pass the end of 32 bits at once.
func wrapsAt(name string) uint64 {
	switch {
	case strings.HasPrefix(name, "disk ") && strings.HasSuffix(name, "_bytes"):
		return 1 << 32 * sectorSize
	case strings.HasPrefix(name, "disk "), strings.HasPrefix(name, "net "):
		return 1 << 32
	}
	return 0
}

// delta returns the growth of the counter called name in the window.
func (w *window) delta(name string) (uint64, outcome) {
	cur, ok := w.cur[name]
	if !ok {
		return 0, unknown
	}
	prev, ok := w.prev[name]
	if !ok && !w.first {
		return 0, unknown // hot-plugged: its whole past would count as this window's
	}
	if strings.HasPrefix(name, "disk ") && strings.HasSuffix(name, "_ms") && w.seconds*1000 >= 1<<32 {
		return 0, unknown // it may have wrapped any number of times
	}
	return delta(prev, cur, prev/1000, wrapsAt(name))
}

// perSecond returns the counter's rate over the window; ok is false where
// there is none to tell.
func (w *window) perSecond(name string) (rate float64, o outcome) {
	d, o := w.delta(name)
	if o == counted && w.seconds <= 0 {
		return 0, unknown
	}
	return float64(d) / w.seconds, o
}

// percentOf returns 100*part/whole within 0 and 100; ok is false if there is no whole.
func percentOf(part, whole float64) (percent float64, ok bool) {
	if !(whole > 0) {
		return 0, false
	}
	return min(max(100*part/whole, 0), 100), true
}

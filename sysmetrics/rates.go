package main

import "strings"

// counters are the kernel's monotonic counters at one moment, by name, for
// example "net eth0 rx_bytes". Names have no line breaks.
type counters map[string]uint64

// window is the time between two snapshots, with the counters at its start and
// at its end. It depends on the two snapshots alone.
type window struct {
	prev, cur counters
	first     bool    // there is no usable previous snapshot; the window begins at boot, when all counters were 0
	seconds   float64 // by CLOCK_MONOTONIC, which stops during suspend, as the counters do
	suspended float64 // seconds of suspend in the window
}

// newWindow returns the window between two snapshots. It does not use prev if
// prev is from another boot, or if its monotonic clock is ahead of cur's, as
// after a virtual machine was restored from a snapshot.
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

// outcome tells how a counter changed in the window.
type outcome int

const (
	counted   outcome = iota // it grew, or stepped back by so little that this counts as 0
	unknown                  // it is missing now or is new, so there is nothing to compare
	wentBack                 // it was reset, so its growth is not known
	jumpAhead                // it grew by more than is possible in the window
)

// delta returns the growth of one counter. Sums over CPUs jitter, so a step back
// of at most slack counts as 0. A larger step back is a reset, unless the
// counter has a range of size (0 if it does not wrap) and has just passed its
// end. The test for a wrap is strict because a reset that is taken for a wrap
// shows as a spike of exabytes.
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

// wrapsAt returns the size of a counter's range if the counter may have 32 bits,
// else 0. The times in /proc/diskstats always have 32 bits, because
// block/genhd.c prints them with %u. On 32-bit kernels all columns of that file
// have 32 bits, and the counters of network drivers may. A device that was
// reset is not taken for one that wrapped: its counters do not all pass the end
// of 32 bits in one window, and one reset counter voids the others.
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
		return 0, unknown // new device: its growth before this window would count too
	}
	if strings.HasPrefix(name, "disk ") && strings.HasSuffix(name, "_ms") && w.seconds*1000 >= 1<<32 {
		return 0, unknown // it may have wrapped more than once
	}
	return delta(prev, cur, prev/1000, wrapsAt(name))
}

// perSecond returns the counter's rate over the window. The rate is valid only
// if o is counted.
func (w *window) perSecond(name string) (rate float64, o outcome) {
	d, o := w.delta(name)
	if o == counted && w.seconds <= 0 {
		return 0, unknown
	}
	return float64(d) / w.seconds, o
}

// percentOf returns 100*part/whole, limited to 0 to 100. ok is false unless whole
// is greater than 0.
func percentOf(part, whole float64) (percent float64, ok bool) {
	if !(whole > 0) {
		return 0, false
	}
	return min(max(100*part/whole, 0), 100), true
}

package main

import (
	"github.com/prometheus/procfs"
)

// pressure is one file of /proc/pressure (Documentation/accounting/psi.rst).
// A line that the kernel does not have is nil: cpu has no full line before
// Linux 5.13, and no kernel before 4.20 has any.
type pressure struct {
	resource   string
	some, full *procfs.PSILine
}

// readPressure reads the file of a resource, whose field in the payload is key.
func (h *host) readPressure(resource, key string, c counters, n *notes) pressure {
	psi, err := h.proc.PSIStatsForResource(resource)
	if err != nil {
		n.miss(key, err)
		return pressure{}
	}
	p := pressure{resource, psi.Some, psi.Full}
	for name, line := range p.lines() {
		c[p.counter(name)] = line.Total
	}
	return p
}

func (p pressure) counter(line string) string { return "pressure " + p.resource + " " + line }

// lines iterates over the lines that are there.
func (p pressure) lines() func(func(string, *procfs.PSILine) bool) {
	return func(yield func(string, *procfs.PSILine) bool) {
		if p.some != nil && !yield("some", p.some) {
			return
		}
		if p.full != nil {
			yield("full", p.full)
		}
	}
}

// write adds the field key: per line the kernel's averages in percent and,
// exact for our own window, the percentage of it that tasks were stalled.
func (p pressure) write(out payload, key string) {
	if p.some == nil && p.full == nil {
		out.Null(key)
		return
	}
	out.Object(key, func() {
		for name, line := range p.lines() {
			out.Object(name, func() {
				out.Float("avg10", line.Avg10)
				out.Float("avg60", line.Avg60)
				out.Float("avg300", line.Avg300)
				out.share("percent", p.counter(name), 1e6) // totals are microseconds
			})
		}
	})
}

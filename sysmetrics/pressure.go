package main

import (
	"bytes"
	"errors"
	"slices"
	"strconv"
)

// pressure is one file of /proc/pressure (Documentation/accounting/psi.rst).
// Before Linux 5.13 cpu has no full line. Before Linux 4.20 there are no such
// files.
type pressure struct {
	resource string
	lines    []pressureLine
}

// pressureLine holds the averages of one line, by field. The total is a counter
// and is kept with the other counters.
type pressureLine struct {
	name string // some or full
	avg  map[string]float64
}

// readPressure reads the pressure file of a resource. key is the payload's field
// for it, under which a failure is noted.
func (h *host) readPressure(resource, key string, c counters, n *notes) pressure {
	p := pressure{resource: resource}
	data, err := h.read("pressure", resource)
	if err != nil {
		n.miss(key, err)
		return p
	}
	p.parse(data, c, n.odd("pressure/"+resource))
	return p
}

// parse reads lines such as
//
//	some avg10=0.00 avg60=0.00 avg300=0.00 total=0
func (p *pressure) parse(data []byte, c counters, odd func([]byte, error)) {
	for line := range bytes.Lines(data) {
		line = bytes.TrimRight(line, "\n")
		f := fields(line)
		name, _ := f.next()
		if !slices.Contains([]string{"some", "full"}, string(name)) {
			continue
		}
		l := pressureLine{string(name), make(map[string]float64, 3)}
		for field, err := f.next(); err == nil; field, err = f.next() {
			key, value, _ := bytes.Cut(field, []byte("="))
			if string(key) == "total" {
				v, err := parseUint(value)
				if err != nil {
					odd(line, err)
					continue
				}
				c[p.counter(l.name)] = v
				continue
			}
			v, err := strconv.ParseFloat(string(value), 64)
			if err != nil || !(v >= 0 && v < 1e6) {
				odd(line, errors.New(string(field)+" is not a percentage"))
				continue
			}
			l.avg[string(key)] = v
		}
		p.lines = append(p.lines, l)
	}
}

func (p pressure) counter(line string) string { return "pressure " + p.resource + " " + line }

// write adds the field key. For each line it has the kernel's averages in percent,
// and the percentage of our own window in which tasks were stalled.
func (p pressure) write(out payload, key string) {
	if len(p.lines) == 0 {
		out.Null(key)
		return
	}
	out.Object(key, func() {
		for _, line := range p.lines {
			out.Object(line.name, func() {
				for _, avg := range []string{"avg10", "avg60", "avg300"} {
					v, ok := line.avg[avg]
					optional(out, avg, v, ok)
				}
				out.share("percent", p.counter(line.name), 1e6) // the totals are in microseconds
			})
		}
	})
}

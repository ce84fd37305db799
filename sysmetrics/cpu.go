package main

import (
	"bytes"
	"fmt"
	"io"
	"strings"
)

// userHZ is the unit of the CPU times in /proc/stat: USER_HZ is 100 on every
// architecture that Go runs on.
const userHZ = 100

// cpuModes are the columns of a cpu line in proc_stat(5). The last two are
// contained in user and nice, so they are shown but never added.
var cpuModes = []string{"user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal", "guest", "guest_nice"}

// cpuTimes are the ticks of one cpu line, in the order of cpuModes.
type cpuTimes [10]uint64

// cpuState is what /proc/stat says beyond counters.
type cpuState struct {
	cpus              []string // names of the per-CPU lines that were there
	running, blocked  uint64   // procs_running, procs_blocked
	hasRun, hasBlock  bool
	load1, load5, l15 float64
	hasLoad           bool
	temperature       temperature
	pressure          pressure
}

// parseStat reads proc_stat(5) into c and returns the rest. Lines that it does
// not know, and columns that an old kernel does not have, are passed over.
func parseStat(data []byte, c counters) (*cpuState, error) {
	s := &cpuState{}
	for len(data) > 0 {
		var line []byte
		line, data, _ = bytes.Cut(data, []byte("\n"))
		f := fields(line)
		name, err := f.next()
		if err != nil {
			continue
		}
		switch {
		case bytes.HasPrefix(name, []byte("cpu")):
			cpu := string(name)
			for i, mode := range cpuModes {
				v, err := f.uint()
				if i >= 4 && err == io.ErrUnexpectedEOF {
					break // the columns after idle came one by one, up to Linux 2.6.33
				}
				if err != nil {
					return nil, fmt.Errorf("stat: line %q: %w", line, err)
				}
				c[cpu+" "+mode] = v
			}
			if cpu != "cpu" {
				s.cpus = append(s.cpus, cpu)
			}
		case string(name) == "ctxt":
			c["context_switches"], err = f.uint()
		case string(name) == "processes":
			c["forks"], err = f.uint()
		case string(name) == "procs_running":
			s.running, err = f.uint()
			s.hasRun = true
		case string(name) == "procs_blocked":
			s.blocked, err = f.uint()
			s.hasBlock = true
		}
		if err != nil {
			return nil, fmt.Errorf("stat: line %q: %w", line, err)
		}
	}
	if _, ok := c["cpu idle"]; !ok {
		return nil, fmt.Errorf("stat: no cpu line")
	}
	return s, nil
}

// readCPU fills the counters and the state of the CPUs.
func (h *host) readCPU(c counters, n *notes) *cpuState {
	s := &cpuState{}
	if data, err := h.read("stat"); err != nil {
		n.miss("stat", err)
	} else if parsed, err := parseStat(data, c); err != nil {
		n.fail("stat", err.Error())
	} else {
		s = parsed
	}
	if load, err := h.proc.LoadAvg(); err != nil {
		n.miss("load", err)
	} else {
		s.load1, s.load5, s.l15, s.hasLoad = load.Load1, load.Load5, load.Load15, true
	}
	s.temperature = h.readTemperature(n)
	s.pressure = h.readPressure("cpu", "pressure", c, n)
	return s
}

// cpuShares are one CPU's modes as percentages of its time in the window.
type cpuShares struct {
	usage float64
	modes [10]float64
}

// cpuSlack is how far a mode may step back and count as standing still: idle
// and iowait jitter on tickless kernels by some ticks, and no reset is that small.
const cpuSlack = 3 * userHZ

// cpuUsage returns the shares of one cpu line. Busy is all time that is
// neither idle nor iowait; guest time is inside user already. cpus is how many
// CPUs the line sums up: a mode that claims much more time than has passed on
// them (steal does, after a live migration) makes the window worthless.
func (w *window) cpuUsage(cpu string, cpus int) (s cpuShares, o outcome) {
	var d cpuTimes
	for i, mode := range cpuModes {
		name := cpu + " " + mode
		cur, ok := w.cur[name]
		if !ok {
			if i < 4 {
				return s, unknown
			}
			continue
		}
		prev, ok := w.prev[name]
		if !ok && !w.first {
			return s, unknown
		}
		if d[i], o = delta(prev, cur, cpuSlack); o != counted {
			return s, o
		}
		if limit := w.seconds * userHZ * float64(cpus); limit > 0 && !w.first && float64(d[i]) > 1.5*limit+cpuSlack {
			return s, jumpAhead
		}
	}
	var total float64
	for _, ticks := range d[:8] {
		total += float64(ticks)
	}
	if total == 0 {
		return s, unknown // no tick has passed
	}
	for i := range d {
		s.modes[i], _ = percentOf(float64(d[i]), total)
	}
	s.usage, _ = percentOf(total-float64(d[3])-float64(d[4]), total)
	return s, counted
}

// writeCPU writes the cpu payload.
func (s *cpuState) write(p payload) {
	all, o := p.cpuUsage("cpu", max(len(s.cpus), 1))
	p.number("usage", "cpu", all.usage, o)
	s.temperature.write(p)
	p.Object("modes", func() {
		for i, mode := range cpuModes {
			if _, ok := p.cur["cpu "+mode]; ok {
				p.number(mode, "cpu", all.modes[i], o)
			}
		}
	})
	p.Object("core_usage", func() {
		p.list(lastRoom, "core_usage", len(s.cpus), func(i int) {
			one, o := p.cpuUsage(s.cpus[i], 1)
			p.number(strings.Replace(s.cpus[i], "cpu", "core_", 1), s.cpus[i], one.usage, o)
		})
	})
	optional(p, "load1", s.load1, s.hasLoad)
	optional(p, "load5", s.load5, s.hasLoad)
	optional(p, "load15", s.l15, s.hasLoad)
	optional(p, "run_queue", float64(s.running), s.hasRun)
	optional(p, "blocked", float64(s.blocked), s.hasBlock)
	p.rate("context_switches_per_s", "context_switches")
	p.rate("forks_per_s", "forks")
	s.pressure.write(p, "pressure")
}

// optional adds a number, or null where the host does not tell it.
func optional(p payload, key string, v float64, ok bool) {
	if !ok {
		p.Null(key)
		return
	}
	p.Float(key, v)
}

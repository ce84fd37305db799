package main

import (
	"bytes"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// userHZ is the unit of the CPU times in /proc/stat: USER_HZ is 100 on every
// architecture that Go runs on.
const userHZ = 100

// cpuModes are the columns of a cpu line in proc_stat(5). The kernel counts the
// last two in user and nice as well, so they are reported but never added up.
var cpuModes = []string{"user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal", "guest", "guest_nice"}

// cpuTimes are the ticks of one cpu line, in the order of cpuModes.
type cpuTimes [10]uint64

// cpuState holds the values of the CPU files that are not counters.
type cpuState struct {
	cpus             []string // names of the per-CPU lines
	running, blocked uint64   // procs_running, procs_blocked
	hasRun, hasBlock bool
	load             [3]float64 // over 1, 5 and 15 minutes
	hasLoad          [3]bool
	temperature      temperature
	pressure         pressure
}

// parseStat reads proc_stat(5). It puts the counters into c and returns the
// other values. It skips unknown lines, and accepts lines without the columns
// that old kernels lack. It calls odd for each line that it cannot parse.
func parseStat(data []byte, c counters, odd func([]byte, error)) *cpuState {
	s := &cpuState{}
	for line := range bytes.Lines(data) {
		line = bytes.TrimRight(line, "\n")
		f := fields(line)
		name, err := f.next()
		if err != nil {
			continue
		}
		var v uint64
		switch text := string(name); {
		case bytes.HasPrefix(name, []byte("cpu")):
			err = s.parseCPU(text, f, c)
		case text == "ctxt":
			if v, err = f.uint(); err == nil {
				c["context_switches"] = v
			}
		case text == "processes":
			if v, err = f.uint(); err == nil {
				c["forks"] = v
			}
		case text == "procs_running":
			s.running, err = f.uint()
			s.hasRun = err == nil
		case text == "procs_blocked":
			s.blocked, err = f.uint()
			s.hasBlock = err == nil
		}
		if err != nil {
			odd(line, err)
		}
	}
	return s
}

// parseCPU reads the columns of one cpu line. After an error it has added none.
func (s *cpuState) parseCPU(cpu string, f fields, c counters) error {
	var ticks []uint64
	for i := range cpuModes {
		v, err := f.uint()
		if i >= 4 && err == io.ErrUnexpectedEOF {
			break // the columns after idle were added one by one, up to Linux 2.6.33
		}
		if err != nil {
			return err
		}
		ticks = append(ticks, v)
	}
	for i, v := range ticks {
		c[cpu+" "+cpuModes[i]] = v
	}
	if cpu != "cpu" {
		s.cpus = append(s.cpus, cpu)
	}
	return nil
}

// parseLoadavg reads proc_loadavg(5).
func (s *cpuState) parseLoadavg(data []byte, odd func([]byte, error)) {
	f := fields(bytes.TrimSpace(data))
	for i := range s.load {
		field, _ := f.next()
		v, err := strconv.ParseFloat(string(field), 64)
		if err != nil || !(v >= 0 && v < 1e9) {
			odd(bytes.TrimSpace(data), fmt.Errorf("%q is not a load average", field))
			continue
		}
		s.load[i], s.hasLoad[i] = v, true
	}
}

// readCPU reads the CPU counters into c and returns the other CPU values.
func (h *host) readCPU(c counters, n *notes) *cpuState {
	s := &cpuState{}
	if data, err := h.read("stat"); err != nil {
		n.miss("stat", err)
	} else if s = parseStat(data, c, n.odd("stat")); len(c) == 0 {
		n.fail("stat", "no cpu line")
	}
	if data, err := h.read("loadavg"); err != nil {
		n.miss("load", err)
	} else {
		s.parseLoadavg(data, n.odd("loadavg"))
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

// cpuSlack is the largest backward step of a mode, in ticks, that counts as no
// change. On tickless kernels idle and iowait jitter by a few ticks. A reset is
// larger than that.
const cpuSlack = 3 * userHZ

// cpuUsage returns the shares of one cpu line. Busy is all time except idle and
// iowait; guest time is already part of user. cpus is the number of CPUs that
// the line sums up. If a mode grew by much more time than has passed on them, as
// steal does after a live migration, the window has no usable shares.
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
		if d[i], o = delta(prev, cur, cpuSlack, 0); o != counted {
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
		return s, unknown // no tick in the window
	}
	for i := range d {
		s.modes[i], _ = percentOf(float64(d[i]), total)
	}
	s.usage, _ = percentOf(total-float64(d[3])-float64(d[4]), total)
	return s, counted
}

// write writes the cpu payload.
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
	for i, key := range []string{"load1", "load5", "load15"} {
		optional(p, key, s.load[i], s.hasLoad[i])
	}
	optional(p, "run_queue", float64(s.running), s.hasRun)
	optional(p, "blocked", float64(s.blocked), s.hasBlock)
	p.rate("context_switches_per_s", "context_switches")
	p.rate("forks_per_s", "forks")
	s.pressure.write(p, "pressure")
}

// optional adds the field key: v, or null if ok is false.
func optional(p payload, key string, v float64, ok bool) {
	if !ok {
		p.Null(key)
		return
	}
	p.Float(key, v)
}

package main

import (
	"bytes"
	"fmt"

	"github.com/prometheus/procfs"
)

// memoryState is what /proc/meminfo says, in bytes.
type memoryState struct {
	info     *procfs.Meminfo
	hasOOM   bool
	pressure pressure
}

// vmstatCounters are the lines of /proc/vmstat that count here; pages swapped
// are pages, not bytes.
var vmstatCounters = []string{"pgmajfault", "pswpin", "pswpout", "oom_kill"}

// parseVmstat reads the lines of /proc/vmstat that are in vmstatCounters.
func parseVmstat(data []byte, c counters) error {
	for len(data) > 0 {
		var line []byte
		line, data, _ = bytes.Cut(data, []byte("\n"))
		for _, name := range vmstatCounters {
			value, ok := bytes.CutPrefix(line, []byte(name))
			if !ok || len(value) == 0 || value[0] != ' ' {
				continue
			}
			v, err := parseUint(value[1:])
			if err != nil {
				return fmt.Errorf("vmstat: line %q: %w", line, err)
			}
			c[name] = v
		}
	}
	return nil
}

func (h *host) readMemory(c counters, n *notes) *memoryState {
	s := &memoryState{}
	if info, err := h.proc.Meminfo(); err != nil {
		n.miss("meminfo", err)
	} else {
		s.info = &info
	}
	if data, err := h.read("vmstat"); err != nil {
		n.miss("vmstat", err)
	} else if err := parseVmstat(data, c); err != nil {
		n.fail("vmstat", err.Error())
	}
	if _, s.hasOOM = c["oom_kill"]; !s.hasOOM {
		n.unsupported = append(n.unsupported, "oom_kills") // before Linux 4.13
	}
	s.pressure = h.readPressure("memory", "pressure", c, n)
	return s
}

// write writes the memory payload. All amounts are bytes. used is what is not
// available, as free(1) has it since 2022.
func (s *memoryState) write(p payload) {
	if m := s.info; m != nil {
		total, available := value(m.MemTotalBytes), value(m.MemAvailableBytes)
		if m.MemAvailableBytes == nil { // before Linux 3.14
			p.unsupported = append(p.unsupported, "available")
			available = value(m.MemFreeBytes) + value(m.BuffersBytes) + value(m.CachedBytes)
		}
		used := total - min(available, total)
		p.Uint("total", total)
		p.Uint("available", available)
		p.Uint("used", used)
		percent, ok := percentOf(float64(used), float64(total))
		optional(p, "used_percent", percent, ok)
		for _, f := range []struct {
			key   string
			value *uint64
		}{
			{"free", m.MemFreeBytes}, {"buffers", m.BuffersBytes}, {"cached", m.CachedBytes},
			{"shared", m.ShmemBytes}, {"slab", m.SlabBytes}, {"slab_reclaimable", m.SReclaimableBytes},
			{"dirty", m.DirtyBytes}, {"writeback", m.WritebackBytes},
			{"swap_total", m.SwapTotalBytes}, {"swap_free", m.SwapFreeBytes},
		} {
			if f.value == nil {
				p.Null(f.key)
				continue
			}
			p.Uint(f.key, *f.value)
		}
		swapUsed := value(m.SwapTotalBytes) - min(value(m.SwapFreeBytes), value(m.SwapTotalBytes))
		p.Uint("swap_used", swapUsed)
		percent, ok = percentOf(float64(swapUsed), float64(value(m.SwapTotalBytes)))
		optional(p, "swap_used_percent", percent, ok)
	}
	p.rate("swap_in_pages_per_s", "pswpin")
	p.rate("swap_out_pages_per_s", "pswpout")
	p.rate("major_faults_per_s", "pgmajfault")
	p.count("oom_kills", "oom_kill")
	s.pressure.write(p, "pressure")
}

func value(v *uint64) uint64 {
	if v == nil {
		return 0
	}
	return *v
}

package main

import (
	"bytes"
	"errors"
	"math"
	"slices"
)

// memoryState holds the values of the memory files that are not counters.
type memoryState struct {
	info     map[string]uint64 // the valid lines of /proc/meminfo: bytes, by the kernel's names
	odd      map[string]bool   // the names of the lines that are present but not valid
	arc      *arc
	hasOOM   bool
	pressure pressure
}

// meminfoNames are the lines of /proc/meminfo that the tool reads.
var meminfoNames = []string{"MemTotal", "MemFree", "MemAvailable", "Buffers", "Cached", "Shmem", "Slab", "SReclaimable", "Dirty", "Writeback", "SwapTotal", "SwapFree"}

// parseMeminfo reads the lines of proc_meminfo(5) that are in meminfoNames. It
// calls fail for a line that it cannot parse, and for a part that is larger than
// its whole. lxcfs reports such a part when a subtraction underflows.
func parseMeminfo(data []byte, fail func([]byte, error)) (info map[string]uint64, odd map[string]bool) {
	info, odd = make(map[string]uint64, len(meminfoNames)), make(map[string]bool)
	lines := make(map[string][]byte, len(meminfoNames))
	for line := range bytes.Lines(data) {
		line = bytes.TrimRight(line, "\n")
		end := bytes.IndexAny(line, ": \t")
		if end < 0 || !slices.Contains(meminfoNames, string(line[:end])) {
			continue
		}
		v, err := parseKB(line[end:])
		if err != nil {
			fail(line, err)
			odd[string(line[:end])] = true
			continue
		}
		info[string(line[:end])], lines[string(line[:end])] = v, line
	}
	for _, name := range meminfoNames {
		whole := "MemTotal"
		if name == "SwapFree" {
			whole = "SwapTotal"
		} else if name == "SwapTotal" {
			continue
		}
		if total, ok := info[whole]; ok && info[name] > total {
			fail(lines[name], errors.New("more than "+whole))
			odd[name] = true
			delete(info, name)
		}
	}
	return info, odd
}

// parseKB reads ": 123 kB" and returns bytes.
func parseKB(b []byte) (uint64, error) {
	rest, ok := bytes.CutPrefix(b, []byte(":"))
	if !ok {
		return 0, errors.New("no colon")
	}
	f := fields(rest)
	v, err := f.uint()
	if err != nil {
		return 0, err
	}
	unit, _ := f.next()
	if string(unit) != "kB" || len(bytes.TrimSpace(f)) > 0 {
		return 0, errors.New("not an amount in kB")
	}
	if v > math.MaxInt64>>10 {
		return 0, errors.New("larger than any memory")
	}
	return v << 10, nil
}

// arc is the cache of ZFS, in bytes. meminfo counts it as used.
type arc struct{ size, min uint64 }

// parseArcstats reads /proc/spl/kstat/zfs/arcstats, whose lines have a name, a
// type and a value. It returns nil unless both size and c_min are there.
func parseArcstats(data []byte) *arc {
	a := &arc{}
	found := 0
	for line := range bytes.Lines(data) {
		f := fields(bytes.TrimRight(line, "\n"))
		name, _ := f.next()
		for key, dst := range map[string]*uint64{"size": &a.size, "c_min": &a.min} {
			if string(name) != key {
				continue
			}
			if _, err := f.next(); err != nil {
				continue
			}
			if v, err := f.uint(); err == nil {
				*dst, found = v, found+1
			}
		}
	}
	if found != 2 {
		return nil
	}
	return a
}

// vmstatCounters are the lines of /proc/vmstat that the tool reads. pswpin and
// pswpout count pages, not bytes.
var vmstatCounters = []string{"pgmajfault", "pswpin", "pswpout", "oom_kill"}

// parseVmstat reads the lines of /proc/vmstat that are in vmstatCounters.
func parseVmstat(data []byte, c counters, odd func([]byte, error)) {
	for line := range bytes.Lines(data) {
		line = bytes.TrimRight(line, "\n")
		for _, name := range vmstatCounters {
			value, ok := bytes.CutPrefix(line, []byte(name))
			if !ok || len(value) == 0 || value[0] != ' ' {
				continue
			}
			if v, err := parseUint(value[1:]); err != nil {
				odd(line, err)
			} else {
				c[name] = v
			}
		}
	}
}

func (h *host) readMemory(c counters, n *notes) *memoryState {
	s := &memoryState{}
	if data, err := h.read("meminfo"); err != nil {
		n.miss("meminfo", err)
	} else {
		s.info, s.odd = parseMeminfo(data, n.odd("meminfo"))
	}
	if data, err := h.read("spl/kstat/zfs/arcstats"); err == nil {
		if s.arc = parseArcstats(data); s.arc == nil {
			n.fail("arcstats", "no size or no c_min")
		}
	}
	if data, err := h.read("vmstat"); err != nil {
		n.miss("vmstat", err)
	} else {
		parseVmstat(data, c, n.odd("vmstat"))
	}
	if _, s.hasOOM = c["oom_kill"]; !s.hasOOM {
		n.unsupported = append(n.unsupported, "oom_kills") // before Linux 4.13
	}
	s.pressure = h.readPressure("memory", "pressure", c, n)
	return s
}

// write writes the memory payload. All amounts are bytes. used is total minus
// available, as in free(1) since 2022.
func (s *memoryState) write(p payload) {
	amount := func(key string, v uint64, ok bool) {
		if !ok {
			p.Null(key)
			return
		}
		p.Uint(key, v)
	}
	used := func(prefix string, total, free uint64, ok bool) {
		amount(prefix+"used", total-min(free, total), ok)
		percent, whole := percentOf(float64(total-min(free, total)), float64(total))
		optional(p, prefix+"used_percent", percent, ok && whole)
	}
	total, hasTotal := s.info["MemTotal"]
	available, hasAvailable := s.info["MemAvailable"]
	if !hasAvailable && !s.odd["MemAvailable"] {
		// Before Linux 3.14.
		p.unsupported = append(p.unsupported, "available")
		free, hasFree := s.info["MemFree"]
		buffers, hasBuffers := s.info["Buffers"]
		cached, hasCached := s.info["Cached"]
		available, hasAvailable = free+buffers+cached, hasFree && hasBuffers && hasCached
	}
	amount("total", total, hasTotal)
	amount("available", available, hasAvailable)
	used("", total, available, hasTotal && hasAvailable)
	for _, f := range []struct{ key, name string }{
		{"free", "MemFree"}, {"buffers", "Buffers"}, {"cached", "Cached"}, {"shared", "Shmem"},
		{"slab", "Slab"}, {"slab_reclaimable", "SReclaimable"}, {"dirty", "Dirty"}, {"writeback", "Writeback"},
		{"swap_total", "SwapTotal"}, {"swap_free", "SwapFree"},
	} {
		v, ok := s.info[f.name]
		amount(f.key, v, ok)
	}
	swap, hasSwap := s.info["SwapTotal"]
	swapFree, hasFree := s.info["SwapFree"]
	used("swap_", swap, swapFree, hasSwap && hasFree)
	if s.arc != nil {
		reclaimable := s.arc.size - min(s.arc.min, s.arc.size)
		p.Uint("zfs_arc", s.arc.size)
		p.Uint("zfs_arc_reclaimable", reclaimable)
		amount("available_with_arc", min(available+reclaimable, total), hasTotal && hasAvailable)
	}
	p.rate("swap_in_pages_per_s", "pswpin")
	p.rate("swap_out_pages_per_s", "pswpout")
	p.rate("major_faults_per_s", "pgmajfault")
	p.count("oom_kills", "oom_kill")
	s.pressure.write(p, "pressure")
}

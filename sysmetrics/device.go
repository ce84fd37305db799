package main

import (
	"strings"
)

// blockDevice is a whole disk of /proc/diskstats
// (Documentation/admin-guide/iostats.rst).
type blockDevice struct {
	name     string
	inFlight uint64
}

func (d blockDevice) counter(name string) string { return "disk " + d.name + " " + name }

// sectorSize is the unit of /proc/diskstats, whatever the device's own is.
const sectorSize = 512

func (h *host) readDevices(f filter, c counters, n *notes) []blockDevice {
	stats, err := h.block.ProcDiskstats()
	if err != nil {
		n.miss("_io", err)
		return nil
	}
	names := make(map[string]bool, len(stats))
	for _, s := range stats {
		names[s.DeviceName] = true
	}
	var devices []blockDevice
	for _, s := range stats {
		if !f.allows(s.DeviceName) || isPartition(s.DeviceName, names) {
			continue
		}
		d := blockDevice{name: s.DeviceName, inFlight: s.IOsInProgress}
		for name, v := range map[string]uint64{
			"reads": s.ReadIOs, "read_bytes": s.ReadSectors * sectorSize, "read_ms": s.ReadTicks,
			"writes": s.WriteIOs, "write_bytes": s.WriteSectors * sectorSize, "write_ms": s.WriteTicks,
			"busy_ms": s.IOsTotalTicks, "queue_ms": s.WeightedIOTicks,
		} {
			c[d.counter(name)] = v
		}
		devices = append(devices, d)
	}
	return devices
}

// isPartition reports whether name is a partition of another device there: the
// disk's name and a number, with a p between them if that name ends in a digit
// (block/partitions/core.c).
func isPartition(name string, names map[string]bool) bool {
	disk := strings.TrimRight(name, "0123456789")
	if disk == name || disk == "" {
		return false
	}
	if whole, ok := strings.CutSuffix(disk, "p"); ok && whole != "" && isDigit(whole[len(whole)-1]) {
		return names[whole]
	}
	return names[disk] && !isDigit(disk[len(disk)-1])
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

// write adds the device's rates: bytes and operations per second, the mean
// time that an operation took in milliseconds (null if there was none), and
// the percentage of the window in which the device was busy.
func (d blockDevice) write(p payload) {
	p.rate("read_bytes_per_s", d.counter("read_bytes"))
	p.rate("write_bytes_per_s", d.counter("write_bytes"))
	p.rate("read_iops", d.counter("reads"))
	p.rate("write_iops", d.counter("writes"))
	d.await(p, "read_await_ms", []string{"read_ms"}, []string{"reads"})
	d.await(p, "write_await_ms", []string{"write_ms"}, []string{"writes"})
	d.await(p, "await_ms", []string{"read_ms", "write_ms"}, []string{"reads", "writes"})
	p.share("util_percent", d.counter("busy_ms"), 1000)
	p.rate("queue_ms_per_s", d.counter("queue_ms"))
	p.Uint("in_flight", d.inFlight)
}

func (d blockDevice) await(p payload, key string, times, operations []string) {
	ms, ok1 := d.sum(p, times)
	n, ok2 := d.sum(p, operations)
	if !ok1 || !ok2 || n == 0 {
		p.Null(key)
		return
	}
	p.Float(key, ms/n)
}

func (d blockDevice) sum(p payload, names []string) (total float64, ok bool) {
	for _, name := range names {
		v, o := p.delta(d.counter(name))
		if o != counted {
			return 0, false
		}
		total += float64(v)
	}
	return total, true
}

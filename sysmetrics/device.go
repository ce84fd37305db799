package main

import (
	"bytes"
	"fmt"
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

// deviceColumns are the columns of /proc/diskstats that count here, by
// position behind the name. Later kernels have more, for discards and flushes.
var deviceColumns = []struct {
	column int
	name   string
	unit   uint64
}{
	{0, "reads", 1}, {2, "read_bytes", sectorSize}, {3, "read_ms", 1},
	{4, "writes", 1}, {6, "write_bytes", sectorSize}, {7, "write_ms", 1},
	{9, "busy_ms", 1}, {10, "queue_ms", 1},
}

const inFlightColumn = 8

// deviceCounters iterates over the names in deviceColumns.
func deviceCounters(yield func(string) bool) {
	for _, col := range deviceColumns {
		if !yield(col.name) {
			return
		}
	}
}

// parseDiskstats returns the devices that the filter allows and that are no
// partitions. The numbers of others are not looked at.
func parseDiskstats(data []byte, f filter, c counters) ([]blockDevice, error) {
	var devices []blockDevice
	names := make(map[string]bool)
	for len(data) > 0 {
		var line []byte
		line, data, _ = bytes.Cut(data, []byte("\n"))
		rest := fields(line)
		var name []byte
		for range 3 { // major, minor, name
			var err error
			if name, err = rest.next(); err != nil {
				return nil, fmt.Errorf("diskstats: line %q is short", line)
			}
		}
		d := blockDevice{name: string(name)}
		names[d.name] = true // a partition comes behind its disk
		if !f.allows(d.name) || isPartition(d.name, names) {
			continue
		}
		var columns [11]uint64
		for i := range columns {
			var err error
			if columns[i], err = rest.uint(); err != nil {
				return nil, fmt.Errorf("diskstats: line %q: %w", line, err)
			}
		}
		for _, col := range deviceColumns {
			c[d.counter(col.name)] = columns[col.column] * col.unit
		}
		d.inFlight = columns[inFlightColumn]
		devices = append(devices, d)
	}
	return devices, nil
}

func (h *host) readDevices(f filter, c counters, n *notes) []blockDevice {
	data, err := h.read("diskstats")
	if err != nil {
		n.miss("_io", err)
		return nil
	}
	devices, err := parseDiskstats(data, f, c)
	if err != nil {
		n.fail("_io", err.Error())
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
	p = p.device(d.counter(""), deviceCounters)
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
	if !ok1 || !ok2 || n == 0 || p.void {
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

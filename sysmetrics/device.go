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
	key      string // prefix of its counters; it has the device's number, because names can be swapped
	mapped   string // the name of a device-mapper device, such as vg0-root
	inFlight uint64
}

func (d blockDevice) counter(name string) string { return d.key + name }

// sectorSize is the unit of sectors in /proc/diskstats, in bytes. It does not
// depend on the device.
const sectorSize = 512

// deviceColumns are the columns of /proc/diskstats that the tool reads, by
// position after the name. Later kernels have more columns, for discards and
// flushes.
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

// parseDiskstats returns the devices that the filter allows, without partitions.
// It does not parse the numbers of other devices. It calls identify to complete
// a device whose key is only its number, and odd for a line that it cannot parse.
func parseDiskstats(data []byte, f filter, identify func(*blockDevice), c counters, odd func([]byte, error)) (devices []blockDevice) {
	names := make(map[string]bool)
	for line := range bytes.Lines(data) {
		line = bytes.TrimRight(line, "\n")
		rest := fields(line)
		var head [3]string // major, minor, name
		for i := range head {
			field, _ := rest.next()
			head[i] = string(field)
		}
		name := head[2]
		if name == "" {
			if len(line) > 0 {
				odd(line, fmt.Errorf("line is too short"))
			}
			continue
		}
		names[name] = true // a partition is listed after its disk
		if !f.allows(name) || isPartition(name, names) {
			continue
		}
		columns, err := parseColumns(rest, 11)
		if err != nil {
			odd(line, err)
			continue
		}
		d := blockDevice{name: name, key: "disk " + head[0] + ":" + head[1] + " ", inFlight: columns[inFlightColumn]}
		identify(&d)
		for _, col := range deviceColumns {
			c[d.counter(col.name)] = columns[col.column] * col.unit
		}
		devices = append(devices, d)
	}
	return devices
}

func (h *host) readDevices(f filter, c counters, n *notes) []blockDevice {
	data, err := h.read("diskstats")
	if err != nil {
		n.miss("_io", err)
		return nil
	}
	data = bytes.Clone(data) // identifying a device reads other files
	return parseDiskstats(data, f, h.identify, c, n.odd("diskstats"))
}

// identify completes a device from /sys/block: with the sequence number, which is
// different for another disk with the same device number (from Linux 5.15), and
// with the name of a device-mapper device.
func (h *host) identify(d *blockDevice) {
	dir := h.sysRoot + "/block/" + strings.ReplaceAll(d.name, "/", "!")
	if seq := h.line(dir + "/diskseq"); seq != "" && !strings.ContainsAny(seq, " \n") {
		d.key = strings.TrimSuffix(d.key, " ") + "/" + seq + " "
	}
	if strings.HasPrefix(d.name, "dm-") {
		d.mapped = h.line(dir + "/dm/name")
	}
}

// isPartition reports whether name is a partition of another device in names. A
// partition is called by the disk's name and a number, with a p between them if
// the disk's name ends in a digit (block/partitions/core.c).
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

// write adds the device's rates: bytes and operations per second, the mean time
// of an operation in milliseconds (null if there was no operation), and the
// percentage of the window in which the device was busy.
func (d blockDevice) write(p payload) {
	p = p.device(d.key, "disk "+d.name+" ", deviceCounters)
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
	if d.mapped != "" {
		p.String("dm_name", d.mapped)
	}
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

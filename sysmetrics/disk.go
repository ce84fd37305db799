package main

import (
	"context"
	"fmt"
)

// tmpfsMagic is the statfs type of a tmpfs (linux/magic.h).
const tmpfsMagic = 0x01021994

// diskState is what the mounts say, beside the counters of the block devices.
type diskState struct {
	mounts   []mount // those that answered, by mount point
	usages   []usage // of each
	devices  []blockDevice
	pressure pressure
}

// diskFilter decides what counts: mounts, and block devices by name.
type diskFilter struct {
	mounts  mountFilter
	devices filter
}

// readDisk asks the mounts. Local file systems answer from memory and are
// asked at once; doubtful ones in a disposable process, unless they hung not
// long ago. remembered is replaced by the mounts that hang now.
func (h *host) readDisk(ctx context.Context, f diskFilter, now clock, remembered *[]hung, c counters, n *notes) *diskState {
	s := &diskState{}
	mounts, err := h.readMounts(f.mounts)
	if err != nil {
		n.miss("mounts", err)
	}
	var doubtful []mount
	var hanging []hung
	known := make(map[string]hung)
	for _, r := range *remembered {
		known[r.mount.point] = r
	}
	for _, m := range mounts {
		if !m.doubtful() {
			u, err := h.statfs(m.point)
			s.add(m, u, err, n)
		} else if k := known[m.point]; k.same(m) && k.waits(now.boottime) {
			hanging = append(hanging, k)
			n.fail(m.point, fmt.Sprintf("hung before; asked again in %.0f s", (k.retry-now.boottime).Seconds()))
		} else {
			doubtful = append(doubtful, m)
		}
	}
	if len(doubtful) > 0 {
		points := make([]string, len(doubtful))
		for i, m := range doubtful {
			points[i] = m.point
		}
		usages, errs := statfsApart(ctx, points)
		for i, m := range doubtful {
			if errs[i] == errHung && ctx.Err() == nil {
				k := known[m.point]
				if !k.same(m) {
					k = hung{}
				}
				hanging = append(hanging, k.again(m, now.boottime))
			}
			s.add(m, usages[i], errs[i], n)
		}
	}
	*remembered = hanging
	s.devices = h.readDevices(f.devices, c, n)
	s.pressure = h.readPressure("io", "_pressure", c, n)
	return s
}

// readMounts reads the host's mounts: those of PID 1, as our own namespace may
// be a sandbox in which everything is read-only.
func (h *host) readMounts(f mountFilter) ([]mount, error) {
	data, err := h.read("1/mountinfo")
	if err != nil {
		if data, err = h.read("self/mountinfo"); err != nil {
			return nil, err
		}
	}
	return parseMountinfo(data, f)
}

// add keeps an answer. A tmpfs where the host has a disk is a sandbox's cover
// over it: its numbers would be a lie.
func (s *diskState) add(m mount, u usage, err error, n *notes) {
	switch {
	case err != nil:
		n.fail(m.point, err.Error())
	case u.magic == tmpfsMagic && m.fstype != "tmpfs":
		n.fail(m.point, "hidden from this process by a tmpfs (ProtectHome=read-only shows it)")
	default:
		s.mounts, s.usages = append(s.mounts, m), append(s.usages, u)
	}
}

// write writes the disk payload: an object for each mount point, and our own
// keys with an underscore before them. used and used_percent are df(1)'s: what
// is reserved for root is neither used nor free.
func (s *diskState) write(p payload) {
	p.list(listRoom, "_mounts", len(s.mounts), func(i int) {
		m, u := s.mounts[i], s.usages[i]
		p.Object(m.point, func() {
			used := u.total - min(u.free, u.total)
			p.Uint("total", u.total)
			p.Uint("used", used)
			p.Uint("free", u.available)
			percent, ok := percentOf(float64(used), float64(used)+float64(u.available))
			optional(p, "used_percent", percent, ok)
			p.Uint("inodes", u.inodes)
			p.Uint("inodes_free", u.inodesFree)
			percent, ok = percentOf(float64(u.inodes-min(u.inodesFree, u.inodes)), float64(u.inodes))
			optional(p, "inodes_used_percent", percent, ok)
			p.Bool("read_only", m.readOnly)
			p.String("device", m.source)
			p.String("fstype", m.fstype)
		})
	})
	p.Object("_io", func() {
		p.list(lastRoom, "_io", len(s.devices), func(i int) {
			p.Object(s.devices[i].name, func() { s.devices[i].write(p) })
		})
	})
	s.pressure.write(p, "_pressure")
}

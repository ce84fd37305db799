package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"observability-hub/sysmetrics/internal/statfs"
)

// tmpfsMagic is the statfs type of a tmpfs (linux/magic.h).
const tmpfsMagic = 0x01021994

// diskState holds the answers of the mounts, and the block devices, whose
// counters are kept with the other counters.
type diskState struct {
	mounts   []mountUsage // those that answered, by mount point
	devices  []blockDevice
	pressure pressure
}

// mountUsage is a mount and its answer.
type mountUsage struct {
	mount
	statfs.Usage
}

// diskFilter selects mounts, and block devices by name.
type diskFilter struct {
	mounts  mountFilter
	devices filter
}

// readDisk asks the mounts for their usage. A mount that may hang is asked in a
// process that can be abandoned, and not again for a time after it hung.
// readDisk replaces remembered by the mounts that hang now.
func (h *host) readDisk(ctx context.Context, f diskFilter, now clock, remembered *[]hung, c counters, n *notes) *diskState {
	s := &diskState{}
	groups, devices := h.readMounts(f.mounts, n)
	known := make(map[string]hung)
	for _, r := range *remembered {
		known[r.mount.point] = r
	}
	var hanging []hung
	// One mount of each file system is asked. The next mount of it is asked only
	// if the first is a single file, such as /etc/hosts of a container.
	for len(groups) > 0 {
		var asked [][]mount
		var points []string
		for _, group := range groups {
			m := group[0]
			if k := known[m.point]; k.same(m) && k.waits(now.boottime) {
				hanging = append(hanging, k)
				n.fail(m.point, fmt.Sprintf("hung before; next attempt in %.0f s", (k.retry-now.boottime).Seconds()))
				continue
			}
			asked, points = append(asked, group), append(points, h.rootfs+m.point)
		}
		groups = nil
		for i, a := range h.askAll(ctx, asked, points) {
			m := asked[i][0]
			switch {
			case a.Err == nil && a.Usage.File:
				if len(asked[i]) > 1 {
					groups = append(groups, asked[i][1:])
				}
				continue
			case a.Err == statfs.ErrHung:
				k := known[m.point]
				if !k.same(m) {
					k = hung{}
				}
				hanging = append(hanging, k.again(m, now.boottime))
			}
			s.add(m, a, devices, len(f.mounts.points.only) > 0, n)
		}
	}
	slices.SortFunc(s.mounts, func(a, b mountUsage) int { return strings.Compare(a.point, b.point) })
	*remembered = hanging
	s.devices = h.readDevices(f.devices, c, n)
	s.pressure = h.readPressure("io", "_pressure", c, n)
	return s
}

// askAll returns an answer for each group, from the first mount of it, which is
// reached at the same index of points. A fork costs a tenth of the whole run, so
// mounts that cannot hang are asked by this process.
func (h *host) askAll(ctx context.Context, groups [][]mount, points []string) []statfs.Answer {
	answers := make([]statfs.Answer, len(points))
	var index []int
	var others []string
	for i, group := range groups {
		if h.askHere != nil && group[0].inMemory {
			answers[i] = h.askHere(points[i])
		} else {
			index, others = append(index, i), append(others, points[i])
		}
	}
	for n, a := range h.ask(ctx, others) {
		answers[index[n]] = a
	}
	return answers
}

// readMounts reads the mounts of PID 1, because this process may be in a sandbox
// in which every mount is read-only. With hidepid= only the mounts of this
// process can be read.
func (h *host) readMounts(f mountFilter, n *notes) (groups [][]mount, devices map[string]bool) {
	data, err := h.read("1/mountinfo")
	own := false
	if err != nil {
		cause := err
		if data, err = h.read("self/mountinfo"); err != nil {
			n.miss("mounts", err)
			return nil, nil
		}
		own = true
		n.fail("mounts", cause.Error()+"; used the mounts of this process instead (is /proc mounted with hidepid?)")
	}
	mounts, devices := parseMountinfo(data, f, n.odd("mountinfo"))
	for i := range mounts {
		// In a sandbox a mount may be read-only although the host's is not.
		mounts[i].unsure = own && mounts[i].readOnly && !mounts[i].superRO
	}
	return candidates(mounts), devices
}

// add keeps an answer if it comes from the mount m. If a tmpfs answers for a mount
// of another type, a sandbox hides m with it. If the answer has the device of
// another mount, that mount hides m. add also leaves out file systems without
// blocks, unless the user named their mount point.
func (s *diskState) add(m mount, a statfs.Answer, devices map[string]bool, named bool, n *notes) {
	u := a.Usage
	switch {
	case a.Err != nil:
		n.fail(m.point, a.Err.Error())
	case u.Magic == tmpfsMagic && m.fstype != "tmpfs":
		n.fail(m.point, "hidden from this process by a tmpfs (ProtectHome=read-only shows it)")
	case u.Device != m.device && devices[u.Device]:
		n.fail(m.point, "hidden by a mount of the device "+u.Device)
	case u.Total == 0 && !named:
	default:
		s.mounts = append(s.mounts, mountUsage{m, u})
	}
}

// write writes the disk payload: an object for each mount point, and our own
// keys, which begin with an underscore. used and used_percent are those of
// df(1): space that is reserved for root is neither used nor free.
func (s *diskState) write(p payload) {
	p.list(listRoom, "_mounts", len(s.mounts), func(i int) {
		m, u := s.mounts[i].mount, s.mounts[i].Usage
		p.Object(m.point, func() {
			used := u.Total - min(u.Free, u.Total)
			p.Uint("total", u.Total)
			p.Uint("used", used)
			p.Uint("free", u.Available)
			percent, ok := percentOf(float64(used), float64(used)+float64(u.Available))
			optional(p, "used_percent", percent, ok)
			p.Uint("inodes", u.Inodes)
			p.Uint("inodes_free", u.InodesFree)
			percent, ok = percentOf(float64(u.Inodes-min(u.InodesFree, u.Inodes)), float64(u.Inodes))
			optional(p, "inodes_used_percent", percent, ok)
			if m.unsure {
				p.Null("read_only")
			} else {
				p.Bool("read_only", m.readOnly)
			}
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

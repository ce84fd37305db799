package main

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"syscall"

	"observability-hub/lib/record"
)

// notes collect the lists in the _meta of one payload: which values are missing,
// and why.
type notes struct {
	reset       []string          // counters that went backwards or grew by more than is possible
	unsupported []string          // features that this kernel or machine does not have
	failed      map[string]string // what could not be read or did not fit into the line: name and reason
}

// miss notes an error under name: in unsupported if the file or feature does not
// exist, else in failed.
func (n *notes) miss(name string, err error) {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.EOPNOTSUPP) {
		n.unsupported = append(n.unsupported, name)
		return
	}
	n.fail(name, err.Error())
}

// odd returns a function that notes a line of a file in failed. Parsers call it
// for a line that they cannot parse, and go on with the next line.
func (n *notes) odd(file string) func(line []byte, err error) {
	return func(line []byte, err error) { n.fail(fmt.Sprintf("%s: %.60q", file, line), err.Error()) }
}

// metaStart is the beginning of the _meta of a line. It cannot occur in a name
// that was found on the host, because there the quotes are escaped.
const metaStart = `"_meta":{`

func (n *notes) fail(name, reason string) {
	if n.failed == nil {
		n.failed = make(map[string]string)
	}
	n.failed[name] = reason
}

// write adds the _meta object. It calls more to add further fields.
func (n *notes) write(l *record.Line, w *window, r *reading, more func()) {
	l.Object("_meta", func() {
		l.Float("window_s", w.seconds)
		l.Bool("first", w.first)
		l.Float("suspended_s", w.suspended)
		l.String("boot_id", r.bootID)
		if r.machineID != "" {
			l.String("machine_id", r.machineID)
		}
		l.Strings("reset", n.bounded(n.reset))
		l.Strings("unsupported", n.unsupported)
		l.Object("failed", func() {
			names := sortedKeys(n.failed)
			left := within(l, l.Len()+metaRoom, len(names), func(i int) { l.String(names[i], n.failed[names[i]]) })
			if left > 0 {
				l.String("_more", fmt.Sprintf("%d left out: %s", left, tooLong))
			}
		})
		more()
	})
}

// No line may exceed record.MaxLine. The first three limits are lengths of the
// line: a list in the payload may grow until the line has that length. The
// limits leave room for the other fields, which are short, and for the lists in
// _meta.
const (
	coreRoom = 17 << 10 // temperatures of the cores, which precede their usage
	listRoom = 28 << 10 // interfaces or mounts
	lastRoom = 34 << 10 // block devices, which follow the mounts; usage of the cores
	metaRoom = 5 << 10  // the length of each list in _meta
)

// tooLong is the reason for leaving something out.
const tooLong = "the line would exceed 48 KiB"

// within adds n items to the open object by calling add for each. It removes an
// item again if it makes the line longer than limit. It returns the number of
// removed items.
func within(l *record.Line, limit, n int, add func(i int)) (left int) {
	for i := range n {
		before := l.Len()
		if add(i); l.Len() > limit {
			l.Truncate(before)
			left++
		}
	}
	return left
}

// list adds the items of one list. If some do not fit, it notes their number in
// failed.
func (p payload) list(limit int, key string, n int, add func(i int)) {
	if left := within(p.Line, limit, n, add); left > 0 {
		p.fail(key, fmt.Sprintf("%d of %d left out: %s", left, n, tooLong))
	}
}

// bounded returns the names that fit into metaRoom. If some do not fit, the last
// entry says how many.
func (n *notes) bounded(names []string) []string {
	size := 0
	for i, name := range names {
		if size += len(name) + len(`"",`); size > metaRoom {
			return append(names[:i:i], fmt.Sprintf("and %d more", len(names)-i))
		}
	}
	return names
}

// payload writes the payload of one resource. A rate whose counter was reset
// becomes null, and the counter is noted in reset.
type payload struct {
	*record.Line
	*window
	*notes
	key, label string // prefix of the device's counters, and what replaces it in reset

	void bool // the device was reset, so none of its counters can be compared
}

// device returns the payload for one device. The device's counters are called
// key plus one of names, and are reported as label plus that name. A device that
// disappears and comes back resets all its counters together. So if one of them
// went backwards, none can be compared, even if it is larger than before.
func (p payload) device(key, label string, names func(func(string) bool)) payload {
	p.key, p.label = key, label
	for name := range names {
		_, o := p.delta(key + name)
		p.void = p.void || o == wentBack
	}
	if !p.void {
		return p
	}
	for name := range names {
		if p.cur[key+name] < p.prev[key+name] { // even by a step that looks like a wrap
			p.noteReset(label + name)
		}
	}
	return p
}

// rate adds the field key: the counter's growth per second, or null.
func (p payload) rate(key, counter string) {
	r, o := p.perSecond(counter)
	p.number(key, counter, r, o)
}

// count adds the field key: the counter's growth in the window, or null.
func (p payload) count(key, counter string) {
	d, o := p.delta(counter)
	p.number(key, counter, float64(d), o)
}

// share adds the field key: the counter's growth as a percentage of the window.
// unit is the number of the counter's units in a second.
func (p payload) share(key, counter string, unit float64) {
	r, o := p.perSecond(counter)
	percent, _ := percentOf(r, unit)
	p.number(key, counter, percent, o)
}

func (p payload) number(key, counter string, v float64, o outcome) {
	if o == counted && !p.void {
		p.Float(key, v)
		return
	}
	p.Null(key)
	if o != counted && o != unknown {
		if name, ok := strings.CutPrefix(counter, p.key); ok {
			counter = p.label + name
		}
		p.noteReset(counter)
	}
}

// noteReset adds a counter to reset, once.
func (n *notes) noteReset(counter string) {
	if !slices.Contains(n.reset, counter) {
		n.reset = append(n.reset, counter)
	}
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

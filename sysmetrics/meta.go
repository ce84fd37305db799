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

// notes are the _meta of one payload: what could not be told, and why.
type notes struct {
	reset       []string          // counters that went backwards
	unsupported []string          // what this kernel or machine does not have
	failed      map[string]string // what it has but would not tell: name and reason
}

// miss files an error under name: what does not exist here is unsupported,
// anything else failed.
func (n *notes) miss(name string, err error) {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.EOPNOTSUPP) {
		n.unsupported = append(n.unsupported, name)
		return
	}
	n.fail(name, err.Error())
}

// odd returns a function that files an odd line of a file under failed: such a
// line costs its own value alone.
func (n *notes) odd(file string) func(line []byte, err error) {
	return func(line []byte, err error) { n.fail(fmt.Sprintf("%s: %.60q", file, line), err.Error()) }
}

// metaStart is how the _meta of a line begins. In a name of the host's the
// quotes would be escaped.
const metaStart = `"_meta":{`

func (n *notes) fail(name, reason string) {
	if n.failed == nil {
		n.failed = make(map[string]string)
	}
	n.failed[name] = reason
}

// write adds the _meta object; more adds fields of its own to it.
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

// No line may exceed record.MaxLine. The lists of a payload, of interfaces,
// mounts and block devices, take what they need up to these lengths of the
// line; the rest of it, which is short, and the lists in _meta fit behind.
const (
	coreRoom = 17 << 10 // temperatures, ahead of the usage of the same cores
	listRoom = 28 << 10 // interfaces or mounts
	lastRoom = 34 << 10 // block devices, behind the mounts; the usage of cores
	metaRoom = 5 << 10  // each list of _meta, for itself
)

// tooLong says why something is left out.
const tooLong = "the line would exceed 48 KiB"

// within adds n items to the open object, each with add, and takes back those
// that would make the line longer than limit. It returns their number.
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

// list adds the items of one list and notes as failed what had to be left out.
func (p payload) list(limit int, key string, n int, add func(i int)) {
	if left := within(p.Line, limit, n, add); left > 0 {
		p.fail(key, fmt.Sprintf("%d of %d left out: %s", left, n, tooLong))
	}
}

// bounded returns as much of a list of names as metaRoom holds.
func (n *notes) bounded(names []string) []string {
	size := 0
	for i, name := range names {
		if size += len(name) + len(`"",`); size > metaRoom {
			return append(names[:i:i], fmt.Sprintf("and %d more", len(names)-i))
		}
	}
	return names
}

// payload writes one resource's payload. Rates of counters that were reset
// become null and are noted.
type payload struct {
	*record.Line
	*window
	*notes
	key, label string // what the device's counters begin with, and in reset

	void bool // the device that is written has been reset: none of its counters can be compared
}

// device returns the payload for one device, whose counters are called key and
// one of names, and label and that name where they are reported. They are reset together, by a device that went and came
// back, so if one of them went backwards the others prove nothing by being
// larger.
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
		if p.cur[key+name] < p.prev[key+name] { // also by what would pass for a wrap
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

// share adds the field key: the counter's growth as a percentage of the
// window, where unit is how many of the counter's units make a second.
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

// noteReset adds a counter to the reset ones, once.
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

package main

import (
	"errors"
	"io/fs"
	"slices"
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

func (n *notes) fail(name, reason string) {
	if n.failed == nil {
		n.failed = make(map[string]string)
	}
	n.failed[name] = reason
}

// write adds the _meta object; more adds fields of its own to it.
func (n *notes) write(l *record.Line, w *window, bootID string, more func()) {
	l.Object("_meta", func() {
		l.Float("window_s", w.seconds)
		l.Bool("first", w.first)
		l.Float("suspended_s", w.suspended)
		l.String("boot_id", bootID)
		l.Strings("reset", n.reset)
		l.Strings("unsupported", n.unsupported)
		l.Object("failed", func() {
			for _, name := range sortedKeys(n.failed) {
				l.String(name, n.failed[name])
			}
		})
		more()
	})
}

// payload writes one resource's payload. Rates of counters that were reset
// become null and are noted.
type payload struct {
	*record.Line
	*window
	*notes
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
	if o == counted {
		p.Float(key, v)
		return
	}
	p.Null(key)
	if o != unknown && !slices.Contains(p.reset, counter) {
		p.reset = append(p.reset, counter)
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

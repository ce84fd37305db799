package main

import (
	"maps"
	"path"
	"slices"

	"observability-hub/gitsync/internal/unit"
)

// enablements plans the changes of links. It compares the links that the presets
// and the [Install] sections of the commit want with the links of the host.
func (p *plan) enablements() {
	was := p.ledger.Links
	subjects := map[string]bool{}
	for _, m := range []map[string]enablement{p.declared.Links, p.declared.Preset, was} {
		for subject := range m {
			subjects[subject] = true
		}
	}
	for subject, on := range p.ledger.Enabled {
		if on {
			subjects[subject] = true
		}
	}
	left := p.linksAfter() // the links that the removals leave
	for _, subject := range slices.Sorted(maps.Keys(subjects)) {
		main := subject
		if t, ok := unit.Template(subject); ok && p.want.file(path.Join(unitDir, subject)) == nil {
			main = t
		}
		file := path.Join(unitDir, main)
		host, stays := p.declared.Host[subject]
		if p.foreign[main] || p.after.gone[file] && !stays {
			continue // foreign units are left alone; the removal of a file removes its links
		}
		if main != subject && len(p.declared.Preset[subject]) > 0 && p.after.maskedByAdmin(subject) {
			p.skip(skippedFile{subject, path.Join(unitDir, subject), masked})
			continue
		}
		e := subjectLinks{
			is: left.of(subject), was: was[subject],
			declared: p.declared.Links[subject], preset: p.declared.Preset[subject],
			off: p.declared.Off[subject], enabledBefore: p.ledger.Enabled[subject], known: p.known(subject),
			instance: main != subject && !stays,
		}
		if stays {
			e.declared = host.both(e.is) // the administrator removed the others
		}
		do, reason, add, drop := e.decide()
		if do == "" {
			continue
		}
		a := p.add(do, subject, file, reason)
		a.add, a.drop, a.stop = add, drop, reason == "preset" && do == doDisable
	}
}

// skip records an instance that this host does not get.
func (p *plan) skip(s skippedFile) {
	p.want.skipped = append(p.want.skipped, s)
	p.reportSkipped(s)
}

// known reports whether the ledger has a decision of the presets on a unit.
func (p *plan) known(subject string) bool {
	_, known := p.ledger.Enabled[subject]
	return known
}

// subjectLinks has everything that decides on the links of one unit or instance,
// its subject.
type subjectLinks struct {
	is       enablement // links on the host
	was      enablement // links that the commit before declared
	declared enablement // links that systemctl enable makes
	preset   enablement // links that the presets want; empty if they do not enable the subject
	off      bool       // the presets disable the subject

	enabledBefore bool // the presets enabled the subject before
	known         bool // the presets decided on the subject before
	instance      bool // the subject is an instance of a template of the commit
}

// decide returns the action that the links need: enable, disable, or "" for none.
// It repairs the links of a unit that was disabled by hand. It does not disable a
// unit that was enabled by hand, unless the presets enabled the unit before:
// services have an [Install] section for administrators who want a run at boot. A
// link that neither the commit before nor this commit declares is one that the
// administrator made. Such a link is removed only if the presets disable a unit
// that they enabled before.
func (s subjectLinks) decide() (do, reason string, add, drop enablement) {
	stale := func(now enablement) enablement { return s.was.both(s.is).without(now) }
	switch {
	case len(s.preset) > 0:
		add, drop = s.preset.without(s.is), stale(s.preset)
		switch {
		case len(add) == 0 && len(drop) == 0:
			return "", "", nil, nil
		case !s.known:
			reason = "new"
		case !s.enabledBefore:
			reason = "preset"
		case len(drop) > 0 || len(s.was) > 0 && len(s.preset.without(s.was)) > 0:
			reason = "changed"
		default:
			reason = "drift"
		}
		return doEnable, reason, add, drop
	case s.enabledBefore && len(s.is) > 0 && (s.off || s.instance):
		drop = s.is
		if s.instance && !s.off {
			drop = s.was.both(s.is)
		}
		if len(drop) == 0 {
			return "", "", nil, nil
		}
		return doDisable, "preset", nil, drop
	case len(s.was.both(s.is)) > 0:
		add, drop = s.declared.without(s.is).without(s.was), stale(s.declared)
		switch {
		case len(add) == 0 && len(drop) == 0:
			return "", "", nil, nil
		case len(s.declared) == 0:
			return doDisable, "changed", nil, drop
		}
		return doEnable, "changed", add, drop
	}
	return "", "", nil, nil
}

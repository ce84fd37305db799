package main

import (
	"maps"
	"path"
	"slices"

	"observability-hub/gitsync/internal/unit"
)

// enablements plans the links: what the presets and the [Install] sections of
// the commit want, against what the host has.
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
	left := p.linksAfter() // by the removals
	for _, subject := range slices.Sorted(maps.Keys(subjects)) {
		main := subject
		if t, ok := unit.Template(subject); ok && p.want.file(path.Join(unitDir, subject)) == nil {
			main = t
		}
		file := path.Join(unitDir, main)
		host, stays := p.declared.Host[subject]
		if p.foreign[main] || p.after.gone[file] && !stays {
			continue // the removal of the file takes the links
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
			e.declared = host.both(e.is) // of those that it does not have, the administrator decided
		}
		do, reason, add, drop := e.decide()
		if do == "" {
			continue
		}
		a := p.add(do, subject, file, reason)
		a.add, a.drop, a.stop = add, drop, reason == "preset" && do == doDisable
	}
}

// skip notes an instance that this host does not get.
func (p *plan) skip(s skippedFile) {
	p.want.skipped = append(p.want.skipped, s)
	p.reportSkipped(s)
}

// known reports whether the presets decided on a unit before.
func (p *plan) known(subject string) bool {
	_, known := p.ledger.Enabled[subject]
	return known
}

// subjectLinks is all that is known of the links of one unit or instance.
type subjectLinks struct {
	is       enablement // on the host
	was      enablement // that the commit before declared
	declared enablement // that enabling it makes now
	preset   enablement // that the presets want; empty if they do not enable it
	off      bool       // the presets disable it

	enabledBefore bool // the presets enabled it before
	known         bool // they decided on it before
	instance      bool // of a template of the commit
}

// decide returns what the links need: enable or disable, or nothing. It repairs
// the links of a unit that was disabled by hand. It leaves a unit alone that was
// enabled by hand, unless the presets enabled it before: services carry an
// [Install] section for an administrator who wants a run at boot. Links that
// neither the commit before nor this one declares are the administrator's.
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

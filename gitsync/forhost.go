package main

import (
	"fmt"
	"path"
	"slices"

	"observability-hub/lib/sysexits"
)

// forHost returns what one host gets of it: not the units whose program is not
// installed there, nor what only starts or changes those. gone are the paths
// that this run would remove: what is there now and will not be.
func (d *desired) forHost(h host, gone map[string]bool) (*desired, error) {
	skip := map[string]bool{}
	installed := func(name string) bool {
		for _, p := range candidates(name) {
			if f := d.file(p); f != nil && f.mode&0o111 != 0 || !gone[p] && h.executable(p) {
				return true
			}
		}
		return false
	}
	for _, f := range d.files {
		if !f.isUnit() || unitType(f.unit) != "service" {
			continue
		}
		for _, name := range d.withDropIns(f).executables() {
			skip[f.unit] = skip[f.unit] || !installed(name)
		}
	}
	for _, f := range d.files {
		if !f.isUnit() || !activates(f.unit) {
			continue
		}
		service := d.withDropIns(f).triggered(f.unit)
		switch t, instance := template(service); {
		case skip[service] || instance && skip[t]:
			skip[f.unit] = true
		case d.unit(service) == nil && !h.hasUnit(service, gone):
			return nil, sysexits.New(sysexits.DataErr, "commit_refused",
				fmt.Errorf("%q: it starts %s, which is neither in the repository nor on this host", f.source, service)).
				WithHint("add the service or remove the " + unitType(f.unit) + "; nothing was written")
		}
	}
	out := &desired{commit: d.commit, skipped: slices.Clone(d.skipped), rules: d.rules}
	for _, f := range d.files {
		switch {
		case !skip[f.unit]:
			out.files = append(out.files, f)
		case f.isUnit():
			out.skipped = append(out.skipped, skippedUnit{f.unit, f.path, "not-installed-here"})
		}
	}
	return out, nil
}

// candidates are the host paths that a program's name can stand for.
func candidates(name string) []string {
	if path.IsAbs(name) {
		return []string{path.Clean(name)}
	}
	var all []string
	for _, dir := range executablePath {
		all = append(all, path.Join(dir, name))
	}
	return all
}

// hasUnit reports whether systemd on this host knows a unit file of that name
// that this run does not remove.
func (h host) hasUnit(name string, gone map[string]bool) bool {
	names := []string{name}
	if t, ok := template(name); ok {
		names = append(names, t)
	}
	for _, dir := range []string{unitDir, "/run/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"} {
		for _, n := range names {
			p := path.Join(dir, n)
			if s, err := h.state(p); err == nil && s.kind != "" && !gone[p] {
				return true
			}
		}
	}
	return false
}

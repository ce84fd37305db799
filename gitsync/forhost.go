package main

import (
	"fmt"
	"path"
	"strings"

	"observability-hub/gitsync/internal/unit"
	"observability-hub/lib/sysexits"
)

// Reasons why a host does not get a unit of the commit.
const (
	notInstalledHere   = "not-installed-here"
	masked             = "masked"
	noQuadletGenerator = "no-quadlet-generator"
)

// forHost returns what one host gets of the commit. It leaves out the units that
// the administrator masked, the units whose program is not installed, and the
// units and drop-ins that only start or change those. loaded has the units that a
// running systemd knows, with or without a file.
func (w *want) forHost(a *after, loaded map[string]unitState) (*want, error) {
	skip := map[string]string{} // by unit
	quadlets := map[string]string{}
	generator := a.host.hasQuadletGenerator()
	for _, f := range w.files {
		switch {
		case unit.Quadlet(f.unit) || placeOf(f.unit) == quadletDir:
			quadlets[a.service(f.unit)] = f.unit
			if f.unit != "" && !generator {
				skip[f.unit] = noQuadletGenerator
			}
		case !f.isUnit():
		case a.maskedByAdmin(f.unit):
			skip[f.unit] = masked
		default:
			u := w.unit(a, f)
			for _, program := range u.Programs() {
				if !a.executable(u, program) {
					skip[f.unit] = notInstalledHere
				}
			}
		}
	}
	// Skip the units that start skipped units, and the units that start those.
	for again := true; again; {
		again = false
		for _, f := range w.files {
			if !f.isUnit() || skip[f.unit] != "" {
				continue
			}
			reason, err := w.skipTrigger(a, f, skip, quadlets, loaded)
			if err != nil {
				return nil, err
			}
			if reason != "" {
				skip[f.unit], again = reason, true
			}
		}
	}
	out := &want{commit: w.commit, skipped: w.skipped, rules: w.rules}
	for _, f := range w.files {
		switch {
		case skip[f.unit] == "":
			out.files = append(out.files, f)
		case f.isMain():
			out.skipped = append(out.skipped, skippedFile{f.unit, f.path, skip[f.unit]})
		}
	}
	return out, nil
}

// unit returns a unit as the host will have it. If the host keeps a foreign file
// in its place, it returns the unit as the commit has it.
func (w *want) unit(a *after, f *wantedFile) *unit.Unit {
	if a.left[f.path] {
		return unit.Parse(f.unit, f.content)
	}
	return a.unit(f.unit)
}

// skipTrigger returns why a host does not get a unit that starts another unit. The
// reason is empty if the host gets the unit, or if it starts no other unit.
func (w *want) skipTrigger(a *after, f *wantedFile, skip, quadlets map[string]string, loaded map[string]unitState) (string, error) {
	for _, started := range w.unit(a, f).Triggers() {
		template, isInstance := unit.Template(started)
		where, isMasked := a.find(started)
		alias := ""
		if where == "" {
			alias = w.aliased(a, started)
		}
		for _, name := range []string{started, template, quadlets[started], alias} {
			if reason := skip[name]; reason != "" && (name != template || isInstance) {
				return reason, nil
			}
		}
		switch state, known := loaded[started]; {
		case isMasked:
			return masked, nil
		case where != "" || quadlets[started] != "" || alias != "":
		case known && state.load != "not-found": // devices, slices and mounts have no files
		case strings.HasSuffix(started, ".slice") || strings.HasSuffix(started, ".device"):
		case a.host.offline() && a.willGenerate(started):
		default:
			return "", sysexits.New(sysexits.DataErr, "commit_refused",
				fmt.Errorf("%q: it starts %s, which is neither in the repository nor on this host", f.source, started)).
				WithHint("add the unit that it starts to the repository, or remove the " + unit.Type(f.unit) + " unit; nothing was changed")
		}
	}
	return "", nil
}

// aliased returns the unit of the commit that declares a name as its alias, or "".
func (w *want) aliased(a *after, name string) string {
	for _, f := range w.files {
		if !f.isUnit() {
			continue
		}
		u := w.unit(a, f)
		for _, alias := range u.Words("Install", "Alias") {
			if alias, ok := u.Expand(alias); ok && alias == name {
				return f.unit
			}
		}
	}
	return ""
}

// willGenerate reports whether a generator will make the unit at the next boot:
// from an init script, from a line of fstab(5), or from a quadlet of the host. It
// is for a root without a running systemd, which would know.
func (a *after) willGenerate(name string) bool {
	stem := strings.TrimSuffix(name, "."+unit.Type(name))
	switch unit.Type(name) {
	case "service":
		return a.host.executable("/etc/init.d/"+stem) || a.hostQuadlet(name)
	case "mount":
		for line := range strings.Lines(string(a.content("/etc/fstab"))) {
			if f := strings.Fields(line); len(f) >= 3 && !strings.HasPrefix(f[0], "#") && unit.MountName(f[1]) == name {
				return true
			}
		}
	}
	return false
}

// hostQuadlet reports whether podman's generator will make the service from a
// quadlet that the host will have.
func (a *after) hostQuadlet(service string) bool {
	if !a.host.hasQuadletGenerator() {
		return false
	}
	for _, dir := range []string{quadletDir, "/usr/share/containers/systemd"} {
		for name := range a.names(dir) {
			if unit.Quadlet(name) && unit.QuadletService(name, a.content(path.Join(dir, name))) == service {
				return true
			}
		}
	}
	return false
}

package main

import (
	"fmt"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
)

// presets are the rules by which systemd decides whether a unit is to be
// enabled (systemd.preset(5)). `systemctl preset` applies them; they are read
// here to know beforehand what it would do, and with presets that are not
// written yet.
type presets []presetRule

type presetRule struct {
	enable    bool
	pattern   string
	instances []string
}

// presetDirs in order of priority: a file hides those of its name further down.
var presetDirs = []string{"/etc/systemd/system-preset", "/run/systemd/system-preset", presetDir, "/usr/lib/systemd/system-preset", "/lib/systemd/system-preset"}

// readPresets reads the presets that the host has once d is there. gone are
// paths that will not be.
func readPresets(h host, d *desired, gone map[string]bool) (presets, error) {
	content := map[string][]byte{} // by file name
	for _, dir := range presetDirs {
		names := map[string]bool{}
		real, err := h.resolve(dir)
		if err != nil {
			return nil, err
		}
		entries, err := os.ReadDir(real)
		if err != nil && !os.IsNotExist(err) {
			return nil, fmt.Errorf("read presets: %w", err)
		}
		for _, e := range entries {
			names[e.Name()] = !gone[path.Join(dir, e.Name())]
		}
		for _, f := range d.files {
			if path.Dir(f.path) == dir {
				names[path.Base(f.path)] = true
			}
		}
		for name, there := range names {
			if _, hidden := content[name]; hidden || !there || !strings.HasSuffix(name, ".preset") {
				continue
			}
			p := path.Join(dir, name)
			if f := d.file(p); f != nil {
				content[name] = f.content
				continue
			}
			r, err := h.resolve(p)
			if err != nil {
				return nil, err
			}
			if content[name], err = os.ReadFile(r); err != nil && !os.IsNotExist(err) {
				return nil, fmt.Errorf("read presets: %w", err)
			}
		}
	}
	var all presets
	for _, name := range slices.Sorted(maps.Keys(content)) {
		all = append(all, parsePreset(content[name])...)
	}
	return all, nil
}

// parsePreset reads one preset file. systemd passes over lines that it does
// not know, and so does this.
func parsePreset(content []byte) presets {
	var all presets
	for line := range strings.Lines(string(content)) {
		words := strings.Fields(line)
		if len(words) < 2 || strings.HasPrefix(words[0], "#") || strings.HasPrefix(words[0], ";") {
			continue
		}
		if words[0] == "enable" || words[0] == "disable" {
			r := presetRule{enable: words[0] == "enable", pattern: words[1]}
			if r.enable {
				r.instances = words[2:]
			}
			all = append(all, r)
		}
	}
	return all
}

// enabled says what the presets want for a unit: the first rule that fits
// decides, and where none does systemd enables.
func (p presets) enabled(unit string) bool {
	for _, r := range p {
		if r.fits(unit) {
			return r.enable
		}
	}
	return true
}

// instances returns the instances of a template that the presets enable.
func (p presets) instances(name string) []string {
	for _, r := range p {
		if !r.fits(name) {
			continue
		}
		var all []string
		for _, i := range r.instances {
			all = append(all, strings.Replace(name, "@.", "@"+i+".", 1))
		}
		return all
	}
	return nil
}

// fits reports whether the rule's pattern fits the unit: fnmatch(3) with
// FNM_NOESCAPE. A rule with instances fits its template only.
func (r presetRule) fits(unit string) bool {
	if len(r.instances) > 0 && !isTemplate(unit) {
		return false
	}
	pattern := strings.ReplaceAll(strings.ReplaceAll(r.pattern, `\`, `\\`), "[!", "[^")
	ok, err := path.Match(pattern, unit)
	return ok && err == nil
}

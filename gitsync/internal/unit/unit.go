// Package unit reads unit files as systemd does, as far as gitsync must know
// them before systemd has them: names, drop-ins, settings, specifiers, the
// programs that a unit needs and the units that it starts. It also reads the
// complaints of systemd-analyze verify. It reads no files and asks no host.
//
// The rules are those of systemd.syntax(7), systemd.unit(5), systemd.service(5)
// and podman-systemd.unit(5), and where these are silent those of the source of
// systemd 252 and 257.
package unit

import (
	"slices"
	"strings"
)

// Unit is a parsed unit with its drop-ins.
type Unit struct {
	Name string
	// Err is the fault at which systemd stops reading the main file and does
	// not load the unit: a line that is too long or not UTF-8, a broken section.
	Err      error
	settings []assignment
}

// Parse reads a unit file and its drop-ins, in the order in which they apply.
// The name may be that of an instance; the main file is then its template.
func Parse(name string, main []byte, dropIns ...[]byte) *Unit {
	u := &Unit{Name: name}
	u.settings, u.Err = parse(main)
	for _, content := range dropIns {
		more, _ := parse(content) // systemd keeps what comes before the fault
		u.settings = append(u.settings, more...)
	}
	return u
}

// assigned returns all values of a setting, the empty ones too.
func (u *Unit) assigned(section, key string) []string {
	var all []string
	for _, s := range u.settings {
		if s.section == section && s.key == key {
			all = append(all, s.value)
		}
	}
	return all
}

// Values returns the values of a setting. An empty one removes those before it.
func (u *Unit) Values(section, key string) []string {
	all := u.assigned(section, key)
	for i, value := range slices.Backward(all) {
		if value == "" {
			return all[i+1:]
		}
	}
	return all
}

// Words returns the words of a setting that is a list. Quotes are removed,
// backslashes kept: they belong to the names of units. A word whose quotes are
// not closed ends its line.
func (u *Unit) Words(section, key string) []string {
	var all []string
	for _, value := range u.Values(section, key) {
		for {
			word, rest, ok, err := cutWord(value, false)
			if !ok || err != nil {
				break
			}
			all, value = append(all, word), rest
		}
	}
	return all
}

// Last returns the value of a setting that has one.
func (u *Unit) Last(section, key string) string {
	if all := u.Values(section, key); len(all) > 0 {
		return all[len(all)-1]
	}
	return ""
}

// Bool reports whether a boolean setting is true. As in systemd, a value that
// is not a boolean, or empty, is ignored.
func (u *Unit) Bool(section, key string) bool {
	yes, _ := u.boolean(section, key)
	return yes
}

func (u *Unit) boolean(section, key string) (yes, set bool) {
	for _, value := range u.assigned(section, key) {
		if b, ok := boolean(value); ok {
			yes, set = b, true
		}
	}
	return yes, set
}

// Installable reports whether the unit declares in [Install] how it is enabled.
func (u *Unit) Installable() bool {
	return slices.ContainsFunc([]string{"WantedBy", "RequiredBy", "UpheldBy", "Alias", "Also", "DefaultInstance"},
		func(key string) bool { return len(u.Values("Install", key)) > 0 })
}

// own is the section of gitsync: systemd ignores sections that begin with X-.
const own = "X-Gitsync"

// Probe reports whether the unit asks to be started as a test of a deployment.
func (u *Unit) Probe() bool { return u.Bool(own, "Probe") }

// RestartNo reports whether a change must not restart the unit.
func (u *Unit) RestartNo() bool {
	yes, set := u.boolean(own, "Restart")
	return set && !yes
}

// RestartOnChange returns the files whose change restarts the unit: paths in
// the repository or, if absolute, on the host. Specifiers are expanded; a path
// with one that is not known here is left out.
func (u *Unit) RestartOnChange() []string { return u.expandAll(u.Words(own, "RestartOnChange")) }

func (u *Unit) expandAll(values []string) []string {
	var all []string
	for _, value := range values {
		if text, ok := u.Expand(value); ok && text != "" {
			all = append(all, text)
		}
	}
	return all
}

// Oneshot reports whether the unit is a service that systemd waits for: of
// Type=oneshot, or without a type and without ExecStart=.
func (u *Unit) Oneshot() bool {
	if Type(u.Name) != "service" {
		return false
	}
	kind := ""
	for _, value := range u.assigned("Service", "Type") {
		if slices.Contains([]string{"simple", "forking", "oneshot", "dbus", "notify", "notify-reload", "idle", "exec"}, value) {
			kind = value // systemd ignores others
		}
	}
	if kind == "" {
		return u.Last("Service", "BusName") == "" && len(u.commands()) == 0
	}
	return kind == "oneshot"
}

// RemainAfterExit reports whether the service is active after its program has
// ended.
func (u *Unit) RemainAfterExit() bool { return u.Bool("Service", "RemainAfterExit") }

// Triggers returns the units that a timer, socket, path or automount starts. Of
// a template it returns the triggered template, if that is known.
func (u *Unit) Triggers() []string {
	kind := Type(u.Name)
	section, related := "", "service"
	switch kind {
	case "timer":
		section = "Timer"
	case "path":
		section = "Path"
	case "socket":
		return u.socketTriggers()
	case "automount":
		related = "mount"
	default:
		return nil
	}
	values := u.assigned(section, "Unit") // nothing resets it, and the first counts
	for _, value := range values {
		name, ok := u.expandName(value)
		if !ok {
			return nil
		}
		if Known(name) && CheckName(name) == nil && name != u.Name {
			return []string{name}
		}
	}
	return []string{u.sibling(related)}
}

// sibling returns the unit of the same name and another type.
func (u *Unit) sibling(kind string) string {
	stem, _, _ := split(u.Name)
	return stem + "." + kind
}

func (u *Unit) socketTriggers() []string {
	accept := u.Bool("Socket", "Accept")
	service, known := "", true
	for _, value := range u.assigned("Socket", "Service") {
		name, ok := u.expandName(value)
		if known = ok; ok && Type(name) == "service" && CheckName(name) == nil {
			service = name
		}
	}
	switch {
	case !known:
		return nil
	case service != "":
		return []string{service}
	case !accept:
		return []string{u.sibling("service")}
	}
	prefix, _, _ := parts(u.Name)
	return []string{prefix + "@.service"}
}

// expandName expands the name of a unit. In a template job@%i.service stands
// for instances of job@.service, whichever they are.
func (u *Unit) expandName(value string) (string, bool) {
	if name, ok := u.Expand(value); ok {
		return name, true
	}
	if IsTemplate(u.Name) {
		if name := strings.Replace(value, "@%i.", "@.", 1); IsTemplate(name) {
			return u.Expand(name)
		}
	}
	return "", false
}

// Package unit parses unit files as systemd does. It knows what gitsync needs before
// systemd has read the units: names, drop-ins, settings, specifiers, the programs
// that a unit needs, and the units that it starts. It also parses the complaints of
// systemd-analyze verify. It does not access files or the host.
//
// The rules are those of systemd.syntax(7), systemd.unit(5), systemd.service(5) and
// podman-systemd.unit(5). What these do not define follows the source of systemd 252
// and 257.
package unit

import (
	"slices"
	"strings"
)

// Unit is a parsed unit with its drop-ins.
type Unit struct {
	Name string
	// Err is a fault in the main file at which systemd stops reading and does not
	// load the unit: a line that is too long or not UTF-8, or a bad section header.
	Err      error
	settings []assignment
}

// Parse parses a unit file and its drop-ins, which are in the order in which they
// apply. If the name is that of an instance, the main file may be its template.
func Parse(name string, main []byte, dropIns ...[]byte) *Unit {
	u := &Unit{Name: name}
	u.settings, u.Err = parse(main)
	for _, content := range dropIns {
		more, _ := parse(content) // systemd uses the assignments before a fault
		u.settings = append(u.settings, more...)
	}
	return u
}

// assigned returns all values of a setting, including empty values.
func (u *Unit) assigned(section, key string) []string {
	var all []string
	for _, s := range u.settings {
		if s.section == section && s.key == key {
			all = append(all, s.value)
		}
	}
	return all
}

// Values returns the values of a setting. An empty value removes those before it.
func (u *Unit) Values(section, key string) []string {
	all := u.assigned(section, key)
	for i, value := range slices.Backward(all) {
		if value == "" {
			return all[i+1:]
		}
	}
	return all
}

// Words returns the words of a setting that is a list. Quotes are removed.
// Backslashes are kept, because they are part of the names of units. At an unclosed
// quote, the rest of the line is ignored.
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

// Last returns the last value of a setting, which is the one that counts if the
// setting is not a list.
func (u *Unit) Last(section, key string) string {
	if all := u.Values(section, key); len(all) > 0 {
		return all[len(all)-1]
	}
	return ""
}

// Bool reports whether a boolean setting is true. As in systemd, a value that is
// empty or not a boolean is ignored.
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

// Installable reports whether the unit has an [Install] section that says how to
// enable it.
func (u *Unit) Installable() bool {
	return slices.ContainsFunc([]string{"WantedBy", "RequiredBy", "UpheldBy", "Alias", "Also", "DefaultInstance"},
		func(key string) bool { return len(u.Values("Install", key)) > 0 })
}

// own is the section for gitsync. systemd ignores sections that begin with X-.
const own = "X-Gitsync"

// Probe reports whether gitsync must start the unit to test a deployment.
func (u *Unit) Probe() bool { return u.Bool(own, "Probe") }

// RestartNo reports whether a change must not restart the unit (Restart=no).
func (u *Unit) RestartNo() bool {
	yes, set := u.boolean(own, "Restart")
	return set && !yes
}

// RestartOnChange returns the files whose change restarts the unit. A path is in the
// repository or, if it is absolute, on the host. Specifiers are expanded. It leaves
// out a path with a specifier that cannot be known.
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

// Oneshot reports whether the unit is a service with Type=oneshot, which systemd
// waits for. A service with neither Type= nor ExecStart= has this type too.
func (u *Unit) Oneshot() bool {
	if Type(u.Name) != "service" {
		return false
	}
	kind := ""
	for _, value := range u.assigned("Service", "Type") {
		if slices.Contains([]string{"simple", "forking", "oneshot", "dbus", "notify", "notify-reload", "idle", "exec"}, value) {
			kind = value // systemd ignores other values
		}
	}
	if kind == "" {
		return u.Last("Service", "BusName") == "" && len(u.commands()) == 0
	}
	return kind == "oneshot"
}

// RemainAfterExit reports whether the service stays active after its program has
// exited.
func (u *Unit) RemainAfterExit() bool { return u.Bool("Service", "RemainAfterExit") }

// Triggers returns the units that a timer, socket, path or automount starts. For a
// template it returns the template that is started, if that can be known.
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
	values := u.assigned(section, "Unit") // an empty value resets nothing, and the first valid value counts
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

// sibling returns the unit with the same name and another type.
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

// expandName expands the name of a unit. In a template, job@%i.service can be any
// instance of job@.service, so it returns that template.
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

package main

import (
	"path"
	"slices"
	"strings"
)

// unitTypes are the types that are deployed.
var unitTypes = []string{"service", "timer", "socket", "path", "target"}

// otherTypes are the types of systemd that are not.
var otherTypes = []string{"mount", "automount", "swap", "slice", "scope", "device", "snapshot"}

// unitType returns the type of a unit name: its suffix.
func unitType(name string) string { return strings.TrimPrefix(path.Ext(name), ".") }

// activates reports whether a unit of this name waits and starts another: these
// are what must run for a deployment to do anything.
func activates(unit string) bool {
	return slices.Contains([]string{"timer", "socket", "path"}, unitType(unit))
}

// template returns the template of an instance: a@b.service is one of
// a@.service. ok is false for a unit that is no instance.
func template(unit string) (name string, ok bool) {
	prefix, rest, found := strings.Cut(strings.TrimSuffix(unit, path.Ext(unit)), "@")
	return prefix + "@" + path.Ext(unit), found && rest != ""
}

func isTemplate(unit string) bool {
	return strings.HasSuffix(strings.TrimSuffix(unit, path.Ext(unit)), "@")
}

// setting is one assignment of a unit file.
type setting struct{ section, key, value string }

// unitFile is a parsed unit file: systemd.syntax(7), as far as gitsync needs it.
type unitFile []setting

// parseUnit reads a unit file. Lines that are no assignment are left to
// systemd-analyze verify to complain about.
func parseUnit(content []byte) unitFile {
	var u unitFile
	section, joined := "", ""
	for line := range strings.Lines(string(content)) {
		line = strings.TrimRight(line, "\r\n")
		trimmed := strings.TrimSpace(line)
		comment := strings.HasPrefix(trimmed, "#") || strings.HasPrefix(trimmed, ";")
		if comment || trimmed == "" && joined == "" {
			continue // a comment does not end a continued line
		}
		if head, ok := strings.CutSuffix(line, `\`); ok {
			joined += head + " "
			continue
		}
		trimmed, joined = strings.TrimSpace(joined+line), ""
		if strings.HasPrefix(trimmed, "[") && strings.HasSuffix(trimmed, "]") {
			section = trimmed[1 : len(trimmed)-1]
			continue
		}
		if key, value, ok := strings.Cut(trimmed, "="); ok {
			u = append(u, setting{section, strings.TrimSpace(key), strings.TrimSpace(value)})
		}
	}
	return u
}

// values returns the values of a setting; an empty one resets those before it.
func (u unitFile) values(section, key string) []string {
	var all []string
	for _, s := range u {
		if s.section != section || s.key != key {
			continue
		}
		if s.value == "" {
			all = nil
		} else {
			all = append(all, s.value)
		}
	}
	return all
}

// words is values for settings that are lists of words.
func (u unitFile) words(section, key string) []string {
	return strings.Fields(strings.Join(u.values(section, key), " "))
}

// last returns the value that counts of a setting with one.
func (u unitFile) last(section, key string) string {
	if all := u.values(section, key); len(all) > 0 {
		return all[len(all)-1]
	}
	return ""
}

// yes reports whether a setting is a true boolean.
func (u unitFile) yes(section, key string) bool {
	return slices.Contains([]string{"1", "yes", "y", "true", "t", "on"}, strings.ToLower(u.last(section, key)))
}

// executables returns the programs that ExecStart= names and without which the
// unit cannot start. What a specifier or quotes make of a name is not known
// here, and a "-" says that a failure does not matter.
func (u unitFile) executables() []string {
	var all []string
	for _, value := range u.values("Service", "ExecStart") {
		if flags, name := execCommand(value); name != "" && !strings.Contains(flags, "-") {
			all = append(all, name)
		}
	}
	return all
}

// execFlags may stand before the program (systemd.service(5), "Command lines").
const execFlags = "@-:+!|"

// execCommand splits the value of an Exec setting into flags and program. The
// name is empty if it is not literal.
func execCommand(value string) (flags, name string) {
	name = strings.TrimLeft(value, execFlags)
	flags = value[:len(value)-len(name)]
	name, _, _ = strings.Cut(name, " ")
	if strings.ContainsAny(name, `"'\%$`+"\t") || name == ";" {
		return flags, ""
	}
	return flags, name
}

// replaceExecutables returns a unit file in which each program of an Exec
// setting for which known is true is another one, which is there: for a check
// of the unit on a host where the programs come later.
func replaceExecutables(content []byte, other string, known func(name string) bool) []byte {
	var out strings.Builder
	for line := range strings.Lines(string(content)) {
		key, value, ok := strings.Cut(line, "=")
		if ok && strings.HasPrefix(strings.TrimSpace(key), "Exec") {
			text := strings.TrimLeft(value, " \t")
			if flags, name := execCommand(strings.TrimRight(text, "\r\n")); name != "" && known(name) {
				line = key + "=" + flags + other + text[len(flags)+len(name):]
			}
		}
		out.WriteString(line)
	}
	return []byte(out.String())
}

// triggered returns the unit that a timer, socket or path unit starts.
func (u unitFile) triggered(unit string) string {
	kind := unitType(unit)
	section, key := strings.ToUpper(kind[:1])+kind[1:], "Unit"
	if kind == "socket" {
		key = "Service"
	}
	if name := u.last(section, key); name != "" {
		return name
	}
	base := strings.TrimSuffix(unit, path.Ext(unit))
	if kind == "socket" && u.yes(section, "Accept") {
		base += "@"
	}
	return base + ".service"
}

// links returns the links, as host paths, that enabling the unit makes. A unit
// without any cannot be enabled.
func (u unitFile) links(unit string) []string {
	var all []string
	for key, suffix := range map[string]string{"WantedBy": ".wants", "RequiredBy": ".requires", "UpheldBy": ".upholds"} {
		for _, by := range u.words("Install", key) {
			all = append(all, path.Join(unitDir, by+suffix, unit))
		}
	}
	for _, alias := range u.words("Install", "Alias") {
		if alias != unit {
			all = append(all, path.Join(unitDir, alias))
		}
	}
	slices.Sort(all)
	return all
}

// badInstall says what systemctl would not take in the [Install] section;
// empty if nothing is known against it. systemd-analyze verify does not look.
func (u unitFile) badInstall(unit string) string {
	for _, key := range []string{"WantedBy", "RequiredBy", "UpheldBy", "Alias", "Also"} {
		for _, name := range u.words("Install", key) {
			kind, literal := unitType(name), !strings.Contains(name, "%") // a specifier can be the type, too
			switch {
			case !plainUnit(name), literal && !slices.Contains(unitTypes, kind) && !slices.Contains(otherTypes, kind):
				return key + "=" + name + ": not a name of a unit"
			case key == "Alias" && literal && kind != unitType(unit):
				return key + "=" + name + ": not of the unit's type"
			}
		}
	}
	return ""
}

// plainUnit reports whether a name has only the characters that systemd.unit(5)
// allows in names of units and in specifiers.
func plainUnit(name string) bool {
	return strings.IndexFunc(name, func(c rune) bool {
		return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && !strings.ContainsRune(`:-_.@\%`, c)
	}) < 0
}

// probe reports whether the unit asks to be started as a test of a deployment.
// systemd ignores sections whose names begin with X-.
func (u unitFile) probe() bool { return u.yes("X-Gitsync", "Probe") }

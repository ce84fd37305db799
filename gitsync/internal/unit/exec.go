package unit

import (
	"path"
	"slices"
	"strings"
)

// Programs returns the programs of ExecStart= without which the service cannot
// start: absolute paths or bare names. It leaves out those with the prefix "-",
// whose failure does not matter, and those whose name is not known here, such
// as that of a template with %i. Units of other types have none.
func (u *Unit) Programs() []string {
	var all []string
	for _, c := range u.commands() {
		if c.program != "" && !c.mayFail && !slices.Contains(all, c.program) {
			all = append(all, c.program)
		}
	}
	return all
}

// AllPrograms returns the programs of ExecStart= as Programs does, also those
// that may be missing.
func (u *Unit) AllPrograms() []string {
	var all []string
	for _, c := range u.commands() {
		if c.program != "" && !slices.Contains(all, c.program) {
			all = append(all, c.program)
		}
	}
	return all
}

// RootDirectory returns the directory in which the service looks for its
// program; empty for the host's own root. known is false if its name is not
// known here, or if the root is an image.
func (u *Unit) RootDirectory() (dir string, known bool) {
	if u.Last("Service", "RootImage") != "" {
		return "", false
	}
	dir, known = u.Expand(strings.TrimPrefix(u.Last("Service", "RootDirectory"), "-"))
	if path.Clean(dir) == "/" || !path.IsAbs(dir) {
		dir = ""
	}
	return dir, known
}

// BringsFiles reports whether the service itself mounts something over the
// place of a program, so that it does not depend on the host's own file
// (systemd.exec(5)).
func (u *Unit) BringsFiles(program string) bool {
	if u.Last("Service", "ExtensionImages") != "" || u.Last("Service", "ExtensionDirectories") != "" {
		return true
	}
	for _, key := range []string{"BindPaths", "BindReadOnlyPaths", "MountImages"} {
		for _, word := range u.Words("Service", key) {
			parts := strings.Split(word, ":") // SOURCE:DESTINATION:OPTIONS
			if len(parts) == 1 {
				continue // the host's own files, in their own place
			}
			point, known := u.Expand(parts[1])
			if known && path.IsAbs(point) && strings.HasPrefix(program+"/", strings.TrimSuffix(path.Clean(point), "/")+"/") {
				return true
			}
		}
	}
	return false
}

// command is one command of ExecStart=. The program is empty if its name is not
// known here.
type command struct {
	program string
	mayFail bool
}

func (u *Unit) commands() []command {
	if Type(u.Name) != "service" {
		return nil
	}
	var all []command
	for _, value := range u.Values("Service", "ExecStart") {
		all = append(all, u.commandLines(value)...)
	}
	return all
}

// commandLines returns the commands of one value of an Exec setting
// (systemd.service(5), "Command lines"). A lone ";" parts two commands.
// systemd refuses a unit with a faulty command; it is left out here.
func (u *Unit) commandLines(value string) []command {
	var all []command
	for {
		word, rest, ok, err := cutWord(value, true)
		if !ok || err != nil {
			return all
		}
		value = rest
		if word == ";" {
			continue
		}
		flags, name := cutFlags(word)
		arguments, more := 0, false
		for value != "" && !more {
			if _, next, found := cutSemicolon(value); found {
				value, more = next, true
				continue
			}
			if _, value, _, err = cutWord(value, true); err != nil {
				return all
			}
			arguments++
		}
		c := command{mayFail: strings.Contains(flags, "-")}
		program, known := u.Expand(name)
		switch {
		case !known:
			all = append(all, c)
		case validProgram(program) && (arguments > 0 || !strings.Contains(flags, "@")):
			c.program = simplify(program)
			all = append(all, c)
		}
		if !more {
			return all
		}
	}
}

// cutSemicolon cuts an unquoted ";" that stands alone off the beginning.
func cutSemicolon(text string) (before, after string, found bool) {
	if rest, ok := strings.CutPrefix(text, ";"); ok && (rest == "" || strings.IndexByte(whitespace, rest[0]) >= 0) {
		return "", strings.TrimLeft(rest, whitespace), true
	}
	return text, "", false
}

// cutFlags parts the prefixes of a command from its program. Each may stand
// there once, and of "+", "!" and "!!" one.
func cutFlags(word string) (flags, program string) {
	for i, c := range word {
		flags = word[:i]
		privileges := strings.ContainsAny(flags, "+!")
		switch {
		case strings.ContainsRune("-@:|", c) && !strings.ContainsRune(flags, c):
		case c == '+' && !privileges:
		case c == '!' && (!privileges || !strings.Contains(flags, "+") && strings.Count(flags, "!") == 1):
		default:
			return flags, word[i:]
		}
	}
	return word, ""
}

// validProgram reports whether systemd takes a path or name for a program.
func validProgram(program string) bool {
	if program == "" || len(program) > 4095 || strings.HasSuffix(program, "/") {
		return false
	}
	if strings.ContainsFunc(program, func(c rune) bool { return c < ' ' || c == 0x7f || strings.ContainsRune(`"'\`, c) }) {
		return false
	}
	if program[0] == '/' {
		return !slices.ContainsFunc(strings.Split(program, "/"), func(part string) bool { return len(part) > 255 })
	}
	return len(program) <= 255 && program != "." && program != ".." && !strings.Contains(program, "/")
}

// simplify removes empty parts and "." of a path, but leaves "..", which can
// lead elsewhere over a symlink.
func simplify(program string) string {
	if !path.IsAbs(program) {
		return program
	}
	parts := slices.DeleteFunc(strings.Split(program, "/"), func(part string) bool { return part == "" || part == "." })
	return "/" + strings.Join(parts, "/")
}

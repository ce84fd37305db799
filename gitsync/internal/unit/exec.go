package unit

import (
	"path"
	"slices"
	"strings"
)

// Programs returns the programs of ExecStart= without which the service cannot
// start. They are absolute paths, or names without a slash. It leaves out programs
// with the prefix "-", which may fail, and programs whose name cannot be known, such
// as one with %i in a template. Units of other types have no programs.
func (u *Unit) Programs() []string {
	var all []string
	for _, c := range u.commands() {
		if c.program != "" && !c.mayFail && !slices.Contains(all, c.program) {
			all = append(all, c.program)
		}
	}
	return all
}

// AllPrograms is like Programs, but includes programs with the prefix "-".
func (u *Unit) AllPrograms() []string {
	var all []string
	for _, c := range u.commands() {
		if c.program != "" && !slices.Contains(all, c.program) {
			all = append(all, c.program)
		}
	}
	return all
}

// RootDirectory returns the directory that the service has as its root. It is empty
// for the host's own root. known is false if the name of the directory cannot be
// known, or if the root is an image.
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

// BringsFiles reports whether the service itself mounts something over the path of a
// program (systemd.exec(5)). Then it does not need the host's file at that path.
func (u *Unit) BringsFiles(program string) bool {
	if u.Last("Service", "ExtensionImages") != "" || u.Last("Service", "ExtensionDirectories") != "" {
		return true
	}
	for _, key := range []string{"BindPaths", "BindReadOnlyPaths", "MountImages"} {
		for _, word := range u.Words("Service", key) {
			parts := strings.Split(word, ":") // SOURCE:DESTINATION:OPTIONS
			if len(parts) == 1 {
				continue // the host's own files, at the same path
			}
			point, known := u.Expand(parts[1])
			if known && path.IsAbs(point) && strings.HasPrefix(program+"/", strings.TrimSuffix(path.Clean(point), "/")+"/") {
				return true
			}
		}
	}
	return false
}

// command is one command of ExecStart=. The program is empty if its name cannot be
// known.
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
// (systemd.service(5), "Command lines"). A ";" that stands alone separates two
// commands. It leaves out a faulty command, for which systemd refuses the unit.
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

// cutSemicolon removes an unquoted ";" that stands alone at the beginning.
func cutSemicolon(text string) (before, after string, found bool) {
	if rest, ok := strings.CutPrefix(text, ";"); ok && (rest == "" || strings.IndexByte(whitespace, rest[0]) >= 0) {
		return "", strings.TrimLeft(rest, whitespace), true
	}
	return text, "", false
}

// cutFlags separates the prefixes of a command from its program. Each prefix may
// appear once. Only one of "+", "!" and "!!" may appear.
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

// validProgram reports whether systemd accepts a path or name as a program.
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

// simplify removes empty components and "." from a path. It keeps "..", which can
// lead to another directory after a symbolic link.
func simplify(program string) string {
	if !path.IsAbs(program) {
		return program
	}
	parts := slices.DeleteFunc(strings.Split(program, "/"), func(part string) bool { return part == "" || part == "." })
	return "/" + strings.Join(parts, "/")
}

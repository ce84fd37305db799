package unit

import (
	"path"
	"strconv"
	"strings"
)

// Complaint is one line of systemd-analyze verify. File and Line are set if it names
// a line of a file. Unit is set if it names a unit, or the file or a drop-in of a
// unit. Text is the rest of the line.
type Complaint struct {
	File string
	Line int
	Unit string
	Text string
}

// ParseVerify parses the messages of systemd-analyze verify, one a line. A message
// has one of the forms "FILE:LINE: text", "UNIT: text" and "text".
func ParseVerify(output string) []Complaint {
	var all []Complaint
	for line := range strings.Lines(output) {
		if line = strings.TrimSpace(line); line != "" {
			all = append(all, parseComplaint(line))
		}
	}
	return all
}

func parseComplaint(line string) Complaint {
	for i := 0; i < len(line); {
		end := strings.Index(line[i:], ": ")
		if end < 0 {
			break
		}
		head, text := line[:i+end], strings.TrimSpace(line[i+end+2:])
		if CheckName(head) == nil {
			return Complaint{Unit: head, Text: text}
		}
		if colon := strings.LastIndexByte(head, ':'); colon > 0 {
			if number, err := strconv.Atoi(head[colon+1:]); err == nil && number >= 0 {
				return Complaint{File: head[:colon], Line: number, Unit: unitOf(head[:colon]), Text: text}
			}
		}
		i += end + 2
	}
	c := Complaint{Text: line}
	if _, rest, ok := strings.Cut(line, "onfiguration file /"); ok { // a complaint about the mode of a file
		if file, _, ok := strings.Cut(rest, " is "); ok {
			c.File, c.Unit = "/"+file, unitOf("/"+file)
		}
	} else if name, _, _ := strings.Cut(strings.TrimPrefix(line, "Unit "), " "); CheckName(name) == nil {
		c.Unit = name // Unit a.service not found.
	} else if rest, ok := strings.CutPrefix(line, "Failed to load unit "); ok { // NAME or "file PATH"
		name, _, _ := strings.Cut(strings.TrimPrefix(rest, "file "), ": ")
		c.Unit = unitOf(name)
	}
	return c
}

// unitOf returns the unit to which a file or drop-in belongs, or "".
func unitOf(file string) string {
	name := path.Base(file)
	if strings.HasSuffix(name, ".conf") {
		name = strings.TrimSuffix(path.Base(path.Dir(file)), ".d")
	}
	if CheckName(name) != nil {
		return ""
	}
	return name
}

// Fatal reports whether a complaint is about a fault: a setting that systemd ignores,
// a unit that it does not load, or a program that it cannot run. Remarks about
// deprecated settings, which work or are known to do nothing, and about the modes of
// files are not fatal.
func Fatal(c Complaint) bool {
	text := strings.ToLower(c.Text)
	for _, remark := range []string{
		"deprecated", "obsolete", "legacy directory", "please use ", "will be removed soon", "unit uses killmode=none",
		"support for option ", "proceeding anyway", "assuming the prefix length", "special user nobody configured",
	} {
		if strings.Contains(text, remark) {
			return false
		}
	}
	for _, fault := range []string{
		"ignoring", "invalid", "bad ", "bad-setting", "failed to ", "unbalanced", "neither ", "cannot ", "can't ", "refusing",
		"not found", "not executable", "not valid", "not loaded", "missing", "empty ", "too long", "fatal error",
		"special characters", "specifies a directory", "masked", "lacks ", "not allowed",
	} {
		if strings.Contains(text, fault) {
			return true
		}
	}
	return false
}

// MissingProgram returns the program in a complaint that a command is not executable.
// ok is false for other complaints.
func MissingProgram(c Complaint) (program string, ok bool) {
	rest, ok := strings.CutPrefix(c.Text, "Command ")
	if !ok {
		return "", false
	}
	end := strings.LastIndex(rest, " is not executable")
	if end < 0 {
		return "", false
	}
	return rest[:end], true
}

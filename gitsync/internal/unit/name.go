package unit

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
)

// maxName is the maximum length of the name of a unit, in bytes.
const maxName = 255

// Types returns the unit types that gitsync deploys.
func Types() []string {
	return []string{"service", "timer", "socket", "path", "target", "mount", "automount", "slice", "swap"}
}

// split splits a name at its last dot. ok is false if there is no dot.
func split(name string) (stem, suffix string, ok bool) {
	dot := strings.LastIndexByte(name, '.')
	if dot < 0 {
		return name, "", false
	}
	return name[:dot], name[dot+1:], true
}

// Type returns the type of a unit: "service" for "a@b.service". It returns "" if the
// name has no suffix.
func Type(name string) string {
	_, suffix, _ := split(name)
	return suffix
}

// Deployed reports whether gitsync deploys units of the type of this name.
func Deployed(name string) bool { return slices.Contains(Types(), Type(name)) }

// Known reports whether systemd has units of the type of this name.
func Known(name string) bool { return knownType(Type(name)) }

func knownType(kind string) bool {
	return kind == "device" || kind == "scope" || slices.Contains(Types(), kind)
}

// CheckName returns nil if systemd loads units of this name, and otherwise why not
// (systemd.unit(5)). A name may have more than one "@". The first ends the prefix,
// and the others belong to the instance.
func CheckName(name string) error {
	stem, suffix, ok := split(name)
	switch {
	case name == "":
		return errors.New("the name of the unit is empty")
	case len(name) > maxName:
		return fmt.Errorf("the name of the unit has %d bytes, systemd allows %d", len(name), maxName)
	case !ok || suffix == "":
		return fmt.Errorf("unit %q has no suffix such as .service", name)
	case !knownType(suffix):
		return fmt.Errorf("unit %q: systemd has no unit type %q", name, suffix)
	case stem == "":
		return fmt.Errorf("unit %q has only a suffix", name)
	case stem[0] == '@':
		return fmt.Errorf("unit %q has nothing before the @", name)
	}
	if bad := strings.IndexFunc(stem, func(c rune) bool { return c != '@' && !nameChar(c) }); bad >= 0 {
		for _, c := range stem[bad:] {
			return fmt.Errorf("unit %q: systemd does not allow %q in a name, only ASCII letters, digits and :-_.\\@ (see systemd-escape)", name, c)
		}
	}
	return nil
}

// nameChar reports whether systemd allows a character in the prefix of a name.
func nameChar(c rune) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.ContainsRune(`:-_.\`, c)
}

// parts returns the prefix and the instance of a name, and whether it has an "@".
func parts(name string) (prefix, instance string, at bool) {
	stem, _, _ := split(name)
	return strings.Cut(stem, "@")
}

// IsTemplate reports whether the name is that of a template: "a@.service".
func IsTemplate(name string) bool {
	_, instance, at := parts(name)
	return at && instance == ""
}

// Template returns the template of an instance: "a@.service" for "a@b.service". ok
// is false if the name is not that of an instance.
func Template(name string) (template string, ok bool) {
	prefix, instance, _ := parts(name)
	if instance == "" {
		return "", false
	}
	return prefix + "@." + Type(name), true
}

// Instance returns the instance in a name: "b" for "a@b.service". It returns "" if
// the name is not that of an instance.
func Instance(name string) string {
	_, instance, _ := parts(name)
	return instance
}

// Instantiate returns an instance of a template: "a@b.service" for "a@.service" and
// "b". A name that is not that of a template is returned unchanged.
func Instantiate(template, instance string) string {
	if !IsTemplate(template) {
		return template
	}
	stem, suffix, _ := split(template)
	return stem + instance + "." + suffix
}

// unescape reverses systemd-escape: "-" becomes "/", and `\x2d` becomes "-". ok is
// false if the text has another kind of escape.
func unescape(text string) (plain string, ok bool) {
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '-':
			b.WriteByte('/')
		case '\\':
			if i+3 >= len(text) || text[i+1] != 'x' {
				return "", false
			}
			high, low := hex(text[i+2]), hex(text[i+3])
			if high < 0 || low < 0 {
				return "", false
			}
			b.WriteByte(byte(high<<4 | low))
			i += 3
		default:
			b.WriteByte(text[i])
		}
	}
	return b.String(), true
}

// unescapePath is unescape for the path of a mount: "var-lib" becomes "/var/lib".
func unescapePath(text string) (path string, ok bool) {
	if text == "-" {
		return "/", true
	}
	plain, ok := unescape(text)
	if !ok {
		return "", false
	}
	for part := range strings.SplitSeq(plain, "/") {
		if part == "" || part == "." || part == ".." {
			return "", false
		}
	}
	return "/" + plain, true
}

// MountName returns the mount unit of a mount point: "var-lib.mount" for "/var/lib".
// The mount point is in the format of fstab(5), which writes whitespace as octal
// escapes. It returns "" if the mount point is not an absolute path.
func MountName(point string) string {
	point = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(point)
	if !path.IsAbs(point) {
		return ""
	}
	point = strings.TrimPrefix(path.Clean(point), "/")
	if point == "" {
		return "-.mount"
	}
	var b strings.Builder
	for i := 0; i < len(point); i++ {
		switch c := point[i]; {
		case c == '/':
			b.WriteByte('-')
		case c == '.' && i == 0 || c == '-' || c == '\\' || c == '@' || !nameChar(rune(c)):
			fmt.Fprintf(&b, `\x%02x`, c)
		default:
			b.WriteByte(c)
		}
	}
	return b.String() + ".mount"
}

// hex returns the value of a hexadecimal digit, or -1.
func hex(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'a' && c <= 'f':
		return int(c-'a') + 10
	case c >= 'A' && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

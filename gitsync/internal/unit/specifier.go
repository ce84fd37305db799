package unit

import "strings"

// Expand expands the specifiers of a value (systemd.unit(5), "Specifiers") for the
// system's service manager. ok is false if a specifier cannot be known here, such as
// the host's name or the instance of a template, or if systemd does not have it.
func (u *Unit) Expand(value string) (text string, ok bool) {
	var b strings.Builder
	for i := 0; i < len(value); i++ {
		if value[i] != '%' || i+1 == len(value) {
			b.WriteByte(value[i])
			continue
		}
		i++
		c := value[i]
		if !(c == '%' || c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z') {
			b.WriteString(value[i-1 : i+1]) // not a specifier: systemd keeps both characters
			continue
		}
		text, ok := u.specifier(c)
		if !ok {
			return "", false
		}
		b.WriteString(text)
	}
	return b.String(), true
}

func (u *Unit) specifier(c byte) (text string, ok bool) {
	stem, _, _ := split(u.Name)
	prefix, instance, _ := parts(u.Name)
	last := prefix[strings.LastIndexByte(prefix, '-')+1:]
	switch c {
	case '%':
		return "%", true
	case 'p':
		return prefix, true
	case 'P':
		return unescape(prefix)
	case 'j':
		return last, true
	case 'J':
		return unescape(last)
	case 'C':
		return "/var/cache", true
	case 'E':
		return "/etc", true
	case 'L':
		return "/var/log", true
	case 'S':
		return "/var/lib", true
	case 't':
		return "/run", true
	case 'T':
		return "/tmp", true
	case 'V':
		return "/var/tmp", true
	case 'h': // of the user of the service manager, whatever User= says
		return "/root", true
	case 'u', 'g':
		return "root", true
	case 'U', 'G':
		return "0", true
	}
	if IsTemplate(u.Name) {
		return "", false
	}
	switch c {
	case 'n':
		return u.Name, true
	case 'N':
		return stem, true
	case 'i':
		return instance, true
	case 'I':
		return unescape(instance)
	case 'f':
		if instance == "" {
			return unescapePath(prefix)
		}
		return unescapePath(instance)
	case 'd':
		return "/run/credentials/" + u.Name, true
	}
	return "", false
}

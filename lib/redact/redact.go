// Package redact takes secrets out of text before it is shown.
package redact

import "strings"

const mask = "xxxxx"

// Text returns s with the password of every URL (scheme://user:password@host)
// and of every libpq keyword (password=…, sslpassword=…) replaced by xxxxx. It
// needs no well-formed URL: it is meant for error messages that quote one.
func Text(s string) string {
	return keywords(urls(s))
}

// urls masks userinfo passwords. The userinfo ends at the last @ before a
// space or quote, so that a password with a stray @, / or : is masked whole.
func urls(s string) string {
	var out strings.Builder
	for {
		i := strings.Index(s, "://")
		if i < 0 {
			break
		}
		i += len("://")
		out.WriteString(s[:i])
		s = s[i:]
		end := strings.IndexAny(s, " \t\r\n\"'`")
		if end < 0 {
			end = len(s)
		}
		at := strings.LastIndexByte(s[:end], '@')
		if at < 0 {
			continue
		}
		user, _, hasPassword := strings.Cut(s[:at], ":")
		out.WriteString(user)
		if hasPassword {
			out.WriteString(":" + mask)
		}
		s = s[at:]
	}
	out.WriteString(s)
	return out.String()
}

// keywords masks password=value, value quoted or not, also as a URL parameter.
func keywords(s string) string {
	const key = "password="
	var out strings.Builder
	for {
		i := indexFold(s, key)
		if i < 0 {
			break
		}
		i += len(key)
		out.WriteString(s[:i])
		s = s[i:]
		if strings.HasPrefix(s, "'") {
			out.WriteString(mask)
			s = s[quoted(s):]
			continue
		}
		end := strings.IndexAny(s, " \t\r\n\"'`&")
		if end < 0 {
			end = len(s)
		}
		if end > 0 {
			out.WriteString(mask)
		}
		s = s[end:]
	}
	out.WriteString(s)
	return out.String()
}

// quoted returns the length of the quoted value that s begins with; backslash
// escapes as in libpq. An unterminated value ends with s.
func quoted(s string) int {
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '\'':
			return i + 1
		}
	}
	return len(s)
}

// indexFold is strings.Index without regard to ASCII case.
func indexFold(s, substr string) int {
	for i := 0; i+len(substr) <= len(s); i++ {
		if strings.EqualFold(s[i:i+len(substr)], substr) {
			return i
		}
	}
	return -1
}

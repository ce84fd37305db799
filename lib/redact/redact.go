// Package redact replaces secrets in text before it is shown.
package redact

import "strings"

const mask = "xxxxx"

// Text returns s with each password replaced by xxxxx: in URLs
// (scheme://user:password@host) and after libpq keywords (password=…,
// sslpassword=…). The URLs need not be well-formed, because error messages also
// quote bad URLs.
func Text(s string) string {
	return keywords(urls(s))
}

// urls masks the passwords of URLs. The user and password end at the last @ before
// a space or quote, so that a password with an @, / or : in it is masked
// completely.
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

// keywords masks the value of password=value. The value may be quoted, and may be
// a URL parameter.
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

// quoted returns the length of the quoted value at the start of s. A backslash
// escapes the next character, as in libpq. A value without a closing quote ends at
// the end of s.
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

// indexFold is [strings.Index] but ignores ASCII case.
func indexFold(s, substr string) int {
	for i := 0; i+len(substr) <= len(s); i++ {
		if strings.EqualFold(s[i:i+len(substr)], substr) {
			return i
		}
	}
	return -1
}

// Package copytext writes PostgreSQL's text format of COPY, and finds the line at which
// a COPY failed.
package copytext

import (
	"bytes"
	"strconv"
	"strings"
)

// Null is the text of a column that is NULL.
const Null = `\N`

// AppendJSON appends JSON. It escapes only backslashes, because valid JSON has no tabs
// and line breaks inside strings. The caller must remove them between tokens.
func AppendJSON(b, text []byte) []byte {
	for {
		i := bytes.IndexByte(text, '\\')
		if i < 0 {
			return append(b, text...)
		}
		b = append(append(b, text[:i]...), '\\', '\\')
		text = text[i+1:]
	}
}

// AppendText appends any text, with the escapes that COPY needs.
func AppendText(b, text []byte) []byte {
	for {
		i := bytes.IndexAny(text, "\\\t\n\r")
		if i < 0 {
			return append(b, text...)
		}
		b = append(b, text[:i]...)
		switch text[i] {
		case '\t':
			b = append(b, '\\', 't')
		case '\n':
			b = append(b, '\\', 'n')
		case '\r':
			b = append(b, '\\', 'r')
		default:
			b = append(b, '\\', '\\')
		}
		text = text[i+1:]
	}
}

// FailedLine returns the index of the line that an error's context names, such as "COPY
// readsync_staging, line 7, column payload". The first line has index 0. FailedLine
// returns -1 if the context names no line of a COPY into one of the tables, or a line
// beyond lines.
func FailedLine(where string, lines int, tables ...string) int {
	for _, table := range tables {
		_, rest, ok := strings.Cut(where, "COPY "+table+", line ")
		if !ok {
			continue
		}
		end := 0
		for end < len(rest) && rest[end] >= '0' && rest[end] <= '9' {
			end++
		}
		if n, err := strconv.Atoi(rest[:end]); err == nil && n >= 1 && n <= lines {
			return n - 1
		}
		return -1
	}
	return -1
}

// Package copytext writes the text format of PostgreSQL's COPY, and reads where a
// COPY failed.
package copytext

import (
	"bytes"
	"strconv"
	"strings"
)

// Null is a column that is NULL.
const Null = `\N`

// AppendJSON appends JSON, in whose strings nothing but the backslash means
// something to COPY; between them there must be no tab or line break.
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

// AppendText appends any text.
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

// FailedLine finds the line, counted from 0, that the context of an error names: "COPY
// readsync_staging, line 7, column payload". It is -1 if it names none of that many
// lines of a COPY into one of the tables.
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

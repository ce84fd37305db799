// Package record builds the JSON lines that the tools write. Each line is one
// object, in the envelope that every line of the toolkit has.
//
// The package appends to a byte slice and does not use reflection, because a tool
// that runs for three milliseconds each minute should not spend time on that.
package record

import (
	"math"
	"strconv"
	"time"
	"unicode/utf8"
)

// MaxLine is the maximum length of a line that a tool writes, in bytes, including
// its newline. journald splits longer lines (LineMax=48K).
const MaxLine = 48 << 10

// TimeFormat is the layout of every time that the toolkit writes: RFC 3339 with
// milliseconds, in UTC.
const TimeFormat = "2006-01-02T15:04:05.000Z"

// Levels of the envelope.
const (
	Debug = "DEBUG"
	Info  = "INFO"
	Warn  = "WARN"
	Error = "ERROR"
)

// Line is a JSON line under construction. The zero value is an empty line. [New]
// returns a line that begins with the envelope.
type Line struct {
	buf []byte
}

// New begins a line with the envelope: time, level, msg (a snake_case event)
// and service (the unit family).
func New(now time.Time, level, msg, service string) *Line {
	l := &Line{buf: make([]byte, 0, 2048)}
	l.buf = append(l.buf, `{"time":"`...)
	l.buf = now.UTC().AppendFormat(l.buf, TimeFormat)
	l.buf = append(l.buf, '"')
	l.String("level", level)
	l.String("msg", msg)
	l.String("service", service)
	return l
}

// Len returns the current length in bytes.
func (l *Line) Len() int { return len(l.buf) }

// Truncate removes everything that was added since Len returned n. n must have
// been a position between two fields of the object that is open now.
func (l *Line) Truncate(n int) { l.buf = l.buf[:n] }

// End closes the line's object and returns the bytes with their newline.
func (l *Line) End() []byte {
	l.buf = append(l.buf, '}', '\n')
	return l.buf
}

func (l *Line) comma() {
	if n := len(l.buf); n > 0 && l.buf[n-1] != '{' && l.buf[n-1] != '[' {
		l.buf = append(l.buf, ',')
	}
}

func (l *Line) key(k string) {
	l.comma()
	l.buf = AppendString(l.buf, k)
	l.buf = append(l.buf, ':')
}

// String adds a string field.
func (l *Line) String(k, v string) {
	l.key(k)
	l.buf = AppendString(l.buf, v)
}

// Int adds an integer field.
func (l *Line) Int(k string, v int64) {
	l.key(k)
	l.buf = strconv.AppendInt(l.buf, v, 10)
}

// Uint adds an unsigned integer field.
func (l *Line) Uint(k string, v uint64) {
	l.key(k)
	l.buf = strconv.AppendUint(l.buf, v, 10)
}

// Float adds a number, rounded to three decimals. NaN and the infinities become
// null, because JSON does not have them.
func (l *Line) Float(k string, v float64) {
	l.key(k)
	if math.IsNaN(v) || math.IsInf(v, 0) {
		l.buf = append(l.buf, "null"...)
		return
	}
	if r := math.Round(v * 1000); math.Abs(r) < 1<<53 {
		v = r / 1000
	}
	l.buf = strconv.AppendFloat(l.buf, v, 'f', -1, 64)
}

// Bool adds a boolean field.
func (l *Line) Bool(k string, v bool) {
	l.key(k)
	l.buf = strconv.AppendBool(l.buf, v)
}

// Null adds a null field.
func (l *Line) Null(k string) {
	l.key(k)
	l.buf = append(l.buf, "null"...)
}

// Raw adds a field whose value is JSON.
func (l *Line) Raw(k string, v []byte) {
	l.key(k)
	l.buf = append(l.buf, v...)
}

// Strings adds an array of strings. A nil slice becomes an empty array.
func (l *Line) Strings(k string, v []string) {
	l.key(k)
	l.buf = append(l.buf, '[')
	for _, s := range v {
		l.comma()
		l.buf = AppendString(l.buf, s)
	}
	l.buf = append(l.buf, ']')
}

// Object adds the field k as an object. It calls fill to add the object's fields.
func (l *Line) Object(k string, fill func()) {
	l.key(k)
	l.buf = append(l.buf, '{')
	fill()
	l.buf = append(l.buf, '}')
}

// AppendString appends s as a JSON string. Bytes that are not UTF-8 become
// U+FFFD, so that the result is always valid JSON.
func AppendString(b []byte, s string) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= utf8.RuneSelf {
			r, size := utf8.DecodeRuneInString(s[i:])
			if r == utf8.RuneError && size == 1 {
				b = append(b, s[start:i]...)
				b = append(b, `\ufffd`...)
				start = i + 1
			}
			i += size
			continue
		}
		if c >= ' ' && c != '"' && c != '\\' && c != 0x7f {
			i++
			continue
		}
		b = append(b, s[start:i]...)
		switch c {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\n':
			b = append(b, '\\', 'n')
		case '\t':
			b = append(b, '\\', 't')
		default:
			b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		}
		i++
		start = i
	}
	b = append(b, s[start:]...)
	return append(b, '"')
}

// Package diag writes diagnostics: what a tool has to say about its run, as
// opposed to the records that are its output.
//
// Diagnostics go to stderr. On a terminal they read
//
//	sysmetrics: error: open /var/lib/x: permission denied
//	sysmetrics: hint: run it as the user that owns the folder
//
// lower case, no full stop, and a hint proposes the next step. Anywhere else
// they are JSON lines in the toolkit's envelope (package record), with the
// journal's priority prefix when stderr is the journal. Passwords in URLs and
// libpq strings are masked here, once, for every message.
package diag

import (
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"observability-hub/lib/journal"
	"observability-hub/lib/record"
	"observability-hub/lib/redact"
	"observability-hub/lib/sysexits"
)

// maxText bounds one text field, so that no line exceeds record.MaxLine.
const maxText = 6 << 10

// Logger writes diagnostics of one tool to one stream.
type Logger struct {
	Name     string           // the command, for the terminal form
	Service  string           // the unit family, for the envelope
	Terminal bool             // write the terminal form
	Journal  bool             // prefix lines with the journal's priority
	Now      func() time.Time // the clock of the envelope
	W        io.Writer
}

// New returns a logger on stderr in the form that stderr wants.
func New(name, service string, stderr *os.File) *Logger {
	return &Logger{
		Name: name, Service: service, W: stderr, Now: time.Now,
		Terminal: IsTerminal(stderr), Journal: journal.Connected(stderr),
	}
}

// loggerKey is the key of a context's logger.
type loggerKey struct{}

// Into returns a context that carries the logger, for packages that have
// something to say and no command of their own.
func Into(ctx context.Context, l *Logger) context.Context {
	return context.WithValue(ctx, loggerKey{}, l)
}

// From returns the logger of a context, or one that drops everything.
func From(ctx context.Context) *Logger {
	if l, ok := ctx.Value(loggerKey{}).(*Logger); ok {
		return l
	}
	return &Logger{Now: time.Now, W: io.Discard}
}

// Field is one named value of a diagnostic: a string, int, int64 or bool.
type Field struct {
	Key   string
	Value any
}

// Warn reports what the administrator should know although the run goes on.
func (l *Logger) Warn(event, text string, fields ...Field) {
	l.write(record.Warn, event, text, "", fields)
}

// Debug reports detail; the terminal form leaves it out.
func (l *Logger) Debug(event, text string, fields ...Field) {
	if !l.Terminal {
		l.write(record.Debug, event, text, "", fields)
	}
}

// Error reports err with the event and hint that it carries, if it is a
// [sysexits.Error], else as "failed". Of errors that are joined, each is reported.
func (l *Logger) Error(err error) {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, err := range joined.Unwrap() {
			l.Error(err)
		}
		return
	}
	event, hint := "failed", ""
	if e, ok := errors.AsType[*sysexits.Error](err); ok {
		event, hint = e.Event, e.Hint
	}
	l.write(record.Error, event, err.Error(), hint, nil)
}

func (l *Logger) write(level, event, text, hint string, fields []Field) {
	text = clean(text) // a hint is a constant of the tool's, and may show a URL with a password in it
	if l.Terminal {
		word := map[string]string{record.Warn: "warning", record.Error: "error"}[level]
		out := l.Name + ": " + word + ": " + oneLine(text) + "\n"
		if hint != "" {
			out += l.Name + ": hint: " + oneLine(hint) + "\n"
		}
		io.WriteString(l.W, out) // nowhere is left to report a failing stderr
		return
	}
	line := record.New(l.Now(), level, event, l.Service)
	key := "detail"
	if level == record.Error {
		key = "error"
	}
	line.String(key, text)
	if hint != "" {
		line.String("hint", hint)
	}
	for _, f := range fields {
		switch v := f.Value.(type) {
		case string:
			line.String(f.Key, clean(v))
		case int:
			line.Int(f.Key, int64(v))
		case int64:
			line.Int(f.Key, v)
		case bool:
			line.Bool(f.Key, v)
		}
	}
	out := line.End()
	if l.Journal {
		out = append([]byte(journal.Prefix(level)), out...)
	}
	l.W.Write(out) // nowhere is left to report a failing stderr
}

func clean(s string) string {
	s = redact.Text(s)
	if len(s) > maxText {
		s = s[:maxText] + "…"
	}
	return s
}

// oneLine keeps a hostile or multi-line text from forging lines of its own or
// steering the terminal: control characters become spaces.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return ' '
		}
		return r
	}, s)
}

// IsTerminal reports whether f is a terminal. A character device is not
// enough: /dev/null and /dev/full are that too.
func IsTerminal(f *os.File) bool {
	var t syscall.Termios
	_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, f.Fd(), syscall.TCGETS, uintptr(unsafe.Pointer(&t)))
	return errno == 0
}

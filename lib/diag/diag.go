// Package diag writes diagnostics, which are messages about a run. The records
// that a tool outputs are not diagnostics.
//
// Diagnostics are written to stderr. On a terminal they read
//
//	sysmetrics: error: open /var/lib/x: permission denied
//	sysmetrics: hint: run it as the user that owns the directory
//
// in lower case and without a full stop. A hint proposes the next step. If stderr
// is not a terminal, diagnostics are JSON lines in the toolkit's envelope (package
// record). If stderr is the journal, these lines have the journal's priority
// prefix. This package masks the passwords of URLs and libpq strings in every
// message.
package diag

import (
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"observability-hub/lib/journal"
	"observability-hub/lib/record"
	"observability-hub/lib/redact"
	"observability-hub/lib/sysexits"
)

// maxText is the maximum length of one text field, in bytes. It keeps lines
// shorter than record.MaxLine.
const maxText = 6 << 10

// Logger writes diagnostics of one tool to one stream.
type Logger struct {
	Name     string           // the command, for the terminal form
	Service  string           // the unit family, for the envelope
	Terminal bool             // write the terminal form
	Journal  bool             // prefix lines with the journal's priority
	Now      func() time.Time // the clock of the envelope
	W        io.Writer

	progress atomic.Bool // a line of Progress is on the terminal
}

// New returns a logger that writes to stderr, in the form that suits stderr.
func New(name, service string, stderr *os.File) *Logger {
	return &Logger{
		Name: name, Service: service, W: stderr, Now: time.Now,
		Terminal: IsTerminal(stderr), Journal: journal.Connected(stderr),
	}
}

// loggerKey is the key of a context's logger.
type loggerKey struct{}

// Into returns a context that carries the logger, for packages that are not
// commands and have diagnostics to write.
func Into(ctx context.Context, l *Logger) context.Context {
	return context.WithValue(ctx, loggerKey{}, l)
}

// From returns the logger of a context, or a logger that discards everything.
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

// Warn reports a problem that does not stop the run.
func (l *Logger) Warn(event, text string, fields ...Field) {
	l.write(record.Warn, event, text, "", fields)
}

// Info reports something that a person at a terminal should know and that needs no
// action.
func (l *Logger) Info(event, text string, fields ...Field) {
	l.write(record.Info, event, text, "", fields)
}

// Debug reports details. It writes nothing to a terminal.
func (l *Logger) Debug(event, text string, fields ...Field) {
	if !l.Terminal {
		l.write(record.Debug, event, text, "", fields)
	}
}

// Error reports err. If err is a [sysexits.Error], Error uses its event and hint,
// else the event "failed". Error reports each of several joined errors.
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
	text = clean(text) // not the hint: it is a constant, and may show an example URL with a password
	if l.Terminal {
		word := map[string]string{record.Info: "note", record.Warn: "warning", record.Error: "error"}[level]
		out := l.Name + ": " + word + ": " + oneLine(text) + "\n"
		if hint != "" {
			out += l.Name + ": hint: " + oneLine(hint) + "\n"
		}
		if l.progress.Swap(false) {
			out = eraseLine + out
		}
		io.WriteString(l.W, out) // if stderr fails, there is no place to report that
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
	l.W.Write(out) // if stderr fails, there is no place to report that
}

// eraseLine moves the cursor to the start of its line and erases the line.
const eraseLine = "\r\x1b[K"

// Progress shows a line on a terminal. The next call, and the next diagnostic,
// overwrite it. It writes nothing if stderr is not a terminal.
func (l *Logger) Progress(text string) {
	if !l.Terminal {
		return
	}
	const width = 79 // a line that wraps cannot be overwritten
	line := []rune(oneLine(l.Name + ": " + text))
	l.progress.Store(true)
	io.WriteString(l.W, eraseLine+string(line[:min(len(line), width)])) // if stderr fails, there is no place to report that
}

// EndProgress removes the line of Progress, if one is shown.
func (l *Logger) EndProgress() {
	if l.progress.Swap(false) {
		io.WriteString(l.W, eraseLine)
	}
}

func clean(s string) string {
	s = redact.Text(s)
	if len(s) > maxText {
		s = s[:maxText] + "…"
	}
	return s
}

// oneLine replaces control characters by spaces, so that a hostile or multi-line
// text cannot forge further lines or control the terminal.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return ' '
		}
		return r
	}, s)
}

// IsTerminal reports whether f is a terminal. It is not enough that f is a
// character device, because /dev/null and /dev/full are character devices too.
func IsTerminal(f *os.File) bool {
	var t syscall.Termios
	_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, f.Fd(), syscall.TCGETS, uintptr(unsafe.Pointer(&t)))
	return errno == 0
}

package diag

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"observability-hub/lib/record"
	"observability-hub/lib/sysexits"
)

func logger(out *bytes.Buffer) *Logger {
	return &Logger{Name: "tool", Service: "a-service", W: out, Now: func() time.Time { return time.Unix(0, 0) }}
}

func TestForms(t *testing.T) {
	err := sysexits.New(sysexits.TempFail, "locked", errors.New("state: held\nby another")).WithHint("wait for it")
	const envelope = `{"time":"1970-01-01T00:00:00.000Z","level":"`
	for _, tc := range []struct {
		name              string
		terminal, journal bool
		report            func(*Logger)
		want              string
	}{
		{"terminal error", true, false, func(l *Logger) { l.Error(err) },
			"tool: error: state: held by another\ntool: hint: wait for it\n"},
		{"terminal warning", true, false, func(l *Logger) { l.Warn("x", "odd \x1b[31mthing") },
			"tool: warning: odd  [31mthing\n"},
		{"terminal debug", true, false, func(l *Logger) { l.Debug("x", "detail") }, ""},
		{"json error", false, false, func(l *Logger) { l.Error(err) },
			envelope + `ERROR","msg":"locked","service":"a-service","error":"state: held\nby another","hint":"wait for it"}` + "\n"},
		{"json plain error", false, false, func(l *Logger) { l.Error(errors.New("x")) },
			envelope + `ERROR","msg":"failed","service":"a-service","error":"x"}` + "\n"},
		{"joined errors", true, false, func(l *Logger) { l.Error(errors.Join(errors.New("one"), errors.Join(errors.New("two")))) },
			"tool: error: one\ntool: error: two\n"},
		{"json fields", false, false, func(l *Logger) { l.Warn("e", "t", Field{"n", 3}, Field{"s", "v"}, Field{"b", true}) },
			envelope + `WARN","msg":"e","service":"a-service","detail":"t","n":3,"s":"v","b":true}` + "\n"},
		{"journal error", false, true, func(l *Logger) { l.Error(errors.New("x")) },
			"<3>" + envelope + `ERROR","msg":"failed","service":"a-service","error":"x"}` + "\n"},
		{"journal warning", false, true, func(l *Logger) { l.Warn("e", "t") },
			"<4>" + envelope + `WARN","msg":"e","service":"a-service","detail":"t"}` + "\n"},
		{"secret", false, false, func(l *Logger) { l.Error(errors.New("dial postgres://u:s3cret@h: refused")) },
			envelope + `ERROR","msg":"failed","service":"a-service","error":"dial postgres://u:xxxxx@h: refused"}` + "\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var out bytes.Buffer
			l := logger(&out)
			l.Terminal, l.Journal = tc.terminal, tc.journal
			tc.report(l)
			if out.String() != tc.want {
				t.Errorf("\n got %q\nwant %q", out.String(), tc.want)
			}
		})
	}
}

func TestLineStaysWhole(t *testing.T) {
	var out bytes.Buffer
	logger(&out).Error(errors.New(strings.Repeat("\x01", 1<<20)))
	if out.Len() > record.MaxLine {
		t.Errorf("line of %d bytes; want at most %d", out.Len(), record.MaxLine)
	}
	if !json.Valid(out.Bytes()) {
		t.Error("the cut line is not JSON")
	}
}

func TestIsTerminal(t *testing.T) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	if IsTerminal(null) {
		t.Error("IsTerminal(/dev/null) = true; want false")
	}
}

// The line of progress is cut to the width of a terminal. A diagnostic and the end remove it, and nothing else is removed.
func TestProgress(t *testing.T) {
	var said strings.Builder
	l := &Logger{Name: "tool", Terminal: true, W: &said, Now: time.Now}
	wants := func(what, want string) {
		t.Helper()
		if got := said.String(); got != want {
			t.Errorf("%s: %q; want %q", what, got, want)
		}
		said.Reset()
	}
	l.EndProgress()
	wants("nothing was shown", "")
	l.Progress("1 of 2\n")
	wants("a line", "\r\x1b[Ktool: 1 of 2 ")
	l.Progress(strings.Repeat("é", 100))
	wants("a long line", "\r\x1b[Ktool: "+strings.Repeat("é", 73))
	l.Warn("w", "text")
	wants("a diagnostic", "\r\x1b[Ktool: warning: text\n")
	l.Warn("w", "text")
	wants("another diagnostic", "tool: warning: text\n")
	l.EndProgress()
	wants("the end after a diagnostic", "")
	l.Progress("2 of 2")
	said.Reset()
	l.EndProgress()
	wants("the end", "\r\x1b[K")
	l.Terminal = false
	l.Progress("3")
	l.EndProgress()
	wants("no terminal", "")
}

package record

import (
	"bytes"
	"encoding/json"
	"math"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func TestLine(t *testing.T) {
	l := New(time.Date(2026, 1, 2, 3, 4, 5, 678_900_000, time.FixedZone("", 3600)), Info, "sample", "system-metrics")
	l.String("host", "web1")
	l.Object("payload", func() {
		l.Float("usage", 12.34567)
		l.Float("nan", math.NaN())
		l.Float("big", 1e17)
		l.Uint("bytes", math.MaxUint64)
		l.Int("n", -3)
		l.Bool("first", true)
		l.Null("none")
		l.Object("empty", func() {})
		l.Strings("nil", nil)
		l.Strings("two", []string{"a", "b"})
	})
	const want = `{"time":"2026-01-02T02:04:05.678Z","level":"INFO","msg":"sample","service":"system-metrics","host":"web1",` +
		`"payload":{"usage":12.346,"nan":null,"big":100000000000000000,"bytes":18446744073709551615,"n":-3,"first":true,` +
		`"none":null,"empty":{},"nil":[],"two":["a","b"]}}` + "\n"
	if got := string(l.End()); got != want {
		t.Errorf("line:\n got %s\nwant %s", got, want)
	}
}

// A string of any bytes must become JSON on one line that decodes to the same
// text. A record is one line, whatever the name of a mount point.
func FuzzAppendString(f *testing.F) {
	for _, s := range []string{"", "plain", "q\"b\\", "\x00\x1f\x7f", "é☃😀", "\xff\xc3", "\n\t\r"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		b := AppendString(nil, s)
		if bytes.ContainsAny(b, "\n\r") {
			t.Fatalf("AppendString(%q) holds a line break: %s", s, b)
		}
		var got string
		if err := json.Unmarshal(b, &got); err != nil {
			t.Fatalf("AppendString(%q) = %s: %v", s, b, err)
		}
		want := s
		if !utf8.ValidString(s) {
			var w strings.Builder
			for _, r := range s {
				w.WriteRune(r)
			}
			want = w.String()
		}
		if got != want {
			t.Fatalf("AppendString(%q) decodes to %q", s, got)
		}
	})
}

// A field that is too long is removed again, with its comma.
func TestTruncate(t *testing.T) {
	var l Line
	l.Object("a", func() {
		l.Int("x", 1)
		before := l.Len()
		l.Object("y", func() { l.String("z", "long") })
		l.Truncate(before)
		l.Int("w", 2)
	})
	if got, want := string(l.buf), `"a":{"x":1,"w":2}`; got != want {
		t.Errorf("line = %s; want %s", got, want)
	}
}

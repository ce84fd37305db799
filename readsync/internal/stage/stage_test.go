package stage

import (
	"context"
	"io"
	"strings"
	"testing"
	"time"

	"observability-hub/lib/sysexits"
)

func TestLines(t *testing.T) {
	long := strings.Repeat("x", 200_000)
	l := NewLines(strings.NewReader("a\n\n" + long + "\nlast"))
	for _, want := range []string{"a", "", long, "last"} {
		got, err := l.Next()
		if err != nil || string(got) != want || l.Complete != (want != "last") {
			t.Errorf("%.20q, %v, complete %v; want %.20q", got, err, l.Complete, want)
		}
	}
	if _, err := l.Next(); err != io.EOF || l.Read != int64(3+len(long)+1+4) || l.Number != 4 {
		t.Errorf("at the end: %v, %d bytes, %d lines", err, l.Read, l.Number)
	}
}

func TestTrailer(t *testing.T) {
	if n, ok := parseTrailer(Trailer(12)); !ok || n != 12 {
		t.Errorf("parseTrailer(Trailer(n)) = %d, %v", n, ok)
	}
	for line, want := range map[string]bool{
		`{"n":3,"_eof":true}`: true, ` { "_eof" : true , "n" : 3 } `: true,
		`{"_eof":true}`: false, `{"_eof":false,"n":3}`: false, `{"_eof":true,"n":-1}`: false, `{"n":3}`: false, `{"_eof":"true","n":3}`: false, `{}`: false, ``: false,
	} {
		if n, ok := parseTrailer([]byte(line)); ok != want || ok && n != 3 {
			t.Errorf("parseTrailer(%s) = %d, %v; want %v", line, n, ok, want)
		}
	}
}

func TestStream(t *testing.T) {
	for _, tc := range []struct {
		name, text string
		lines      int64
		complete   bool
	}{
		{"complete", "1\n2\n{\"_eof\":true,\"n\":2}\n", 2, true},
		{"filtered", "1\n{\"_eof\":true,\"n\":2}\n", 1, true},
		{"empty", "{\"_eof\":true,\"n\":0}\n", 0, true},
		{"blank lines", "1\n\n{\"_eof\":true,\"n\":1}\n\n", 1, true},
		{"no trailer", "1\n2\n", 2, false},
		{"nothing", "", 0, false},
		{"too many", "1\n2\n{\"_eof\":true,\"n\":1}\n", 2, false},
		{"more after it", "1\n{\"_eof\":true,\"n\":1}\n2\n", 1, false},
		{"two trailers", "{\"_eof\":true,\"n\":0}\n{\"_eof\":true,\"n\":0}\n", 0, false},
		{"half a trailer", "1\n{\"_eof\":tr", 2, false},
	} {
		s := Open(context.Background(), strings.NewReader(tc.text), Limit{Lines: 1000, Bytes: 1 << 20, Pause: time.Second})
		seen := int64(0)
		for more := true; more; {
			var batch []Line
			batch, more = s.Next(context.Background())
			seen += int64(len(batch))
		}
		err := s.Verdict(seen, "load", "extract")
		if seen != tc.lines || (err == nil) != tc.complete || err != nil && sysexits.Code(err) != sysexits.DataErr {
			t.Errorf("%s: %d lines, %v; want %d, complete %v", tc.name, seen, err, tc.lines, tc.complete)
		}
	}
}

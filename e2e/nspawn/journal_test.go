package nspawn

import (
	"maps"
	"testing"
)

func TestParseEntry(t *testing.T) {
	// The forms of systemd.journal-fields(7) in JSON: text, bytes that are not UTF-8, a field twice, a field without a value.
	got, err := parseEntry([]byte(`{"MESSAGE":"a\nb","COREDUMP":[0,255,104],"SYSLOG_PID":["1","2"],"ODD":["1",[255]],"EMPTY":null}`))
	want := Entry{"MESSAGE": "a\nb", "COREDUMP": "\x00\xffh", "SYSLOG_PID": "2", "ODD": "\xff", "EMPTY": ""}
	if err != nil || !maps.Equal(got, want) {
		t.Errorf("parseEntry = %q, %v; want %q", got, err, want)
	}
	for _, line := range []string{"", "[]", `{"MESSAGE":1}`, `{"MESSAGE":{}}`} {
		if got, err := parseEntry([]byte(line)); err == nil {
			t.Errorf("parseEntry(%q) = %q; want an error", line, got)
		}
	}
}

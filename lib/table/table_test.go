package table

import (
	"errors"
	"strings"
	"testing"
	"time"
)

func TestShow(t *testing.T) {
	local := time.Local
	time.Local = time.FixedZone("", 3600)
	defer func() { time.Local = local }()
	columns := Columns{"archive": {"volume", "made", "bytes", "verified", "damaged", "nobody_has_this"},
		"verified": {"volume", "ok"}, "verify_failed": {"volume", "ok"}}
	for _, tc := range []struct{ name, records, want string }{
		{"nothing", "", ""},
		{"rows", `{"time":"2026-11-28T12:00:00.000Z","level":"INFO","msg":"archive","service":"s","volume":"db","made":"2026-11-27T23:30:00.000Z","bytes":1073786880,"verified":true,"damaged":null}
{"msg":"archive","volume":"a b\u001b[2J","made":"no time","bytes":12,"verified":false,"damaged":"it is"}
`, `VOLUME        MADE                 BYTES    VERIFIED  DAMAGED
db            2026-11-28 00:30:00  1.0 GiB  yes       -
"a b\x1b[2J"  no time              12 B     no        it is
`},
		{"two kinds with the same columns", `{"msg":"verified","volume":"a","ok":true}
{"msg":"verify_failed","volume":"b","ok":false}
`, `VOLUME  OK
a       yes
b       no
`},
		{"another kind below it", `{"msg":"archive","volume":"db","bytes":1}
{"time":"2026-11-28T12:00:00.000Z","level":"INFO","msg":"status","service":"s","applied":"0123456789abcdef0123456789abcdef01234567","age_s":93784.5,"pull_age_s":59.4,"drifted":["/a","/b"],"none":[],"text":"","n":12345678901234567890,"meta":{"k":1}}
`, `VOLUME  BYTES
db      1 B

applied   0123456789ab
age       1d 2h
pull age  59s
drifted   /a, /b
none      -
text      ""
n         12345678901234567890
meta      {"k":1}
`},
	} {
		var out strings.Builder
		v := Flag{}.Show(&out, columns)
		for line := range strings.Lines(tc.records) {
			if err := v.View([]byte(line)); err != nil {
				t.Fatalf("%s: %v", tc.name, err)
			}
		}
		if err := v.Close(); err != nil {
			t.Fatal(err)
		}
		if out.String() != tc.want {
			t.Errorf("%s:\n%s\nwant\n%s", tc.name, out.String(), tc.want)
		}
	}
	if v := (Flag{JSON: true}).Show(nil, columns); v != nil {
		t.Error("--json is not heeded")
	}
}

func TestUnits(t *testing.T) {
	for seconds, want := range map[float64]string{0: "0s", 61: "1m 1s", 3599.6: "1h 0m", 7260: "2h 1m", 90000: "1d 1h", 1e7: "115d 17h"} {
		if got := duration(seconds); got != want {
			t.Errorf("duration(%v) = %s; want %s", seconds, got, want)
		}
	}
	for n, want := range map[float64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 1.5 * (1 << 40): "1.5 TiB", 1 << 62: "4096.0 PiB"} {
		if got := size(n); got != want {
			t.Errorf("size(%v) = %s; want %s", n, got, want)
		}
	}
}

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, errors.New("the terminal is gone") }

// A terminal that fails is an error of the run.
func TestShowFails(t *testing.T) {
	v := Flag{}.Show(failing{}, nil)
	if err := v.View([]byte(`{"msg":"status","a":1}` + "\n")); err == nil {
		t.Error("no error of a list")
	}
	v = Flag{}.Show(failing{}, Columns{"row": {"a"}})
	if err := errors.Join(v.View([]byte(`{"msg":"row","a":1}`+"\n")), v.Close()); err == nil {
		t.Error("no error of a table")
	}
	if err := v.View([]byte("nonsense\n")); err == nil {
		t.Error("no error of a line that is no record")
	}
}

package cli

import (
	"strconv"
	"testing"
	"time"

	"github.com/alecthomas/kong"
)

func TestAge(t *testing.T) {
	const day = 24 * time.Hour
	for _, tc := range []struct {
		text string
		want time.Duration // less than 0: refused
	}{
		{"90d", 90 * day}, {"1d", day}, {"12w", 84 * day}, {"36h", 36 * time.Hour}, {"1h30m", 90 * time.Minute}, {"36500d", 36500 * day},
		{"0", 0}, {"0d", 0}, {"59m", 59 * time.Minute},
		{"", -1}, {"d", -1}, {"w", -1}, {"90", -1}, {"-1d", -1}, {"-36h", -1}, {"1.5d", -1}, {"90 d", -1}, {"90D", -1}, {"1d12h", -1},
		// A number of weeks that overflows must not become three days.
		{"30501w", -1}, {"65535w", -1}, {"99999999999d", -1}, {"9999999999999h", -1},
	} {
		a := Age(-1)
		err := a.UnmarshalText([]byte(tc.text))
		if time.Duration(a) != tc.want || (err != nil) != (tc.want < 0) {
			t.Errorf("UnmarshalText(%q) = %v, %v; want %v", tc.text, time.Duration(a), err, tc.want)
		}
	}
}

func FuzzAge(f *testing.F) {
	for _, s := range []string{"90d", "12w", "36h", "30501w", "1h", "-1d", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var a Age
		if a.UnmarshalText([]byte(s)) != nil {
			return
		}
		if d := time.Duration(a); d < 0 {
			t.Fatalf("UnmarshalText(%q) = %v", s, d)
		}
		for unit, length := range map[string]time.Duration{"d": 24 * time.Hour, "w": 168 * time.Hour} {
			if n, err := strconv.Atoi(s[:len(s)-1]); err == nil && s[len(s)-1:] == unit && time.Duration(a)/length != time.Duration(n) {
				t.Fatalf("UnmarshalText(%q) = %v", s, time.Duration(a))
			}
		}
	})
}

func TestDurations(t *testing.T) {
	for _, tc := range []struct {
		text string
		want time.Duration // less than 0: refused
	}{
		{"90s", 90 * time.Second}, {"5", 5 * time.Second}, {"0", 0}, {"1.5", 1500 * time.Millisecond}, {"1h30m", 90 * time.Minute}, {"8d", 192 * time.Hour}, {"2w", 336 * time.Hour},
		{"", -1}, {"x", -1}, {"1e3", -1}, {"inf", -1}, {"0x10", -1}, {"5 s", -1}, {"99999999999999999999", -1}, {"1y", -1},
	} {
		var grammar struct{ Wait time.Duration }
		parser, err := kong.New(&grammar, durations)
		if err != nil {
			t.Fatal(err)
		}
		grammar.Wait = -1
		if _, err = parser.Parse([]string{"--wait=" + tc.text}); (err != nil) != (tc.want < 0) || err == nil && grammar.Wait != tc.want {
			t.Errorf("--wait=%q is %v, %v; want %v", tc.text, grammar.Wait, err, tc.want)
		}
	}
}

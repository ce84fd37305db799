package main

import (
	"testing"
	"time"
)

func TestReadClock(t *testing.T) {
	before := time.Now()
	a, err := readClock()
	if err != nil {
		t.Fatal(err)
	}
	b, err := readClock()
	if err != nil {
		t.Fatal(err)
	}
	if a.monotonic <= 0 || a.boottime < a.monotonic || b.monotonic < a.monotonic || b.boottime < a.boottime || a.wall.Before(before) {
		t.Errorf("readClock = %+v, then %+v", a, b)
	}
}

func TestParseUptime(t *testing.T) {
	for _, tc := range []struct {
		text string
		want time.Duration
		ok   bool
	}{
		{"12345.67 54321.00\n", 12345670 * time.Millisecond, true},
		{"0.00 0.00\n", 0, true},
		{"7", 7 * time.Second, true},
		{"7\n", 7 * time.Second, true},
		{"", 0, false}, {"-1 0\n", 0, false}, {"NaN 0\n", 0, false}, {"Inf 0\n", 0, false}, {"1e300 0\n", 0, false}, {"x 0\n", 0, false},
	} {
		if got, err := parseUptime([]byte(tc.text)); got != tc.want || (err == nil) != tc.ok {
			t.Errorf("parseUptime(%q) = %v, %v; want %v, %v", tc.text, got, err, tc.want, tc.ok)
		}
	}
}

func FuzzParseUptime(f *testing.F) {
	for _, seed := range append(fixtures(f, "uptime"), []byte("nan"), []byte("1e9"), []byte("0x1p4 1")) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if d, err := parseUptime(data); err == nil && (d < 0 || d > 1e9*time.Second) {
			t.Fatalf("parseUptime(%q) = %v", data, d)
		}
	})
}

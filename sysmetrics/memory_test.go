package main

import (
	"maps"
	"testing"
)

func TestParseVmstat(t *testing.T) {
	for _, tc := range []struct {
		name, text string
		want       counters
		fails      bool
	}{
		{"all", "nr_free_pages 9\npswpin 1\npswpout 2\npgmajfault 3\noom_kill 4\n", counters{"pswpin": 1, "pswpout": 2, "pgmajfault": 3, "oom_kill": 4}, false},
		{"names that begin alike", "pgmajfault_s 1\noom_kill_x 2\npswpin_direct 3\npswpout\n", counters{}, false},
		{"last line without a line break", "oom_kill 7", counters{"oom_kill": 7}, false},
		{"empty", "", counters{}, false},
		{"not a number", "oom_kill many\n", counters{}, true},
		{"two numbers", "oom_kill 1 2\n", counters{}, true},
		{"no number", "oom_kill \n", counters{}, true},
	} {
		c := counters{}
		if err := parseVmstat([]byte(tc.text), c); (err != nil) != tc.fails || !maps.Equal(c, tc.want) {
			t.Errorf("%s: parseVmstat = %v, %v; want %v, error %v", tc.name, c, err, tc.want, tc.fails)
		}
	}
}

func FuzzParseVmstat(f *testing.F) {
	for _, seed := range fixtures(f, "vmstat") {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c := counters{}
		if parseVmstat(data, c) == nil && len(c) > len(vmstatCounters) {
			t.Fatalf("counters %v", c)
		}
		wantKept(t, c)
	})
}

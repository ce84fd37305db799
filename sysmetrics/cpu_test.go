package main

import (
	"maps"
	"slices"
	"strings"
	"testing"
)

func TestParseStat(t *testing.T) {
	const four = "cpu  1 2 3 4\ncpu0 1 2 3 4\n"
	for _, tc := range []struct {
		name, text string
		cpus       []string
		want       counters
		err        string
	}{
		{"Linux 2.4", four, []string{"cpu0"}, counters{"cpu user": 1, "cpu nice": 2, "cpu system": 3, "cpu idle": 4,
			"cpu0 user": 1, "cpu0 nice": 2, "cpu0 system": 3, "cpu0 idle": 4}, ""},
		{"no steal before 2.6.11", "cpu  1 2 3 4 5 6 7\n", nil, counters{"cpu user": 1, "cpu nice": 2, "cpu system": 3, "cpu idle": 4,
			"cpu iowait": 5, "cpu irq": 6, "cpu softirq": 7}, ""},
		{"an unknown column", "cpu  1 2 3 4 5 6 7 8 9 10 11\n", nil, counters{"cpu user": 1, "cpu nice": 2, "cpu system": 3,
			"cpu idle": 4, "cpu iowait": 5, "cpu irq": 6, "cpu softirq": 7, "cpu steal": 8, "cpu guest": 9, "cpu guest_nice": 10}, ""},
		{"gaps between the numbers of CPUs", "cpu 1 2 3 4\ncpu1 1 2 3 4\ncpu7 1 2 3 4\n", []string{"cpu1", "cpu7"}, nil, ""},
		{"other lines", four + "ctxt 5\nprocesses 6\nintr 1 2 3\nbtime 7\nnews 8\n\n", []string{"cpu0"}, nil, ""},
		{"no line break at the end", "cpu 1 2 3 4", nil, nil, ""},
		{"empty", "", nil, counters{}, ""},
		{"short", "cpu 1 2 3\n", nil, nil, "unexpected EOF"},
		{"negative", "cpu 1 2 -3 4\n", nil, nil, "-3"},
		{"not a number at the end", "cpu 1 2 3 4 5x\n", nil, nil, "5x"},
		{"more than 64 bits", "cpu 18446744073709551616 0 0 0\n", nil, nil, "64 bits"},
		{"ctxt without a value", "cpu 1 2 3 4\nctxt\n", nil, nil, "unexpected EOF"},
	} {
		c := counters{}
		odd := ""
		s := parseStat([]byte(tc.text), c, func(_ []byte, err error) { odd += err.Error() })
		if !strings.Contains(odd, tc.err) || (odd == "") != (tc.err == "") {
			t.Errorf("%s: odd lines %q; want %q", tc.name, odd, tc.err)
		}
		if !slices.Equal(s.cpus, tc.cpus) {
			t.Errorf("%s: parseStat = %+v; want CPUs %q", tc.name, s, tc.cpus)
		}
		if tc.want != nil && !maps.Equal(c, tc.want) {
			t.Errorf("%s: counters = %v; want %v", tc.name, c, tc.want)
		}
	}
}

func FuzzParseStat(f *testing.F) {
	for _, seed := range fixtures(f, "stat") {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c := counters{}
		s := parseStat(data, c, func([]byte, error) {})
		for _, cpu := range s.cpus {
			for _, mode := range cpuModes[:4] {
				if _, ok := c[cpu+" "+mode]; !ok {
					t.Fatalf("%s has no %s", cpu, mode)
				}
			}
		}
		wantKept(t, c)
	})
}

package main

import (
	"maps"
	"slices"
	"strings"
	"testing"
)

const netDevHeader = "Inter-|   Receive                                                |  Transmit\n" +
	" face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n"

func TestParseNetDev(t *testing.T) {
	const numbers = " 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n"
	want := counters{"net eth0 rx_bytes": 1, "net eth0 rx_packets": 2, "net eth0 rx_errors": 3, "net eth0 rx_drops": 4,
		"net eth0 tx_bytes": 9, "net eth0 tx_packets": 10, "net eth0 tx_errors": 11, "net eth0 tx_drops": 12}
	for _, tc := range []struct {
		name, text string
		interfaces []string
		want       counters
		fails      bool
	}{
		{"one", netDevHeader + "  eth0:" + numbers, []string{"eth0"}, want, false},
		{"no space behind the colon", netDevHeader + "  eth0:" + strings.TrimLeft(numbers, " "), []string{"eth0"}, want, false},
		{"a colon in the name", netDevHeader + "eth0:1:" + numbers, []string{"eth0:1"}, nil, false},
		{"none", netDevHeader, nil, counters{}, false},
		{"garbage that is filtered out", netDevHeader + "    lo: x\n  eth0:" + numbers, []string{"eth0"}, want, false},
		{"garbage that is not", netDevHeader + "  eth0: x\n", nil, nil, true},
		{"short", netDevHeader + "  eth0: 1 2 3\n", nil, nil, true},
		{"no colon", netDevHeader + "  eth0 1 2 3\n", nil, nil, true},
	} {
		c := counters{}
		got, err := parseNetDev([]byte(tc.text), filter{skip: []string{"lo"}}, c)
		if (err != nil) != tc.fails || !tc.fails && !slices.Equal(got, tc.interfaces) {
			t.Errorf("%s: parseNetDev = %q, %v; want %q, error %v", tc.name, got, err, tc.interfaces, tc.fails)
		}
		if tc.want != nil && !maps.Equal(c, tc.want) {
			t.Errorf("%s: counters = %v; want %v", tc.name, c, tc.want)
		}
	}
}

// A name that the filter drops must cost no more than its comparison: on a
// host of containers they are hundreds.
func TestParseNetDevLooksAtNoDroppedNumbers(t *testing.T) {
	text := netDevHeader + strings.Repeat("vethabcdef: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n", 300)
	f := filter{skip: []string{"veth*"}}
	data := []byte(text)
	if n := testing.AllocsPerRun(10, func() {
		if got, err := parseNetDev(data, f, nil); got != nil || err != nil {
			t.Fatalf("parseNetDev = %q, %v", got, err)
		}
	}); n > 300 {
		t.Errorf("%v allocations for 300 interfaces that do not count; want at most one each", n)
	}
}

func FuzzParseNetDev(f *testing.F) {
	for _, seed := range fixtures(f, "net/dev") {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c := counters{}
		names, err := parseNetDev(data, filter{skip: []string{"lo", "veth*"}}, c)
		if err != nil {
			return
		}
		for _, name := range names {
			if name == "lo" || strings.HasPrefix(name, "veth") {
				t.Fatalf("interface %q", name)
			}
			for _, col := range interfaceColumns {
				if _, ok := c["net "+name+" "+col.name]; !ok {
					t.Fatalf("%q has no %s", name, col.name)
				}
			}
		}
		wantKept(t, c)
	})
}

func TestParseSNMP(t *testing.T) {
	const tcp = "Tcp: RtoAlgorithm MaxConn ActiveOpens CurrEstab InSegs\nTcp: 1 -1 7 3 9\n"
	for _, tc := range []struct {
		name, text  string
		want        counters
		established int // -1: none
		fails       bool
	}{
		{"both", "Ip: Forwarding\nIp: 1\n" + tcp + "Udp: InDatagrams NoPorts\nUdp: 4 5\nUdpLite: InDatagrams\nUdpLite: 6\n",
			counters{"Tcp active_opens": 7, "Tcp in_segments": 9, "Udp in_datagrams": 4, "Udp no_ports": 5}, 3, false},
		{"no Tcp", "Udp: InDatagrams\nUdp: 4\n", counters{"Udp in_datagrams": 4}, -1, false},
		{"empty", "", counters{}, -1, false},
		{"values missing", "Tcp: ActiveOpens\n", counters{}, -1, true},
		{"values of another", "Tcp: ActiveOpens\nUdp: 1\n", counters{}, -1, true},
		{"too few values", "Tcp: ActiveOpens InSegs\nTcp: 1\n", nil, -1, true},
		{"not a number", "Tcp: ActiveOpens\nTcp: x\n", counters{}, -1, true},
		{"negative", "Tcp: CurrEstab\nTcp: -1\n", counters{}, -1, true},
	} {
		c := counters{}
		established, err := parseSNMP([]byte(tc.text), c)
		got := -1
		if established != nil {
			got = int(*established)
		}
		if (err != nil) != tc.fails || !tc.fails && got != tc.established || tc.want != nil && !maps.Equal(c, tc.want) {
			t.Errorf("%s: parseSNMP = %d, %v, counters %v; want %d, error %v, %v", tc.name, got, err, c, tc.established, tc.fails, tc.want)
		}
	}
}

func FuzzParseSNMP(f *testing.F) {
	for _, seed := range fixtures(f, "net/snmp") {
		f.Add(seed)
	}
	known := make(map[string]bool)
	for _, s := range snmpCounters {
		known[s.protocol+" "+s.name] = true
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c := counters{}
		if _, err := parseSNMP(data, c); err != nil {
			return
		}
		for name := range c {
			if !known[name] {
				t.Fatalf("counter %q", name)
			}
		}
	})
}

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
		{"no space after the colon", netDevHeader + "  eth0:" + strings.TrimLeft(numbers, " "), []string{"eth0"}, want, false},
		{"a colon in the name", netDevHeader + "eth0:1:" + numbers, []string{"eth0:1"}, nil, false},
		{"none", netDevHeader, nil, counters{}, false},
		{"garbage that is filtered out", netDevHeader + "    lo: x\n  eth0:" + numbers, []string{"eth0"}, want, false},
		{"garbage that is not filtered out", netDevHeader + "  eth1: x\n  eth0:" + numbers, []string{"eth0"}, want, true},
		{"short", netDevHeader + "  eth1: 1 2 3\n  eth0:" + numbers, []string{"eth0"}, want, true},
		{"no colon", netDevHeader + "  eth1 1 2 3\n  eth0:" + numbers, []string{"eth0"}, want, true},
	} {
		c := counters{}
		odd := false
		var got []string
		for _, n := range parseNetDev([]byte(tc.text), notLo, c, func([]byte, error) { odd = true }) {
			got = append(got, n.name)
		}
		if odd != tc.fails || !slices.Equal(got, tc.interfaces) {
			t.Errorf("%s: parseNetDev = %q, odd %v; want %q, %v", tc.name, got, odd, tc.interfaces, tc.fails)
		}
		if tc.want != nil && !maps.Equal(c, tc.want) {
			t.Errorf("%s: counters = %v; want %v", tc.name, c, tc.want)
		}
	}
}

func notLo(name string) (netInterface, bool) {
	return netInterface{name: name, key: "net " + name + " "}, name != "lo"
}

func FuzzParseNetDev(f *testing.F) {
	for _, seed := range fixtures(f, "net/dev") {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c := counters{}
		for _, n := range parseNetDev(data, notLo, c, func([]byte, error) {}) {
			if n.name == "lo" {
				t.Fatalf("interface %q", n.name)
			}
			for _, col := range interfaceColumns {
				if _, ok := c[n.key+col.name]; !ok {
					t.Fatalf("%q has no %s", n.name, col.name)
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
		{"values missing", "Tcp: ActiveOpens\n", counters{}, -1, false},
		{"values missing, those of the next protocol present", "Tcp: ActiveOpens\nUdp: InDatagrams\nUdp: 4\n", counters{"Udp in_datagrams": 4}, -1, false},
		{"too few values", "Tcp: ActiveOpens InSegs\nTcp: 1\n", counters{"Tcp active_opens": 1}, -1, true},
		{"one odd value", "Tcp: ActiveOpens InSegs CurrEstab\nTcp: x 2 3\n", counters{"Tcp in_segments": 2}, 3, true},
		{"not a number", "Tcp: ActiveOpens\nTcp: x\n", counters{}, -1, true},
		{"negative", "Tcp: CurrEstab\nTcp: -1\n", counters{}, -1, true},
	} {
		c := counters{}
		odd := false
		established := parseSNMP([]byte(tc.text), c, func([]byte, error) { odd = true })
		got := -1
		if established != nil {
			got = int(*established)
		}
		if odd != tc.fails || got != tc.established || tc.want != nil && !maps.Equal(c, tc.want) {
			t.Errorf("%s: parseSNMP = %d, odd %v, counters %v; want %d, %v, %v", tc.name, got, odd, c, tc.established, tc.fails, tc.want)
		}
	}
}

func TestParseSNMP6(t *testing.T) {
	c := counters{}
	parseSNMP6([]byte("Ip6InReceives 1\nUdp6InDatagrams 8\nUdp6MemErrors 3\nUdpLite6InDatagrams 4\nUdp6NoPorts 9\n"), c, func(line []byte, err error) {
		t.Errorf("%q: %v", line, err)
	})
	if want := (counters{"Udp6 in_datagrams": 8, "Udp6 no_ports": 9}); !maps.Equal(c, want) {
		t.Errorf("counters %v; want %v", c, want)
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
		parseSNMP(data, c, func([]byte, error) {})
		for name := range c {
			if !known[name] {
				t.Fatalf("counter %q", name)
			}
		}
	})
}

package main

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
)

// interfaceColumns are the columns of /proc/net/dev that the tool reads, by
// position. It ignores the others (fifo, frame, compressed, multicast, …).
var interfaceColumns = []struct {
	column int
	name   string
}{
	{0, "rx_bytes"}, {1, "rx_packets"}, {2, "rx_errors"}, {3, "rx_drops"},
	{8, "tx_bytes"}, {9, "tx_packets"}, {10, "tx_errors"}, {11, "tx_drops"},
}

// interfaceCounters iterates over the names in interfaceColumns.
func interfaceCounters(yield func(string) bool) {
	for _, col := range interfaceColumns {
		if !yield(col.name) {
			return
		}
	}
}

// networkState holds the values of /proc/net that are not counters.
type networkState struct {
	interfaces  []netInterface // the selected ones, the host's own devices first
	established *uint64        // TCP connections now
	sockets     map[string]uint64
}

// parseNetDev reads /proc/net/dev. It does not parse the numbers of interfaces
// that sel rejects. It calls odd for each line that it cannot parse.
func parseNetDev(data []byte, sel func(name string) (netInterface, bool), c counters, odd func([]byte, error)) (interfaces []netInterface) {
	for line := range bytes.Lines(data) {
		line = bytes.TrimRight(line, "\n")
		// The last colon, because a name may contain colons (eth0:1).
		colon := bytes.LastIndexByte(line, ':')
		if colon < 0 {
			if !bytes.ContainsRune(line, '|') && len(line) > 0 { // the two header lines
				odd(line, fmt.Errorf("no colon"))
			}
			continue
		}
		n, ok := sel(string(bytes.TrimLeft(line[:colon], " ")))
		if !ok {
			continue
		}
		columns, err := parseColumns(line[colon+1:], 16)
		if err != nil {
			odd(line, err)
			continue
		}
		for _, col := range interfaceColumns {
			c[n.key+col.name] = columns[col.column]
		}
		interfaces = append(interfaces, n)
	}
	return interfaces
}

// parseColumns reads the first n numbers of a line.
func parseColumns(b []byte, n int) ([]uint64, error) {
	columns := make([]uint64, n)
	rest := fields(b)
	for i := range columns {
		var err error
		if columns[i], err = rest.uint(); err != nil {
			return nil, err
		}
	}
	return columns, nil
}

// snmpCounters are the counters of /proc/net/snmp (RFC 4022, RFC 4113) that the
// tool reads: protocol, the kernel's name, our name.
var snmpCounters = []struct{ protocol, kernel, name string }{
	{"Tcp", "ActiveOpens", "active_opens"}, {"Tcp", "PassiveOpens", "passive_opens"},
	{"Tcp", "AttemptFails", "attempt_fails"}, {"Tcp", "EstabResets", "resets"},
	{"Tcp", "InSegs", "in_segments"}, {"Tcp", "OutSegs", "out_segments"},
	{"Tcp", "RetransSegs", "retransmits"}, {"Tcp", "InErrs", "in_errors"},
	{"Udp", "InDatagrams", "in_datagrams"}, {"Udp", "OutDatagrams", "out_datagrams"},
	{"Udp", "NoPorts", "no_ports"}, {"Udp", "InErrors", "in_errors"},
	{"Udp", "RcvbufErrors", "receive_buffer_errors"}, {"Udp", "SndbufErrors", "send_buffer_errors"},
}

// parseSNMP reads /proc/net/snmp, which has a line of names and a line of values
// for each protocol. It returns Tcp CurrEstab, which is a gauge; the others are
// counters.
func parseSNMP(data []byte, c counters, odd func([]byte, error)) (established *uint64) {
	var names []byte
	for line := range bytes.Lines(data) {
		line = bytes.TrimRight(line, "\n")
		protocol, _, ok := bytes.Cut(line, []byte(": "))
		if p := string(protocol); !ok || p != "Tcp" && p != "Udp" {
			continue
		}
		if !bytes.HasPrefix(names, line[:len(protocol)+1]) {
			names = line
			continue
		}
		f, v := fields(names), fields(line)
		names = nil
		_, _ = f.next()
		_, _ = v.next()
		for {
			name, err := f.next()
			if err != nil {
				break
			}
			raw, err := v.next()
			if err != nil {
				odd(line, fmt.Errorf("no value for %s", name))
				break
			}
			gauge := string(name) == "CurrEstab"
			key := snmpKey(string(protocol), string(name))
			if key == "" && !gauge {
				continue
			}
			switch n, err := parseUint(raw); {
			case err != nil:
				odd(name, err)
			case gauge:
				established = &n
			default:
				c[key] = n
			}
		}
	}
	return established
}

// parseSNMP6 reads UDP over IPv6 from /proc/net/snmp6, which has a name and a
// value on each line. TCP over IPv6 is counted in /proc/net/snmp.
func parseSNMP6(data []byte, c counters, odd func([]byte, error)) {
	for line := range bytes.Lines(data) {
		line = bytes.TrimRight(line, "\n")
		f := fields(line)
		name, _ := f.next()
		kernel, ok := bytes.CutPrefix(name, []byte("Udp6"))
		key := snmpKey("Udp", string(kernel))
		if !ok || key == "" {
			continue
		}
		if v, err := f.uint(); err != nil {
			odd(line, err)
		} else {
			c[strings.Replace(key, "Udp", "Udp6", 1)] = v
		}
	}
}

// parseSockstat reads /proc/net/sockstat and sockstat6. A line has the name of a
// protocol and then pairs of a name and a number. The keys of into are such as
// "TCP inuse".
func parseSockstat(data []byte, into map[string]uint64, odd func([]byte, error)) {
	for line := range bytes.Lines(data) {
		line = bytes.TrimRight(line, "\n")
		protocol, rest, ok := bytes.Cut(line, []byte(":"))
		if !ok {
			continue
		}
		f := fields(rest)
		for name, err := f.next(); err == nil; name, err = f.next() {
			v, err := f.uint()
			if err != nil {
				odd(line, err)
				continue
			}
			into[string(protocol)+" "+string(name)] = v
		}
	}
}

// socketGauges are the numbers of sockstat that the tool reads, and their keys.
var socketGauges = []struct{ name, key string }{
	{"sockets used", "used"},
	{"TCP inuse", "tcp_in_use"}, {"TCP orphan", "tcp_orphans"}, {"TCP tw", "tcp_time_wait"}, {"TCP alloc", "tcp_allocated"}, {"TCP mem", "tcp_memory_pages"},
	{"UDP inuse", "udp_in_use"}, {"UDP mem", "udp_memory_pages"},
	{"TCP6 inuse", "tcp6_in_use"}, {"UDP6 inuse", "udp6_in_use"},
}

func snmpKey(protocol, kernel string) string {
	for _, s := range snmpCounters {
		if s.protocol == protocol && s.kernel == kernel {
			return protocol + " " + s.name
		}
	}
	return ""
}

func (h *host) readNetwork(f interfaceFilter, c counters, n *notes) *networkState {
	s := &networkState{}
	if data, err := h.read("net/dev"); err != nil {
		n.miss("interfaces", err)
	} else {
		data = bytes.Clone(data) // selectInterface reads other files
		s.interfaces = parseNetDev(data, func(name string) (netInterface, bool) { return h.selectInterface(f, name) }, c, n.odd("net/dev"))
		slices.SortStableFunc(s.interfaces, func(a, b netInterface) int { return a.rank - b.rank })
	}
	if data, err := h.read("net/snmp"); err != nil {
		n.miss("snmp", err)
	} else {
		s.established = parseSNMP(data, c, n.odd("net/snmp"))
	}
	if data, err := h.read("net/snmp6"); err != nil {
		n.miss("snmp6", err)
	} else {
		parseSNMP6(data, c, n.odd("net/snmp6"))
	}
	for _, file := range []string{"sockstat", "sockstat6"} {
		data, err := h.read("net", file)
		if err != nil {
			n.miss(strings.Replace(file, "sockstat", "sockets", 1), err)
			continue
		}
		if s.sockets == nil {
			s.sockets = make(map[string]uint64)
		}
		parseSockstat(data, s.sockets, n.odd("net/"+file))
	}
	return s
}

// write writes the network payload: an object for each interface, and our own
// keys, which begin with an underscore.
func (s *networkState) write(p payload) {
	p.list(listRoom, "_interfaces", len(s.interfaces), func(i int) {
		n := s.interfaces[i]
		p.Object(n.name, func() {
			p := p.device(n.key, "net "+n.name+" ", interfaceCounters)
			p.Uint("rx_bytes", p.cur[n.key+"rx_bytes"])
			p.Uint("tx_bytes", p.cur[n.key+"tx_bytes"])
			for _, col := range interfaceColumns {
				p.rate(col.name+"_per_s", n.key+col.name)
			}
		})
	})
	for _, protocol := range []struct{ key, name, counters string }{{"_tcp", "Tcp", "Tcp"}, {"_udp", "Udp", "Udp"}, {"_udp6", "Udp", "Udp6"}} {
		if _, ok := p.cur["Udp6 in_datagrams"]; !ok && protocol.key == "_udp6" {
			continue // IPv6 is off
		}
		p.Object(protocol.key, func() {
			if protocol.name == "Tcp" && s.established != nil {
				p.Uint("established", *s.established)
			}
			for _, c := range snmpCounters {
				if c.protocol == protocol.name {
					p.rate(c.name+"_per_s", protocol.counters+" "+c.name)
				}
			}
		})
	}
	if s.sockets == nil {
		p.Null("_sockets")
		return
	}
	p.Object("_sockets", func() {
		for _, g := range socketGauges {
			if v, ok := s.sockets[g.name]; ok {
				p.Uint(g.key, v)
			}
		}
	})
}

package main

import (
	"bytes"
	"fmt"

	"github.com/prometheus/procfs"
)

// interfaceColumns are the columns of /proc/net/dev that count here, by
// position; the others (fifo, frame, compressed, multicast, …) are passed over.
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

// networkState is what /proc/net says beyond counters.
type networkState struct {
	interfaces  []string // those that count, in the kernel's order
	established *uint64  // TCP connections now
	sockets     *procfs.NetSockstat
}

// parseNetDev reads /proc/net/dev. Interfaces that the filter does not allow
// are dropped by name, before a number of theirs is looked at.
func parseNetDev(data []byte, f filter, c counters) ([]string, error) {
	var interfaces []string
	for lines := 0; len(data) > 0; lines++ {
		var line []byte
		line, data, _ = bytes.Cut(data, []byte("\n"))
		// The last colon, as the kernel's names may hold one (eth0:1).
		colon := bytes.LastIndexByte(line, ':')
		if colon < 0 {
			if lines >= 2 {
				return nil, fmt.Errorf("net/dev: line %q has no colon", line)
			}
			continue // the two header lines
		}
		name := string(bytes.TrimLeft(line[:colon], " "))
		if !f.allows(name) {
			continue
		}
		var columns [16]uint64
		rest := fields(line[colon+1:])
		for i := range columns {
			v, err := rest.uint()
			if err != nil {
				return nil, fmt.Errorf("net/dev: line %q: %w", line, err)
			}
			columns[i] = v
		}
		for _, col := range interfaceColumns {
			c["net "+name+" "+col.name] = columns[col.column]
		}
		interfaces = append(interfaces, name)
	}
	return interfaces, nil
}

// snmpCounters are the counters of /proc/net/snmp (RFC 4022, RFC 4113) that
// count here: protocol, the kernel's name, ours.
var snmpCounters = []struct{ protocol, kernel, name string }{
	{"Tcp", "ActiveOpens", "active_opens"}, {"Tcp", "PassiveOpens", "passive_opens"},
	{"Tcp", "AttemptFails", "attempt_fails"}, {"Tcp", "EstabResets", "resets"},
	{"Tcp", "InSegs", "in_segments"}, {"Tcp", "OutSegs", "out_segments"},
	{"Tcp", "RetransSegs", "retransmits"}, {"Tcp", "InErrs", "in_errors"},
	{"Udp", "InDatagrams", "in_datagrams"}, {"Udp", "OutDatagrams", "out_datagrams"},
	{"Udp", "NoPorts", "no_ports"}, {"Udp", "InErrors", "in_errors"},
	{"Udp", "RcvbufErrors", "receive_buffer_errors"}, {"Udp", "SndbufErrors", "send_buffer_errors"},
}

// parseSNMP reads /proc/net/snmp: for each protocol a line of names and a line
// of values. It returns Tcp CurrEstab, the one gauge among them.
func parseSNMP(data []byte, c counters) (established *uint64, err error) {
	for len(data) > 0 {
		var names, values []byte
		names, data, _ = bytes.Cut(data, []byte("\n"))
		values, data, _ = bytes.Cut(data, []byte("\n"))
		protocol, _, ok := bytes.Cut(names, []byte(": "))
		if !ok || !bytes.HasPrefix(values, protocol) {
			return nil, fmt.Errorf("net/snmp: line %q has no values", names)
		}
		if p := string(protocol); p != "Tcp" && p != "Udp" {
			continue
		}
		f, v := fields(names), fields(values)
		for {
			name, err := f.next()
			if err != nil {
				break
			}
			raw, err := v.next()
			if err != nil {
				return nil, fmt.Errorf("net/snmp: line %q is short of %q", values, names)
			}
			isGauge := string(name) == "CurrEstab"
			key := snmpKey(string(protocol), string(name))
			if key == "" && !isGauge {
				continue
			}
			n, err := parseUint(raw)
			if err != nil {
				return nil, fmt.Errorf("net/snmp: line %q: %w", values, err)
			}
			if isGauge {
				established = &n
			} else {
				c[key] = n
			}
		}
	}
	return established, nil
}

func snmpKey(protocol, kernel string) string {
	for _, s := range snmpCounters {
		if s.protocol == protocol && s.kernel == kernel {
			return protocol + " " + s.name
		}
	}
	return ""
}

func (h *host) readNetwork(f filter, c counters, n *notes) *networkState {
	s := &networkState{}
	if data, err := h.read("net/dev"); err != nil {
		n.miss("interfaces", err)
	} else if s.interfaces, err = parseNetDev(data, f, c); err != nil {
		n.fail("interfaces", err.Error())
	}
	if data, err := h.read("net/snmp"); err != nil {
		n.miss("snmp", err)
	} else if s.established, err = parseSNMP(data, c); err != nil {
		n.fail("snmp", err.Error())
	}
	if sockets, err := h.proc.NetSockstat(); err != nil {
		n.miss("sockets", err)
	} else {
		s.sockets = sockets
	}
	return s
}

// write writes the network payload: an object for each interface, and our own
// keys with an underscore before them.
func (s *networkState) write(p payload) {
	p.list(listRoom, "_interfaces", len(s.interfaces), func(i int) {
		name := s.interfaces[i]
		p.Object(name, func() {
			counter := "net " + name + " "
			p := p.device(counter, interfaceCounters)
			p.Uint("rx_bytes", p.cur[counter+"rx_bytes"])
			p.Uint("tx_bytes", p.cur[counter+"tx_bytes"])
			for _, col := range interfaceColumns {
				p.rate(col.name+"_per_s", counter+col.name)
			}
		})
	})
	for _, protocol := range []struct{ key, name string }{{"_tcp", "Tcp"}, {"_udp", "Udp"}} {
		p.Object(protocol.key, func() {
			if protocol.name == "Tcp" && s.established != nil {
				p.Uint("established", *s.established)
			}
			for _, c := range snmpCounters {
				if c.protocol == protocol.name {
					p.rate(c.name+"_per_s", c.protocol+" "+c.name)
				}
			}
		})
	}
	if s.sockets == nil {
		p.Null("_sockets")
		return
	}
	p.Object("_sockets", func() {
		if s.sockets.Used != nil {
			p.Int("used", int64(*s.sockets.Used))
		}
		for _, protocol := range s.sockets.Protocols {
			var name string
			switch protocol.Protocol {
			case "TCP":
				name = "tcp_"
			case "UDP":
				name = "udp_"
			default:
				continue
			}
			p.Int(name+"in_use", int64(protocol.InUse))
			for _, gauge := range []struct {
				key   string
				value *int
			}{{"orphans", protocol.Orphan}, {"time_wait", protocol.TW}, {"allocated", protocol.Alloc}, {"memory_pages", protocol.Mem}} {
				if gauge.value != nil {
					p.Int(name+gauge.key, int64(*gauge.value))
				}
			}
		}
	})
}

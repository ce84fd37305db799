package main

import (
	"fmt"
	"strings"
	"testing"

	"observability-hub/sysmetrics/internal/statfs"
)

// TestInterfacesByKernel: /sys/class/net decides which interfaces are selected,
// not their names.
func TestInterfacesByKernel(t *testing.T) {
	sys := map[string]string{}
	add := func(name string, files ...string) {
		sys[name+"/ifindex"] = fmt.Sprint(len(sys)+2) + "\n"
		for _, f := range files {
			path, content, _ := strings.Cut(f, "=")
			sys[name+"/"+path] = content + "\n"
		}
	}
	adapter := "device/vendor=0x8086"
	// Adapters, with names like those of tunnels and bridges.
	for _, name := range []string{"eno1", "site-link", "tunnel-berlin", "wg-office", "tap-wan", "docker-lan", "wg1", "tun7", "sit1", "br-9f1c2ab34d5e"} {
		add(name, adapter, "type=1", "uevent=INTERFACE="+name)
	}
	// Stacks on an adapter: bridges of Proxmox, of OpenWrt and of a person, a bond in a bridge, a VLAN on a bridge.
	add("vmbr0", "type=1", "uevent=DEVTYPE=bridge", "bridge/x=", "lower_eno1/x=", "brif/fwpr100p0/x=")
	add("br-lan", "type=1", "bridge/x=", "brif/eno1/x=")
	add("bond0", "type=1", "uevent=DEVTYPE=bond", "bonding/x=", "brport/x=", "lower_eno1/x=")
	add("vmbr0.5", "type=1", "uevent=DEVTYPE=vlan", "lower_vmbr0/x=")
	add("ppp0", "type=512", "uevent=DEVTYPE=ppp")
	// Interfaces that carry an adapter's traffic a second time: guests' ports, tunnels, bridges without an adapter.
	add("myvpn", "type=65534", "uevent=DEVTYPE=wireguard")
	add("home", "type=65534", "tun_flags=0x1001")
	add("guest", "type=1", "tun_flags=0x1002", "brport/x=")
	add("overlay", "type=1", "uevent=DEVTYPE=vxlan", "lower_eno1/x=")
	add("six", "type=776")
	add("port", "type=1", "brport/x=")
	add("vmbr1.7", "type=1", "uevent=DEVTYPE=vlan", "lower_port/x=")
	add("xen5", "type=1", "device/modalias=xen-backend:vif", "brport/x=")
	add("docker0", "type=1", "uevent=DEVTYPE=bridge", "bridge/x=", "brif/vethabc/x=")
	// A container's own interface is the end of a veth pair.
	add("eth0", "type=1", "iflink=7")
	root := t.TempDir()
	for name, text := range sys {
		writeTree(t, root, map[string]string{"class/net/" + name: text})
	}
	h := &host{sysRoot: root, buf: make([]byte, 4096)}
	for names, want := range map[string]bool{
		"eno1 site-link tunnel-berlin wg-office tap-wan docker-lan wg1 tun7 sit1 br-9f1c2ab34d5e vmbr0 br-lan bond0 vmbr0.5 ppp0 eth0": true,
		"myvpn home guest overlay six port vmbr1.7 xen5 docker0":                                                                       false,
	} {
		for name := range strings.FieldsSeq(names) {
			if _, got := h.selectInterface(interfaceFilter{skip: []string{auto}}, name); got != want {
				t.Errorf("%s counts: %v; want %v", name, got, want)
			}
			if _, got := h.selectInterface(interfaceFilter{}, name); !got {
				t.Errorf("%s is excluded although no name is", name)
			}
			if _, got := h.selectInterface(interfaceFilter{skip: []string{auto, name}}, name); got {
				t.Errorf("%s counts although it is excluded", name)
			}
			if _, got := h.selectInterface(interfaceFilter{only: []string{name}, skip: []string{auto}}, name); !got {
				t.Errorf("%s is excluded although it is named", name)
			}
		}
	}
}

// Links in a circle end the search.
func TestInterfacesInACircle(t *testing.T) {
	root := t.TempDir()
	writeTree(t, root, map[string]string{"class/net/a/lower_b/x": "", "class/net/b/lower_a/x": ""})
	h := &host{sysRoot: root, buf: make([]byte, 4096)}
	if real, _ := h.isAdapter("a", 4); real {
		t.Error("two interfaces below each other are taken for an adapter")
	}
}

// If not all interfaces fit into a line of the journal, those of the host are kept.
func TestAdaptersStay(t *testing.T) {
	root := t.TempDir()
	writeTree(t, root, minimalProc)
	var dev strings.Builder
	dev.WriteString(netDevHeader)
	for i := range 500 {
		fmt.Fprintf(&dev, "guest%d: %s\n", i, strings.Repeat(" 1", 16))
	}
	fmt.Fprintf(&dev, "uplink: %s\n", strings.Repeat(" 1", 16))
	writeTree(t, root, map[string]string{"net/dev": dev.String(), "class/net/uplink/device/vendor": "x\n"})
	r := run(t, func(string) (statfs.Usage, error) { return statfs.Usage{}, nil }, "", "--procfs="+root, "--sysfs="+root, "--state-dir="+t.TempDir())
	network := payloadOf(t, r.stdout, "network")
	if network["uplink"] == nil || network["guest499"] != nil {
		t.Errorf("uplink = %v, guest499 = %v; want the first alone", network["uplink"], network["guest499"])
	}
}

package main

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// netInterface is a selected network interface.
type netInterface struct {
	name string
	key  string // prefix of its counters; it has the ifindex, because names can be swapped
	rank int    // 0 for a device of this host, else 1; lower ranks are reported first
}

// interfaceFilter selects interfaces, as [filter] does. The word auto in skip
// stands for the interfaces that the kernel reports as virtual.
type interfaceFilter struct {
	only, skip []string
}

// auto is the pattern for interfaces that the kernel reports as virtual.
const auto = "auto"

// engineNames are names of interfaces that container engines and hypervisors
// create in large numbers. A * stands for hexadecimal digits, # for decimal
// digits. Adapters do not have such names, so these interfaces are left out
// without reading their files in /sys.
var engineNames = []string{"lo", "veth*", "cali*", "lxc*", "lxc_health", "fwbr#i#", "fwpr#p#", "fwln#i#", "tap#i#", "vnet#", "vif#.#", "vif#.#-emu", "ifb#", "dummy#", "virbr#", "virbr#-nic"}

// virtualNames are names of virtual interfaces that the kernel does not report
// as virtual: bridges without an adapter, and ends of veth pairs that were given
// a name.
var virtualNames = []string{"docker#", "docker_gwbridge", "br-*", "lxcbr#", "lxdbr#", "incusbr#", "podman#", "cni#", "cni-podman#", "cilium_host", "cilium_net", "cilium_vxlan", "nodelocaldns", "kube-ipvs#", "kube-bridge", "kube-dummy-if", "flannel.#", "flannel-v6.#", "vxlan.calico", "vxlan-v6.calico", "weave", "datapath", "ovs-system", "ovs-netdev", "genev_sys_#", "vxlan_sys_#", "br-int", "br-tun", "antrea-gw#", "mgmt#-veth",
	"tun#", "tap#", "tailscale#", "wg#", "zt#", "vmnet#", "vxlan#", "geneve#", "gre#", "gretap#", "erspan#", "sit#", "tunl#", "ip6tnl#", "ip6gre#", "ip_vti#", "ip6_vti#", "nlmon#", "teql#"}

// virtualKinds are the DEVTYPE= of interfaces whose traffic is also counted on
// another interface.
var virtualKinds = []string{"wireguard", "vxlan", "geneve", "gre", "gretap", "ip6gre", "bareudp", "amt", "gtp", "netdevsim", "vrf"}

// tunnelTypes are values of the file type (linux/if_arp.h): loopback, tunnels of
// IP in IP, and interfaces without a link layer, such as tun and WireGuard.
var tunnelTypes = []string{"772", "768", "769", "776", "778", "823", "824", "65534"}

// selectInterface returns the interface called name, and whether f selects it.
func (h *host) selectInterface(f interfaceFilter, name string) (netInterface, bool) {
	n := netInterface{name: name, rank: 1}
	switch {
	case len(f.only) > 0:
		if !matchAny(f.only, name) {
			return n, false
		}
	case matchAny(f.skip, name):
		return n, false
	case slices.Contains(f.skip, auto):
		if matchNames(engineNames, name) {
			return n, false
		}
		real, known := h.isAdapter(name, 4)
		if known && !real || !known && (matchNames(virtualNames, name) || isZeroTier(name)) {
			return n, false
		}
	}
	dir := h.netDir(name)
	if _, err := os.Lstat(dir + "/device"); err == nil {
		n.rank = 0
	}
	n.key = "net " + name + " "
	if index, err := h.readLine(dir + "/ifindex"); err == nil {
		if _, err := parseUint([]byte(index)); err == nil {
			n.key = "net #" + index + " "
		}
	}
	return n, true
}

// isZeroTier reports whether a name is zt and eight letters or digits. ZeroTier
// makes such names.
func isZeroTier(name string) bool {
	return len(name) == 10 && strings.HasPrefix(name, "zt") && strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789") == ""
}

func (h *host) netDir(name string) string { return filepath.Join(h.sysRoot, "class/net", name) }

// isAdapter reports whether an interface is an adapter of this host, or a bridge,
// bond, team or VLAN on top of one. known is false if the files in /sys do not
// answer this. depth limits how many layers are followed.
func (h *host) isAdapter(name string, depth int) (real, known bool) {
	dir := h.netDir(name)
	uevent, err := h.readPath(dir + "/uevent")
	kind := ""
	if err == nil {
		for line := range bytes.Lines(uevent) {
			if value, ok := strings.CutPrefix(strings.TrimSpace(string(line)), "DEVTYPE="); ok {
				kind = value
			}
		}
	}
	if slices.Contains(virtualKinds, kind) {
		return false, true
	}
	if h.exists(dir + "/device") {
		// In dom0, the backend of a Xen guest's interface has a device too.
		modalias, _ := h.readLine(dir + "/device/modalias")
		return !strings.HasPrefix(modalias, "xen-backend:"), true
	}
	if h.exists(dir+"/tun_flags") || slices.Contains(tunnelTypes, h.line(dir+"/type")) {
		return false, true
	}
	lowers, _ := filepath.Glob(dir + "/lower_*")
	ports, _ := filepath.Glob(dir + "/brif/*")
	for _, lower := range append(lowers, ports...) {
		if depth == 0 {
			break
		}
		if real, known := h.isAdapter(strings.TrimPrefix(filepath.Base(lower), "lower_"), depth-1); real && known {
			return true, true
		}
	}
	if len(lowers)+len(ports) > 0 && (kind == "vlan" || h.exists(dir+"/brport")) {
		return false, true
	}
	// A bridge port that is not an adapter belongs to a guest or a container.
	return false, kind != "bond" && h.exists(dir+"/brport")
}

func (h *host) exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// line returns the text of a one-line file, or "" if it cannot be read.
func (h *host) line(path string) string {
	text, _ := h.readLine(path)
	return text
}

// matchNames reports whether a name matches one of patterns. In a pattern, *
// stands for one or more hexadecimal digits, # for one or more decimal digits.
func matchNames(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return matchName(p, name) })
}

func matchName(pattern, name string) bool {
	i := strings.IndexAny(pattern, "*#")
	if i < 0 {
		return pattern == name
	}
	if !strings.HasPrefix(name, pattern[:i]) {
		return false
	}
	rest := strings.TrimLeft(name[i:], "0123456789")
	if pattern[i] == '*' {
		rest = strings.TrimLeft(name[i:], "0123456789abcdef")
	}
	return rest != name[i:] && matchName(pattern[i+1:], rest)
}

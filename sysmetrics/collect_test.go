package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"observability-hub/lib/cli"
	"observability-hub/lib/record"
	"observability-hub/lib/sysexits"
	"observability-hub/sysmetrics/internal/statfs"
)

// By default the host's own network interfaces and disks are selected, as the
// hub's dashboards expect.
func TestDefaultFilters(t *testing.T) {
	c := parsed(t)
	h := &host{sysRoot: t.TempDir(), buf: make([]byte, 4096)} // without /sys only the names decide
	for _, tc := range []struct {
		names string
		want  bool
	}{
		{"eth0 eth1 eno1 enp3s0 enp0s31f6 ens3 enx00e04c680001 wlan0 wlp2s0 wwan0 br0 bond0 team0 vlan10 eth0.100 ib0 usb0 macvtap0 loop0 ppp0 vmbr0 site-link tunnel-berlin wg-office br-lan", true},
		{"lo docker0 docker_gwbridge veth0 veth1a2b3c4 br-9f1c2ab34d5e tun0 tun12 tailscale0 wg0 zt0 ztabcdefgh dummy0 virbr0 virbr0-nic fwbr100i0 fwpr100p0 fwln100i0 tap100i1 vif3.0", false},
		{"ifb0 tap0 vnet3 vmnet8 lxcbr0 lxc1234abcd podman0 cni0 flannel.1 cali12ab34cd56e cilium_host kube-ipvs0 vxlan.calico geneve0 gre0 gretap0 erspan0 sit0 tunl0 ip6tnl0 ip6gre0 ip_vti0 ip6_vti0 nlmon0", false},
	} {
		for name := range strings.FieldsSeq(tc.names) {
			if _, got := h.selectInterface(interfaceFilter{c.Interfaces, c.InterfacesExclude}, name); got != tc.want {
				t.Errorf("interface %s counts: %v; want %v", name, got, tc.want)
			}
		}
	}
	disks := filter{c.Disks, c.DisksExclude}
	for _, tc := range []struct {
		names string
		want  bool
	}{
		{"sda sdaa nvme0n1 vda xvda mmcblk0 dm-0 md0 md127 bcache0 rbd0 drbd0", true},
		{"loop0 loop12 ram0 zram0 sr0 fd0 nbd0", false},
	} {
		for name := range strings.FieldsSeq(tc.names) {
			if got := disks.allows(name); got != tc.want {
				t.Errorf("disk %s counts: %v; want %v", name, got, tc.want)
			}
		}
	}
	mounts := mountFilter{filter{c.Mounts, c.MountsExclude}, c.FsTypes}
	for _, tc := range []struct {
		mounts string // type:point
		want   bool
	}{
		{"ext4:/ xfs:/home btrfs:/srv zfs:/tank vfat:/mnt/stick f2fs:/data ext4:/bootstrap ext4:/srv/boot bcachefs:/x ntfs3:/mnt/w exfat:/mnt/e", true},
		{"ext4:/boot vfat:/boot/efi vfat:/boot/firmware", false},
		{"proc:/proc sysfs:/sys tmpfs:/run devtmpfs:/dev cgroup2:/sys/fs/cgroup overlay:/var/lib/docker/overlay2/a/merged squashfs:/snap/x/1 nsfs:/run/docker/netns/default", false},
		{"nfs:/mnt/a nfs4:/mnt/b cifs:/mnt/c fuse.sshfs:/mnt/d fuse:/mnt/e fuseblk:/mnt/f virtiofs:/mnt/g ceph:/mnt/h autofs:/mnt/i 9p:/mnt/j", false},
	} {
		for pair := range strings.FieldsSeq(tc.mounts) {
			fstype, point, _ := strings.Cut(pair, ":")
			if got := mounts.counts(mount{fstype: fstype, point: point, device: "8:1"}); got != tc.want {
				t.Errorf("mount %s counts: %v; want %v", pair, got, tc.want)
			}
		}
	}
}

// The flags replace the defaults.
func TestFilterFlags(t *testing.T) {
	c := parsed(t, "--interfaces=veth*,lo", "--disks=loop*")
	for name, want := range map[string]bool{"veth1": true, "lo": true, "eth0": false} {
		if got := (filter{c.Interfaces, c.InterfacesExclude}).allows(name); got != want {
			t.Errorf("interface %s counts: %v; want %v", name, got, want)
		}
	}
	for _, tc := range []struct{ flag, yes, no string }{ // type:point
		{"--fs-types=nfs4,fuse.*", "nfs4:/mnt/a fuse.sshfs:/mnt/b ext4:/", "nfs:/mnt/c ext4:/boot tmpfs:/run"},
		{"--mounts=/boot,/run/user/*", "ext4:/boot tmpfs:/run/user/1000", "ext4:/ vfat:/boot/efi tmpfs:/run"},
		{"--mounts-exclude=/srv/*", "ext4:/boot ext4:/", "ext4:/srv/a nfs4:/mnt/a"},
	} {
		c := parsed(t, tc.flag)
		f := mountFilter{filter{c.Mounts, c.MountsExclude}, c.FsTypes}
		for want, pairs := range map[bool]string{true: tc.yes, false: tc.no} {
			for pair := range strings.FieldsSeq(pairs) {
				fstype, point, _ := strings.Cut(pair, ":")
				if got := f.counts(mount{fstype: fstype, point: point, device: "8:1"}); got != want {
					t.Errorf("%s: mount %s counts: %v; want %v", tc.flag, pair, got, want)
				}
			}
		}
	}
}

// parsed returns the collect command after the command line was parsed.
func parsed(t *testing.T, args ...string) *collectCmd {
	t.Helper()
	root := t.TempDir()
	writeTree(t, root, minimalProc)
	a := app()
	c := a.Commands[0].Grammar.(*collectCmd)
	c.ask = statfsFunc(func(string) (statfs.Usage, error) { return statfs.Usage{}, nil }).asks()
	args = append(args, "--procfs="+root, "--sysfs="+root, "--state-dir="+t.TempDir())
	stdout, stderr := tempFile(t), tempFile(t)
	if status := cli.Main(a, args, strings.NewReader(""), stdout, stderr); status != 0 {
		t.Fatalf("sysmetrics %q: status %d, %s", args, status, content(t, stderr))
	}
	return c
}

// minimalProc is the smallest /proc from which collect makes its records.
var minimalProc = map[string]string{
	"sys/kernel/random/boot_id": "0b1c2d3e-4f50-6172-8394-a5b6c7d8e9f0\n",
	"sys/kernel/hostname":       "web1\n",
	"uptime":                    "1000.00 900.00\n",
	"stat":                      "cpu  100 0 50 850 0 0 0 0 0 0\ncpu0 100 0 50 850 0 0 0 0 0 0\nctxt 5\nprocesses 6\n",
	"net/dev":                   netDevHeader,
	"1/mountinfo":               "",
	"diskstats":                 "",
}

// A host may have more resources than fit into one line of the journal. The
// record then leaves some out and says so.
func TestLongPayloads(t *testing.T) {
	wide := func(n int) string { // an interface name has at most 15 bytes
		return fmt.Sprintf("x%014d", n)
	}
	var netdev, later, stat, diskstats, mountinfo strings.Builder
	netdev.WriteString(netDevHeader)
	later.WriteString(netDevHeader)
	for i := range 2000 {
		fmt.Fprintf(&netdev, "%s: %s\n", wide(i), strings.Repeat(" 18446744073709551615", 16))
		fmt.Fprintf(&later, "%s: %s\n", wide(i), strings.Repeat(" 1", 16))
	}
	stat.WriteString("cpu 100 0 50 850\n")
	for i := range 4096 {
		fmt.Fprintf(&stat, "cpu%d 100 0 50 850\n", i)
	}
	for i := range 500 {
		fmt.Fprintf(&diskstats, "8 %d disk%d-%s\n", i, i, strings.Repeat(" 18446744073709551", 17))
		fmt.Fprintf(&mountinfo, "%d 1 8:%d / /srv/%s/%d rw - ext4 /dev/mapper/vg-%d rw\n", 100+i, i, strings.Repeat("long", 20), i, i)
	}
	for _, tc := range []struct {
		name        string
		proc, again map[string]string
		ask         statfsFunc
		says        map[string]string // metric type and a key of _meta.failed or _meta.reset
	}{
		{"many", map[string]string{"net/dev": netdev.String(), "stat": stat.String(), "diskstats": diskstats.String(), "1/mountinfo": mountinfo.String()},
			nil, func(string) (statfs.Usage, error) {
				return statfs.Usage{Total: 1 << 60, Free: 1 << 50, Available: 1 << 50, Inodes: 1 << 40, InodesFree: 1 << 40, Magic: 0xef53}, nil
			},
			map[string]string{"network": "_interfaces", "disk": "_mounts", "cpu": "core_usage"}},
		{"all counters reset", map[string]string{"net/dev": netdev.String(), "stat": strings.ReplaceAll(stat.String(), "100", "99999999"), "diskstats": diskstats.String()},
			map[string]string{"net/dev": later.String(), "stat": stat.String(), "diskstats": strings.ReplaceAll(diskstats.String(), "18446744073709551", "1")}, nil,
			map[string]string{"network": "_interfaces"}},
		{"all mounts fail", map[string]string{"1/mountinfo": mountinfo.String()},
			nil, func(string) (statfs.Usage, error) { return statfs.Usage{}, errors.New("statfs: permission denied") }, nil},
		{"names of maximum length", map[string]string{"1/mountinfo": longNames(4095, "\\001", "\\001")},
			nil, func(string) (statfs.Usage, error) {
				return statfs.Usage{Total: 1 << 60, Free: 1 << 50, Available: 1 << 50, Inodes: 1 << 40, InodesFree: 1 << 40, Magic: 0xef53}, nil
			},
			map[string]string{"disk": "_mounts"}},
		{"names of maximum length, all mounts fail", map[string]string{"1/mountinfo": longNames(4095, "\\001", "x")},
			nil, func(string) (statfs.Usage, error) { return statfs.Usage{}, errors.New("statfs: permission denied") }, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			root, state := t.TempDir(), t.TempDir()
			writeTree(t, root, minimalProc)
			writeTree(t, root, tc.proc)
			ask := tc.ask
			if ask == nil {
				ask = func(string) (statfs.Usage, error) { return statfs.Usage{}, nil }
			}
			args := []string{"--procfs=" + root, "--sysfs=" + root, "--state-dir=" + state, "--disks=*", "--interfaces=*"}
			for n := 1; n <= 2; n++ {
				if n == 2 {
					writeTree(t, root, map[string]string{"uptime": "1060.00 900.00\n"})
					writeTree(t, root, tc.again)
				}
				r := run(t, ask, "", args...)
				if r.status != 0 || r.stderr != "" {
					t.Fatalf("run %d: status %d, stderr %s", n, r.status, r.stderr)
				}
				checkLong(t, r.stdout, tc.says)
			}
		})
	}
}

// longNames returns a mountinfo of 20 mounts whose points and devices have n bytes.
func longNames(n int, inPoint, inSource string) string {
	var b strings.Builder
	for i := range 20 {
		unit := len(unescape([]byte(inPoint)))
		fmt.Fprintf(&b, "%d 1 8:%d / /%c%s rw - ext4 /%s rw\n", 100+i, i, 'a'+i, strings.Repeat(inPoint, (n-2)/unit), strings.Repeat(inSource, n-1))
	}
	return b.String()
}

func checkLong(t *testing.T, out string, says map[string]string) {
	t.Helper()
	lines := strings.SplitAfter(strings.TrimSuffix(out, "\n"), "\n")
	if len(lines) != 4 {
		t.Errorf("%d lines; want 4", len(lines))
	}
	for _, line := range lines {
		var r struct {
			MetricType string `json:"metric_type"`
			Payload    struct {
				Meta struct {
					Failed map[string]string `json:"failed"`
				} `json:"_meta"`
			} `json:"payload"`
		}
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Errorf("%v: %.200s", err, line)
		}
		if len(line) > record.MaxLine {
			t.Errorf("%s: a line of %d bytes; want at most %d", r.MetricType, len(line), record.MaxLine)
		}
		if key, ok := says[r.MetricType]; ok && !strings.Contains(r.Payload.Meta.Failed[key], "left out") {
			t.Errorf("%s: _meta.failed = %.300q; want %s to say what was left out", r.MetricType, r.Payload.Meta.Failed, key)
		}
	}
}

// With --rootfs a run in a container samples the host that is mounted there: its
// mount points, /proc, /sys and /etc.
func TestRootfs(t *testing.T) {
	root := t.TempDir()
	proc := make(map[string]string)
	for name, text := range minimalProc {
		proc["proc/"+name] = text
	}
	writeTree(t, root, proc)
	writeTree(t, root, map[string]string{
		"proc/1/mountinfo":            "1 0 8:1 / / rw - ext4 /dev/vda rw\n2 1 8:2 / /srv rw - ext4 /dev/vdb rw\n",
		"etc/os-release":              "ID=alpine\nVERSION_ID=3.20\n",
		"etc/machine-id":              "0123456789abcdef0123456789abcdef\n",
		"sys/class/hwmon/hwmon0/name": "cpu_thermal\n", "sys/class/hwmon/hwmon0/temp1_input": "48000\n",
	})
	var asked []string
	r := run(t, func(point string) (statfs.Usage, error) {
		asked = append(asked, point)
		return statfs.Usage{Total: 5}, nil
	}, "", "--rootfs="+root+"/", "--state-dir="+t.TempDir())
	disk, cpu := payloadOf(t, r.stdout, "disk"), payloadOf(t, r.stdout, "cpu")
	if disk["/"] == nil || disk["/srv"] == nil || strings.Join(asked, " ") != root+"/ "+root+"/srv" {
		t.Errorf("disk = %v, asked %q; want / and /srv below %s", disk, asked, root)
	}
	if cpu["package_temp"] != 48.0 || !strings.Contains(r.stdout, `"os":"alpine 3.20"`) || strings.Count(r.stdout, `"machine_id":"0123456789abcdef0123456789abcdef"`) != 4 {
		t.Errorf("the records are not those of the host at --rootfs: %s", r.stdout)
	}
	for _, id := range []string{"", "uninitialized\n", "0123\n", strings.Repeat("x", 32)} {
		writeTree(t, root, map[string]string{"etc/machine-id": id})
		if r := run(t, func(string) (statfs.Usage, error) { return statfs.Usage{}, nil }, "", "--rootfs="+root, "--state-dir="+t.TempDir()); r.status != 0 || strings.Contains(r.stdout, "machine_id") {
			t.Errorf("machine-id %q: status %d, %s", id, r.status, r.stdout)
		}
	}
	if r := run(t, nil, "", "--rootfs=/nowhere", "--state-dir="+t.TempDir()); r.status != 78 {
		t.Errorf("--rootfs=/nowhere: status %d; want 78", r.status)
	}
}

// The hint of a missing procfs names the flags that lead to one.
func TestMissingProcfs(t *testing.T) {
	r := run(t, nil, "", "--procfs", t.TempDir()+"/none", "--state-dir", t.TempDir())
	if r.status != sysexits.Config || r.stdout != "" {
		t.Errorf("status %d, stdout %s; want 78 and no record", r.status, r.stdout)
	}
	for _, want := range []string{`"msg":"no_procfs"`, "--procfs /proc", "--rootfs"} {
		if !strings.Contains(r.stderr, want) {
			t.Errorf("stderr %s; want %s in it", r.stderr, want)
		}
	}
}

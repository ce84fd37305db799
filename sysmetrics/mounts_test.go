package main

import (
	"fmt"
	"maps"
	"strings"
	"testing"

	"observability-hub/sysmetrics/internal/statfs"
)

// defaultMounts is the filter that the command line sets by default.
var defaultMounts = mountFilter{filter{skip: []string{"/boot", "/boot/*"}}, nil}

// points returns the mounts that would be asked first.
func points(t *testing.T, text string, f mountFilter) (result []mount, odd int) {
	mounts, _ := parseMountinfo([]byte(text), f, func([]byte, error) { odd++ })
	for _, group := range candidates(mounts) {
		first := group[0]
		first.inMemory = false // TestInMemory is about it
		result = append(result, first)
	}
	return result, odd
}

func TestParseMountinfo(t *testing.T) {
	root := mount{id: "22", parent: "1", device: "8:1", root: "/", point: "/", fstype: "ext4", source: "/dev/sda1"}
	with := func(change func(*mount)) []mount { m := root; change(&m); return []mount{m} }
	for _, tc := range []struct {
		name, text string
		want       []mount
		odd        int
	}{
		{"one", "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw,errors=remount-ro\n", []mount{root}, 0},
		{"no optional fields, no options of the file system", "22 1 8:1 / / rw - ext4 /dev/sda1\n", []mount{root}, 0},
		{"several optional fields", "22 1 8:1 / / rw shared:1 master:2 propagate_from:3 unbindable - ext4 /dev/sda1 rw\n", []mount{root}, 0},
		{"mounted read-only", "22 1 8:1 / / ro,relatime - ext4 /dev/sda1 rw\n", with(func(m *mount) { m.readOnly = true }), 0},
		{"file system read-only", "22 1 8:1 / / rw - ext4 /dev/sda1 ro\n", with(func(m *mount) { m.readOnly, m.superRO = true, true }), 0},
		{"ro in another word", "22 1 8:1 / / rw,rotate - ext4 /dev/sda1 rw,errors=remount-ro\n", []mount{root}, 0},
		{"escapes", `22 1 8:1 /a\040b /c\011d\134e rw - ext4 /dev/f\040g rw` + "\n", with(func(m *mount) { m.root, m.point, m.source = "/a b", "/c\td\\e", "/dev/f g" }), 0},
		{"not UTF-8", "22 1 8:1 / /a\xff\\134 rw - ext4 /dev/sda1 rw\n", with(func(m *mount) { m.point = "/a\xff\\" }), 0},
		{"a name that looks like the separator", `22 1 8:1 / /a\040-\040b rw - ext4 /dev/sda1 rw` + "\n", with(func(m *mount) { m.point = "/a - b" }), 0},
		{"a source that is empty", "22 1 8:1 / / rw - ext4  rw\n", with(func(m *mount) { m.source = "rw" }), 0},
		{"odd lines beside a good one", "x\n22 1 8:1 / / rw ext4 /dev/sda1 rw\n22 1 8:1 / - ext4 /dev/sda1 rw\n22 1 8:1 / / rw -  \n\n22 1 8:1 / / rw - ext4 /dev/sda1\n", []mount{root}, 4},
		{"empty", "", nil, 0},
	} {
		got, odd := points(t, tc.text, defaultMounts)
		if odd != tc.odd || fmt.Sprint(got) != fmt.Sprint(tc.want) {
			t.Errorf("%s: %+v, %d odd lines; want %+v, %d", tc.name, got, odd, tc.want, tc.odd)
		}
	}
}

func TestCandidates(t *testing.T) {
	for _, tc := range []struct {
		name, text string
		want       string // mount points
	}{
		{"bind mount", "1 0 8:1 / / rw - ext4 a rw\n2 1 8:1 /srv /mnt rw - ext4 a rw\n", "/"},
		{"bind mount that comes first", "1 0 8:2 /part /mnt rw - ext4 a rw\n2 1 8:2 / /srv rw - ext4 a rw\n", "/srv"},
		{"two parts of a file system that is not mounted whole", "1 0 8:2 /part/of /b rw - ext4 a rw\n2 1 8:2 /part /a rw - ext4 a rw\n", "/a"},
		{"the same twice", "1 0 8:2 / /b rw - ext4 a rw\n2 1 8:2 / /a rw - ext4 a rw\n", "/b"},
		{"the root is a part", "1 0 8:2 /deploy/1 / rw - ext4 a rw\n2 1 8:2 / /sysroot rw - ext4 a rw\n", "/"},
		{"subvolumes", "1 0 0:9 /@ / rw - btrfs a rw\n2 1 0:9 /@home /home rw - btrfs a rw\n3 1 0:9 /@home /mnt rw - btrfs a rw\n", "/ /home"},
		// btrfs names the subvolume of a bind mount in its options: Docker, snapper and systemd's sandboxes make such mounts.
		{"plain directories of a subvolume", "1 0 0:9 /@ / rw - btrfs /dev/sda2 rw,subvolid=256,subvol=/@\n2 1 0:9 /@/srv/a /a rw - btrfs /dev/sda2 rw,subvolid=256,subvol=/@\n" +
			"3 1 0:9 /@/srv/b /b rw - btrfs /dev/sda2 rw,subvolid=256,subvol=/@\n4 1 0:9 /@home /home rw - btrfs /dev/sda2 rw,subvolid=257,subvol=/@home\n5 1 0:9 /@home/u /u rw - btrfs /dev/sda2 rw,subvolid=257,subvol=/@home\n", "/ /home"},
		{"directories of a subvolume that is not mounted whole", "2 1 0:9 /@/srv/a /a rw - btrfs /dev/sda2 rw,subvolid=256,subvol=/@\n3 1 0:9 /@/srv /b rw - btrfs /dev/sda2 rw,subvolid=256,subvol=/@\n", "/b"},
		{"subvolumes without ids, as before Linux 4.2", "1 0 0:9 / / rw - btrfs a rw,subvol=/@\n2 1 0:9 / /u rw - btrfs a rw,subvol=/@\n", "/"},
		{"datasets", "1 0 0:9 / /tank rw - zfs tank rw\n2 1 0:10 / /tank/a rw - zfs tank/a rw\n", "/tank /tank/a"},
		{"hidden by a later mount", "1 0 8:1 / /a rw - ext4 a rw\n2 1 8:2 / /a rw - ext4 b rw\n", "/a"},
		{"hidden, but also mounted elsewhere", "1 0 8:1 / /a rw - ext4 a rw\n2 1 8:1 / /b rw - ext4 a rw\n3 1 8:2 / /a rw - ext4 b rw\n", "/b /a"},
		{"hidden by a mount that is not selected", "1 0 8:1 / /a rw - ext4 a rw\n2 1 0:9 / /a rw - nfs4 nas:/ rw\n", ""},
		{"hidden by a tmpfs, but also mounted elsewhere", "1 0 8:1 / /a rw - ext4 a rw\n2 1 8:1 / /b rw - ext4 a rw\n3 1 0:9 / /a rw - tmpfs none rw\n", "/b"},
		{"mounted on a mount that is not selected", "1 0 0:9 / /a rw - autofs systemd-1 rw\n2 1 8:1 / /a rw - ext4 a rw\n", "/a"},
		{"mounted on the first root", "1 1 0:2 / / rw - rootfs rootfs rw\n2 1 8:1 / / rw - ext3 a rw\n", "/"},
		// A disk is mounted over the parent directory of a mount. The path of that mount now leads into the disk.
		{"below a later mount", "1 0 8:1 / / rw - ext4 a rw\n2 1 8:2 / /srv/data rw - xfs b rw\n3 1 8:3 / /srv rw - ext4 c rw\n", "/ /srv"},
		{"two steps below a later mount", "1 0 8:1 / / rw - ext4 a rw\n2 1 8:2 / /srv/data rw - xfs b rw\n4 2 8:4 / /srv/data/x rw - xfs d rw\n3 1 8:3 / /srv rw - ext4 c rw\n", "/ /srv"},
		{"below a parent that is hidden", "1 0 8:1 / / rw - ext4 a rw\n2 1 8:2 / /srv rw - xfs b rw\n3 2 8:3 / /srv/x rw - xfs c rw\n4 2 8:4 / /srv rw - xfs d rw\n", "/ /srv"},
		{"mounted again on the mount that hid it", "1 0 8:1 / / rw - ext4 a rw\n2 1 8:2 / /srv/data rw - xfs b rw\n3 1 8:3 / /srv rw - ext4 c rw\n4 3 8:2 / /srv/data rw - xfs b rw\n", "/ /srv /srv/data"},
		{"a name with the same beginning", "1 0 8:1 / / rw - ext4 a rw\n2 1 8:2 / /srv2 rw - xfs b rw\n3 1 8:3 / /srv rw - ext4 c rw\n", "/ /srv2 /srv"},
		{"ids that are not consistent", "1 1 8:1 / / rw - ext4 a rw\n1 1 8:2 / /a rw - xfs b rw\n", "/ /a"},
	} {
		mounts, odd := points(t, tc.text, defaultMounts)
		var got []string
		for _, m := range mounts {
			got = append(got, m.point)
		}
		if strings.Join(got, " ") != tc.want || odd != 0 {
			t.Errorf("%s: mounts = %q, %d odd lines; want %q", tc.name, got, odd, tc.want)
		}
	}
}

func TestMountCounts(t *testing.T) {
	for _, tc := range []struct {
		lines string // device type source point
		want  bool
	}{
		{"8:1 ext4 /dev/sda1 /\n0:30 zfs tank/data /tank\n0:31 btrfs /dev/sda /b\n0:32 bcachefs /dev/sda:/dev/sdb /c\n0:20 ubifs ubi0:rootfs /u\n31:3 jffs2 mtd3 /overlay\n8:2 newfs /dev/sda2 /n\n0:40 xfs /dev/fake /x", true},
		// Shares of VirtualBox, VMware, Parallels, WSL and QEMU, and an unknown type.
		{"0:45 vboxsf shared /media/sf\n0:46 vmhgfs .host:/ /mnt/hgfs\n0:47 prl_fs none /media/psf\n0:48 9p drvfs /mnt/c\n0:49 virtiofs hostshare /mnt/v\n0:50 drvfs C:\\134 /mnt/d\n0:51 newsharefs share /mnt/n\n0:52 fuse.vmhgfs-fuse vmhgfs-fuse /mnt/f\n0:53 unknown nas:/export /mnt/e\n0:54 unknown //nas/x /mnt/s", false},
		{"0:60 nfsd nfsd /proc/fs/nfsd\n0:61 xenfs xenfs /proc/xen\n0:62 resctrl resctrl /sys/fs/resctrl\n0:63 newkernelfs none /sys/fs/new\n8:5 ext4 /dev/sda5 /proc/odd", false},
	} {
		for line := range strings.Lines(tc.lines) {
			f := strings.Fields(line)
			text := fmt.Sprintf("22 1 %s / %s rw - %s %s rw\n", f[0], f[3], f[1], f[2])
			if got, _ := points(t, text, defaultMounts); (len(got) == 1) != tc.want {
				t.Errorf("%q counts: %v; want %v", line, len(got) == 1, tc.want)
			}
		}
	}
}

// TestOddMounts checks the payloads that collect prints for odd mounts.
func TestOddMounts(t *testing.T) {
	answer := map[string]statfs.Usage{
		"/":               {Total: 1000, Free: 500, Available: 400, Device: "0:99"}, // a copy of another host's /proc: no device matches
		"/etc/hosts":      {Total: 7, File: true},
		"/srv/empty":      {},
		"/srv/hidden":     {Total: 2000, Device: "8:1"},
		"/srv/b":          {Total: 3000, Available: 0, Free: 0, Device: "0:31"}, // a btrfs subvolume: st_dev is its own
		"/var/lib/data":   {Total: 4000, Free: 1},
		"/run/containers": {Total: 4000, Magic: tmpfsMagic},
	}
	for _, tc := range []struct{ name, text, want, failed string }{
		{"plain", "1 0 8:1 / / rw - ext4 /dev/vda rw\n", "/", ""},
		{"no blocks", "1 0 8:1 / / rw - ext4 /dev/vda rw\n2 1 8:2 / /srv/empty rw - oddfs /dev/x rw\n", "/", ""},
		{"another mount answers", "1 0 8:1 / / rw - ext4 /dev/vda rw\n2 1 8:2 / /srv/hidden rw - ext4 /dev/vdb rw\n", "/", "/srv/hidden"},
		{"a subvolume", "1 0 0:30 / /srv/b rw - btrfs /dev/vdb rw,subvolid=5\n", "/srv/b", ""},
		{"a file alone", "1 0 8:3 /x /etc/hosts rw - ext4 /dev/vdc rw\n", "", ""},
		{"a file, then a directory", "1 0 8:3 /x /etc/hosts rw - ext4 /dev/vdc rw\n2 0 8:3 /longer /var/lib/data rw - ext4 /dev/vdc rw\n", "/var/lib/data", ""},
		{"hidden by a sandbox", "1 0 8:4 / /run/containers rw - ext4 /dev/vdd rw\n", "", "/run/containers"},
		{"an odd line", "1 0 8:1 / / rw - ext4 /dev/vda rw\nodd\n", "/", `mountinfo: "odd"`},
	} {
		root := t.TempDir()
		writeTree(t, root, minimalProc)
		writeTree(t, root, map[string]string{"1/mountinfo": tc.text})
		r := run(t, func(point string) (statfs.Usage, error) { return answer[point], nil }, "", "--procfs="+root, "--sysfs="+root, "--state-dir="+t.TempDir())
		disk := payloadOf(t, r.stdout, "disk")
		var got []string
		for _, key := range sortedKeys(disk) {
			if !strings.HasPrefix(key, "_") {
				got = append(got, key)
			}
		}
		failed := disk["_meta"].(map[string]any)["failed"].(map[string]any)
		if strings.Join(got, " ") != tc.want || strings.Join(sortedKeys(failed), " ") != tc.failed {
			t.Errorf("%s: mounts %q, failed %v; want %q and %q", tc.name, got, failed, tc.want, tc.failed)
		}
	}
}

// With hidepid=1 or 2 (a hardened host), and in a container without PID 1, only the mounts of this process can be read. Its
// sandbox makes them read-only.
func TestOwnMountsOnly(t *testing.T) {
	root := t.TempDir()
	writeTree(t, root, minimalProc)
	writeTree(t, root, map[string]string{"self/mountinfo": "1 0 8:1 / / ro - ext4 /dev/vda rw\n2 1 8:2 / /a rw - ext4 /dev/vdb rw\n3 1 8:3 / /b ro - ext4 /dev/vdc ro\n"})
	deny(t, root+"/1/mountinfo")
	r := run(t, func(string) (statfs.Usage, error) { return statfs.Usage{Total: 1}, nil }, "", "--procfs="+root, "--sysfs="+root, "--state-dir="+t.TempDir())
	disk := payloadOf(t, r.stdout, "disk")
	for point, want := range map[string]any{"/": nil, "/a": false, "/b": true} {
		if got := disk[point].(map[string]any)["read_only"]; got != want {
			t.Errorf("%s is read-only: %v; want %v", point, got, want)
		}
	}
	reason, _ := disk["_meta"].(map[string]any)["failed"].(map[string]any)["mounts"].(string)
	if !strings.Contains(reason, "1/mountinfo") || !strings.Contains(reason, "hidepid") {
		t.Errorf("failed says %q; want it to name the file and hidepid", reason)
	}
}

func FuzzParseMountinfo(f *testing.F) {
	for _, seed := range fixtures(f, "1/mountinfo") {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		mounts, _ := parseMountinfo(data, defaultMounts, func([]byte, error) {})
		for _, group := range candidates(mounts) {
			for _, m := range group {
				if !defaultMounts.counts(m) {
					t.Fatalf("mount %+v does not count", m)
				}
				if m.device != group[0].device || m.subvolume != group[0].subvolume {
					t.Fatalf("%+v and %+v are not of one file system", m, group[0])
				}
			}
		}
	})
}

func TestUnescape(t *testing.T) {
	for _, tc := range []struct{ in, want string }{
		{"", ""}, {"plain", "plain"}, {`a\040b`, "a b"}, {`\011\012\134`, "\t\n\\"}, {`\`, `\`}, {`\04`, `\04`}, {`\049`, `\049`},
		{`\1340`, `\0`}, {`a\\040`, `a\ `}, {"\xff", "\xff"},
	} {
		if got := unescape([]byte(tc.in)); got != tc.want {
			t.Errorf("unescape(%q) = %q; want %q", tc.in, got, tc.want)
		}
	}
}

// Every mount point is unchanged after it was escaped and unescaped.
func FuzzUnescape(f *testing.F) {
	for _, s := range []string{"", "plain", " \t\n\\", `\040`, `\\`, "é\xff"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		unescape([]byte(s)) // no panic on what the kernel never writes
		escaped := strings.NewReplacer(" ", `\040`, "\t", `\011`, "\n", `\012`, `\`, `\134`).Replace(s)
		if got := unescape([]byte(escaped)); got != s {
			t.Fatalf("unescape(%q) = %q; want %q", escaped, got, s)
		}
	})
}

// A mount is asked without a child process only if neither its own file system
// nor one on the way to it can hang.
func TestInMemory(t *testing.T) {
	line := func(id, parent, device, point, fstype, super string) string {
		return id + " " + parent + " " + device + " / " + point + " rw - " + fstype + " /dev/x " + super + "\n"
	}
	for _, tc := range []struct {
		name, mountinfo string
		want            map[string]bool
	}{
		{"local disks", line("1", "1", "8:1", "/", "ext4", "rw") + line("2", "1", "8:2", "/srv", "ext3", "rw,errors=continue"), map[string]bool{"/": true, "/srv": true}},
		{"a file system that may read its disk", line("1", "1", "8:1", "/", "btrfs", "rw") + line("2", "1", "8:2", "/srv", "ext4", "rw"), map[string]bool{"/": false, "/srv": false}},
		{"xfs", line("1", "1", "8:1", "/", "ext4", "rw") + line("2", "1", "8:2", "/srv", "xfs", "rw"), map[string]bool{"/": true, "/srv": false}},
		{"beside one that may", line("1", "1", "8:1", "/", "ext4", "rw") + line("2", "1", "8:2", "/boot/efi", "vfat", "rw") + line("3", "1", "8:3", "/boot/efi2", "ext4", "rw"), map[string]bool{"/": true, "/boot/efi": false, "/boot/efi2": true}},
		{"below a share", line("1", "1", "8:1", "/", "ext4", "rw") + line("2", "1", "0:9", "/net", "nfs4", "rw") + line("3", "2", "8:3", "/net/disk", "ext4", "rw"), map[string]bool{"/": true, "/net/disk": false}},
		{"below an automount", line("1", "1", "8:1", "/", "ext4", "rw") + line("2", "1", "0:9", "/data", "autofs", "rw") + line("3", "2", "8:3", "/data", "ext4", "rw"), map[string]bool{"/": true, "/data": false}},
		{"below FUSE", line("1", "1", "8:1", "/", "ext4", "rw") + line("2", "1", "0:9", "/f", "fuse.sshfs", "rw") + line("3", "2", "8:3", "/f/disk", "ext4", "rw"), map[string]bool{"/": true, "/f/disk": false}},
		{"project quotas", line("1", "1", "8:1", "/", "ext4", "rw") + line("2", "1", "8:2", "/srv", "ext4", "rw,prjquota"), map[string]bool{"/": true, "/srv": false}},
	} {
		mounts, _ := parseMountinfo([]byte(tc.mountinfo), mountFilter{}, func(l []byte, err error) { t.Errorf("%s: %v", l, err) })
		got := map[string]bool{}
		for _, m := range mounts {
			got[m.point] = m.inMemory
		}
		if !maps.Equal(got, tc.want) {
			t.Errorf("%s: in memory: %v; want %v", tc.name, got, tc.want)
		}
	}
}

package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// defaultMounts is the filter that the command line sets by default.
var defaultMounts = mountFilter{filter{skip: []string{"/boot", "/boot/*"}}, strings.Split(skipTypes, ","), nil}

func TestParseMountinfo(t *testing.T) {
	for _, tc := range []struct {
		name, text string
		want       []mount
		err        string
	}{
		{"one", "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw,errors=remount-ro\n",
			[]mount{{"8:1", "/", "/", "ext4", "/dev/sda1", false, false}}, ""},
		{"no optional fields, no options of the file system", "22 1 8:1 / / rw - ext4 /dev/sda1\n",
			[]mount{{"8:1", "/", "/", "ext4", "/dev/sda1", false, false}}, ""},
		{"several optional fields", "22 1 8:1 / / rw shared:1 master:2 propagate_from:3 unbindable - ext4 /dev/sda1 rw\n",
			[]mount{{"8:1", "/", "/", "ext4", "/dev/sda1", false, false}}, ""},
		{"mounted read-only", "22 1 8:1 / /a ro,relatime - ext4 /dev/sda1 rw\n", []mount{{"8:1", "/", "/a", "ext4", "/dev/sda1", true, false}}, ""},
		{"file system read-only", "22 1 8:1 / /a rw - ext4 /dev/sda1 ro\n", []mount{{"8:1", "/", "/a", "ext4", "/dev/sda1", true, false}}, ""},
		{"ro in another word", "22 1 8:1 / /a rw,rotate - ext4 /dev/sda1 rw,errors=remount-ro\n", []mount{{"8:1", "/", "/a", "ext4", "/dev/sda1", false, false}}, ""},
		{"escapes", `22 1 8:1 /a\040b /c\011d\134e rw - ext4 /dev/f\040g rw` + "\n", []mount{{"8:1", "/a b", "/c\td\\e", "ext4", "/dev/f g", false, false}}, ""},
		{"a name that looks like the separator", `22 1 8:1 / /a\040-\040b rw - ext4 /dev/sda1 rw` + "\n", []mount{{"8:1", "/", "/a - b", "ext4", "/dev/sda1", false, false}}, ""},
		{"garbage that is filtered out", "22 1 0:5 / /proc rw - proc\n", []mount{}, ""},
		{"no separator", "22 1 8:1 / / rw ext4 /dev/sda1 rw\n", nil, "no separator"},
		{"short", "22 1 8:1 / - ext4 /dev/sda1 rw\n", nil, "short"},
		{"no type", "22 1 8:1 / / rw -  \n", nil, "no type"},
		{"no source", "22 1 8:1 / / rw - ext4\n", nil, "no source"},
		{"empty", "", []mount{}, ""},
	} {
		got, err := parseMountinfo([]byte(tc.text), defaultMounts)
		if tc.err != "" {
			if err == nil || !strings.Contains(err.Error(), tc.err) {
				t.Errorf("%s: parseMountinfo = %v, %v; want an error with %q", tc.name, got, err, tc.err)
			}
			continue
		}
		if err != nil || !slices.Equal(got, tc.want) {
			t.Errorf("%s: parseMountinfo = %+v, %v; want %+v", tc.name, got, err, tc.want)
		}
	}
}

func TestDistinct(t *testing.T) {
	for _, tc := range []struct {
		name, text string
		want       string // mount points
	}{
		{"bind mount", "1 0 8:1 / / rw - ext4 a rw\n2 1 8:1 /srv /mnt rw - ext4 a rw\n", "/"},
		{"bind mount that comes first", "1 0 8:2 /part /mnt rw - ext4 a rw\n2 1 8:2 / /srv rw - ext4 a rw\n", "/srv"},
		{"two parts of what is mounted nowhere whole", "1 0 8:2 /part/of /b rw - ext4 a rw\n2 1 8:2 /part /a rw - ext4 a rw\n", "/a"},
		{"the same twice", "1 0 8:2 / /b rw - ext4 a rw\n2 1 8:2 / /a rw - ext4 a rw\n", "/b"},
		{"the root is a part", "1 0 8:2 /deploy/1 / rw - ext4 a rw\n2 1 8:2 / /sysroot rw - ext4 a rw\n", "/"},
		{"subvolumes", "1 0 0:9 /@ / rw - btrfs a rw\n2 1 0:9 /@home /home rw - btrfs a rw\n3 1 0:9 /@home /mnt rw - btrfs a rw\n", "/ /home"},
		{"datasets", "1 0 0:9 / /tank rw - zfs tank rw\n2 1 0:10 / /tank/a rw - zfs tank/a rw\n", "/tank /tank/a"},
		{"covered by a later one", "1 0 8:1 / /a rw - ext4 a rw\n2 1 8:2 / /a rw - ext4 b rw\n", "/a"},
		{"covered, but seen elsewhere", "1 0 8:1 / /a rw - ext4 a rw\n2 1 8:1 / /b rw - ext4 a rw\n3 1 8:2 / /a rw - ext4 b rw\n", "/a /b"},
		{"covered by one that does not count", "1 0 8:1 / /a rw - ext4 a rw\n2 1 0:9 / /a rw - nfs4 nas:/ rw\n", ""},
		{"covered by a tmpfs, but seen elsewhere", "1 0 8:1 / /a rw - ext4 a rw\n2 1 8:1 / /b rw - ext4 a rw\n3 1 0:9 / /a rw - tmpfs none rw\n", "/b"},
		{"mounted on what does not count", "1 0 0:9 / /a rw - autofs systemd-1 rw\n2 1 8:1 / /a rw - ext4 a rw\n", "/a"},
		{"the old root below", "1 1 0:2 / / rw - rootfs rootfs rw\n2 1 8:1 / / rw - ext3 a rw\n", "/"},
		{"sorted", "1 0 8:1 / /b rw - ext4 a rw\n2 1 8:2 / / rw - ext4 b rw\n3 1 8:3 / /a rw - ext4 c rw\n", "/ /a /b"},
	} {
		f := defaultMounts
		f.skip = append(slices.Clone(f.skip), "rootfs")
		mounts, err := parseMountinfo([]byte(tc.text), f)
		var points []string
		for _, m := range mounts {
			points = append(points, m.point)
		}
		if got := strings.Join(points, " "); got != tc.want || err != nil {
			t.Errorf("%s: mounts = %q, %v; want %q", tc.name, got, err, tc.want)
		}
	}
}

// A container engine mounts single files of the host over /etc/hosts and its
// like. They are no disks; a folder of the same file system is.
func TestDistinctPassesOverFiles(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "hosts")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	hosts := mount{device: "8:1", root: "/f", point: file, fstype: "ext4"}
	data := mount{device: "8:1", root: "/var/data", point: dir, fstype: "ext4"}
	for _, tc := range []struct {
		name   string
		mounts []mount
		want   []string
	}{
		{"a file alone", []mount{hosts}, nil},
		{"a folder behind it", []mount{hosts, data}, []string{dir}},
		{"a whole file system is not asked", []mount{{device: "8:2", root: "/", point: file, fstype: "ext4"}}, []string{file}},
		{"nor is one that may hang", []mount{{device: "0:50", root: "/x", point: file, fstype: "nfs4"}}, []string{file}},
		{"one that cannot be seen from here stays", []mount{{device: "8:3", root: "/x", point: filepath.Join(dir, "absent"), fstype: "ext4"}},
			[]string{filepath.Join(dir, "absent")}},
	} {
		got := distinct(tc.mounts)
		if len(got) != len(tc.want) {
			t.Errorf("%s: distinct = %v; want %v", tc.name, got, tc.want)
			continue
		}
		for i, m := range got {
			if m.point != tc.want[i] {
				t.Errorf("%s: distinct = %v; want %v", tc.name, got, tc.want)
			}
		}
	}
}

func TestDoubtful(t *testing.T) {
	for _, tc := range []struct {
		types string
		want  bool
	}{
		{"ext4 xfs btrfs zfs vfat tmpfs overlay bcachefs", false},
		{"nfs nfs4 cifs smb3 9p ceph fuse fuse.sshfs fuseblk virtiofs autofs glusterfs", true},
	} {
		for fstype := range strings.FieldsSeq(tc.types) {
			if got := (mount{fstype: fstype}).doubtful(); got != tc.want {
				t.Errorf("doubtful(%s) = %v; want %v", fstype, got, tc.want)
			}
		}
	}
	// A type that nobody knows, whose source says that it is elsewhere.
	for source, want := range map[string]bool{"nas:/export": true, "//nas/share": true, "/dev/sda1": false, "tank/data": false} {
		if got := (mount{fstype: "vboxsf", source: source}).doubtful(); got != want {
			t.Errorf("doubtful(vboxsf from %s) = %v; want %v", source, got, want)
		}
	}
}

func FuzzParseMountinfo(f *testing.F) {
	for _, seed := range fixtures(f, "1/mountinfo") {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		mounts, err := parseMountinfo(data, defaultMounts)
		if err != nil {
			return
		}
		type identity struct{ device, subvolume string }
		seen := make(map[identity]string)
		for i, m := range mounts {
			if !defaultMounts.allows(m) {
				t.Fatalf("mount %+v does not count", m)
			}
			if i > 0 && mounts[i-1].point >= m.point {
				t.Fatalf("%q is behind %q", m.point, mounts[i-1].point)
			}
			id := identity{device: m.device}
			if m.fstype == "btrfs" {
				id.subvolume = m.root
			}
			if other, ok := seen[id]; ok {
				t.Fatalf("%q and %q are one file system", other, m.point)
			}
			seen[id] = m.point
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

// Whatever a mount point is called, it comes back as it was.
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

package main

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strings"
)

// mount is one line of proc_pid_mountinfo(5).
type mount struct {
	device   string // major:minor
	root     string // the folder of the file system that is mounted
	point    string
	fstype   string
	source   string // for example /dev/sda1
	readOnly bool
	below    bool // the way to it leads through a mount that may hang
}

// mountFilter decides which mounts count: those that are named, whatever
// their type, else those of a type that is a disk of this host.
type mountFilter struct {
	points filter   // by mount point
	skip   []string // file system types that are not a disk of this host, as patterns
	also   []string // of those, the types that count all the same
}

// skipTypes are the file systems that hold no disk space of this host: the
// kernel's own, memory, overlays, images, FUSE and the network's.
const skipTypes = "autofs,bdev,binfmt_misc,bpf,cgroup,cgroup2,configfs,cpuset,debugfs,devpts,devtmpfs,efivarfs,fusectl,hugetlbfs,mqueue,nsfs,pipefs,proc,pstore,ramfs,rpc_pipefs,secretmem,securityfs,selinuxfs,sockfs,sysfs,tmpfs,tracefs," +
	"overlay,aufs,squashfs,erofs,iso9660,udf," + remoteTypes

// remoteTypes are those of them whose answers come from another process or
// host, if at all. An automount point asks for a mount.
const remoteTypes = "fuse,fuse.*,fuseblk,virtiofs,autofs," +
	"nfs,nfs4,cifs,smb3,smbfs,9p,afs,ceph,coda,glusterfs,gpfs,lustre,beegfs,ncpfs,ocfs2,orangefs"

// allows looks at the type and the name, the two things that cost nothing.
func (f mountFilter) allows(m mount) bool {
	if !f.points.allows(m.point) {
		return false
	}
	return len(f.points.only) > 0 || !matchAny(f.skip, m.fstype) || matchAny(f.also, m.fstype)
}

// doubtful reports whether statfs(2) on the mount may hang: whether it, or a
// mount on the way to it, needs an answer from outside the kernel.
func (m mount) doubtful() bool {
	remote := strings.Contains(m.source, ":/") || strings.HasPrefix(m.source, "//") // host:/path, //host/share
	return remote || m.below || matchAny(strings.Split(remoteTypes, ","), m.fstype)
}

// parseMountinfo returns the mounts that the filter allows. A line that it
// drops is not parsed beyond its type and mount point.
func parseMountinfo(data []byte, f mountFilter) ([]mount, error) {
	var mounts []mount
	var remote []string // mount points that may hang, whether they count or not
	remotes := strings.Split(remoteTypes, ",")
	for len(data) > 0 {
		var line []byte
		line, data, _ = bytes.Cut(data, []byte("\n"))
		if len(line) == 0 {
			continue
		}
		// 36 35 98:0 /root /point rw,noatime shared:1 - ext4 /dev/sda1 rw
		left, right, ok := bytes.Cut(line, []byte(" - "))
		if !ok {
			return nil, fmt.Errorf("mountinfo: line %q has no separator", line)
		}
		var l [6][]byte
		rest := fields(left)
		for i := range l {
			var err error
			if l[i], err = rest.next(); err != nil {
				return nil, fmt.Errorf("mountinfo: line %q is short", line)
			}
		}
		rest = fields(right)
		fstype, err := rest.next()
		if err != nil {
			return nil, fmt.Errorf("mountinfo: line %q has no type", line)
		}
		m := mount{point: unescape(l[4]), fstype: string(fstype)}
		if matchAny(remotes, m.fstype) {
			remote = append(remote, m.point+"/")
		}
		if !f.allows(m) {
			// What it covers is out of reach: statfs would ask m, which may hang.
			mounts = slices.DeleteFunc(mounts, func(covered mount) bool { return covered.point == m.point })
			continue
		}
		source, err := rest.next()
		if err != nil {
			return nil, fmt.Errorf("mountinfo: line %q has no source", line)
		}
		super, _ := rest.next() // "" is a file system without options
		m.device, m.root, m.source = string(l[2]), unescape(l[3]), unescape(source)
		m.readOnly = hasOption(l[5], "ro") || hasOption(super, "ro")
		mounts = append(mounts, m)
	}
	for i, m := range mounts {
		mounts[i].below = slices.ContainsFunc(remote, func(point string) bool { return strings.HasPrefix(m.point, point) })
	}
	return distinct(mounts), nil
}

// distinct leaves one mount of each file system, and of each btrfs subvolume:
// a bind mount shows the same space again. The root folder is kept before
// others, then the mount of the largest part of the file system, then the
// first; never a bind mount of a single file, as container engines make of
// /etc/hosts. A mount that a later one at the same place hides is dropped. The
// result is sorted by mount point.
func distinct(mounts []mount) []mount {
	type identity struct{ device, subvolume string }
	candidates := make(map[identity][]mount)
	visible := make(map[string]int, len(mounts))
	for i, m := range mounts {
		visible[m.point] = i
	}
	for i, m := range mounts {
		if visible[m.point] != i {
			continue
		}
		id := identity{device: m.device}
		if m.fstype == "btrfs" {
			id.subvolume = m.root
		}
		candidates[id] = append(candidates[id], m)
	}
	result := make([]mount, 0, len(candidates))
	for _, same := range candidates {
		slices.SortStableFunc(same, preference)
		if i := slices.IndexFunc(same, func(m mount) bool { return !m.isFile() }); i >= 0 {
			result = append(result, same[i])
		}
	}
	slices.SortFunc(result, func(a, b mount) int { return strings.Compare(a.point, b.point) })
	return result
}

// preference orders the mounts of one file system.
func preference(a, b mount) int {
	if (a.point == "/") != (b.point == "/") {
		if a.point == "/" {
			return -1
		}
		return 1
	}
	return len(a.root) - len(b.root)
}

// isFile reports whether a single file is mounted. A whole file system never
// is one, and a doubtful one is not asked: that may hang.
func (m mount) isFile() bool {
	if m.root == "/" || m.doubtful() {
		return false
	}
	info, err := os.Lstat(m.point)
	return err == nil && !info.IsDir()
}

func hasOption(options []byte, name string) bool {
	for len(options) > 0 {
		var o []byte
		o, options, _ = bytes.Cut(options, []byte(","))
		if string(o) == name {
			return true
		}
	}
	return false
}

// unescape undoes the \ooo that the kernel writes for space, tab, line break
// and backslash (fs/seq_file.c, mangle_path).
func unescape(b []byte) string {
	if bytes.IndexByte(b, '\\') < 0 {
		return string(b)
	}
	var out []byte
	for i := 0; i < len(b); i++ {
		if b[i] == '\\' && i+3 < len(b) && octal(b[i+1]) && octal(b[i+2]) && octal(b[i+3]) {
			out = append(out, (b[i+1]-'0')<<6|(b[i+2]-'0')<<3|(b[i+3]-'0'))
			i += 3
			continue
		}
		out = append(out, b[i])
	}
	return string(out)
}

func octal(c byte) bool { return c >= '0' && c <= '7' }

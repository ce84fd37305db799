package main

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
)

// mount is one line of proc_pid_mountinfo(5).
type mount struct {
	id, parent string
	device     string // major:minor
	root       string // the directory in the file system that is mounted
	point      string
	fstype     string
	source     string // for example /dev/sda1
	subvolume  string // only for btrfs: subvolid, else subvol, else root
	readOnly   bool   // the mount or its file system is read-only
	superRO    bool   // the file system is read-only, so it is in every namespace
	unsure     bool   // readOnly may come from this process's sandbox
	inMemory   bool   // statfs(2) needs no disk, server or daemon, here and on the way to the mount point
	quota      bool   // a file system with project quotas
}

// memoryTypes are file systems whose statfs(2) returns numbers that the kernel
// has in memory. So it answers even if the disk does not. xfs is not one of them:
// Linux 5.14 to 5.17 waits there for work on the disk.
var memoryTypes = []string{"ext2", "ext3", "ext4", "tmpfs"}

// answersFromMemory reports whether the file system answers statfs(2) from memory.
// With project quotas it may read the quota of the directory from the disk.
func (m mount) answersFromMemory() bool {
	return slices.Contains(memoryTypes, m.fstype) && !m.quota
}

// mountFilter selects mounts. If points.only is not empty, it selects the mounts
// that match it, of any type. Else it selects the mounts with disk space of this
// host that do not match points.skip.
type mountFilter struct {
	points filter   // by mount point
	also   []string // patterns of types that are selected too, even if they hold no disk space of this host
}

// skipTypes are patterns of file system types without disk space of this host:
// those of the kernel, of memory, overlays, images, FUSE and the network.
var skipTypes = strings.Split("autofs,bdev,binfmt_misc,bpf,cgroup,cgroup2,configfs,cpuset,debugfs,devpts,devtmpfs,efivarfs,functionfs,fusectl,hugetlbfs,ipathfs,mqueue,nfsd,nsfs,pipefs,proc,pstore,ramfs,resctrl,rootfs,rpc_pipefs,secretmem,securityfs,selinuxfs,smackfs,sockfs,spufs,sysfs,tmpfs,tracefs,usbfs,xenfs,"+
	"overlay,overlayfs,aufs,unionfs,squashfs,erofs,cramfs,romfs,iso9660,udf,"+
	"fuse,fuse.*,fuseblk,virtiofs,9p,v9fs,vboxsf,vmhgfs,prl_fs,drvfs,hostfs,shiftfs,"+
	"nfs,nfs4,cifs,smb3,smbfs,afs,kafs,ceph,coda,glusterfs,gpfs,lustre,beegfs,ncpfs,ocfs2,gfs,gfs2,orangefs,pvfs2,panfs,quobyte,mvfs,acfs", ",")

// diskTypes are local file systems for which mountinfo shows no block device,
// because they span several devices or lie on flash memory.
var diskTypes = []string{"btrfs", "zfs", "bcachefs", "ubifs", "jffs2", "yaffs", "yaffs2", "lxfs", "wslfs", "tux3", "nova"}

// counts reports whether the filter selects the mount. An unknown type is
// selected if it lies on a block device. The shares of hypervisors, old and new
// ones, have an anonymous device (major 0) and a source that is not a path.
func (f mountFilter) counts(m mount) bool {
	switch {
	case !f.points.allows(m.point):
		return false
	case len(f.points.only) > 0, matchAny(f.also, m.fstype):
		return true
	case matchAny(skipTypes, m.fstype), strings.HasPrefix(m.point, "/proc/"), strings.HasPrefix(m.point, "/sys/"):
		return false
	case slices.Contains(diskTypes, m.fstype):
		return true
	case strings.Contains(m.source, ":/"), strings.HasPrefix(m.source, "//"): // host:/path, //host/share
		return false
	}
	return !strings.HasPrefix(m.device, "0:") || strings.HasPrefix(m.source, "/")
}

// parseMountinfo returns the mounts that the filter selects and that can be
// reached by their mount point, and the devices of all mounts. It calls odd for
// each line that it cannot parse, and goes on with the next line.
func parseMountinfo(data []byte, f mountFilter, odd func(line []byte, err error)) (mounts []mount, devices map[string]bool) {
	var all []mount
	for line := range bytes.Lines(data) {
		if line = bytes.TrimRight(line, "\n"); len(line) == 0 {
			continue
		}
		m, err := parseMount(line)
		if err != nil {
			odd(line, err)
			continue
		}
		all = append(all, m)
	}
	devices = make(map[string]bool, len(all))
	children := make(map[string][]int) // by parent
	byID := make(map[string]int, len(all))
	for i, m := range all {
		devices[m.device] = true
		children[m.parent] = append(children[m.parent], i)
		byID[m.id] = i
	}
	for i, m := range all {
		if f.counts(m) && !hidden(all, children, byID, i) {
			m.inMemory = inMemory(all, byID, i)
			mounts = append(mounts, m)
		}
	}
	return mounts, devices
}

// hidden reports whether the path of a mount leads to another mount: because
// another one was mounted on the same point, or later on a directory above it,
// or because its parent mount is hidden in one of these ways.
func hidden(all []mount, children map[string][]int, byID map[string]int, i int) bool {
	m := all[i]
	if slices.ContainsFunc(children[m.id], func(j int) bool { return j != i && all[j].point == m.point }) {
		return true
	}
	from := i
	for range all { // at most this many steps up
		m := all[i]
		if slices.ContainsFunc(children[m.parent], func(j int) bool {
			return j > i && j != from && (all[j].point == m.point || below(m.point, all[j].point))
		}) {
			return true
		}
		up, ok := byID[m.parent]
		if !ok || up == i {
			return false
		}
		from, i = i, up
	}
	return false
}

// inMemory reports whether a mount, and each mount on the way to it, answers from
// memory.
func inMemory(all []mount, byID map[string]int, i int) bool {
	for range all { // at most this many steps up
		if !all[i].answersFromMemory() {
			return false
		}
		up, ok := byID[all[i].parent]
		if !ok || up == i {
			return true
		}
		i = up
	}
	return false
}

// below reports whether path is below directory and not directory itself.
func below(path, directory string) bool {
	return path != directory && (directory == "/" || strings.HasPrefix(path, directory+"/"))
}

// parseMount reads one line:
//
//	36 35 98:0 /root /point rw,noatime shared:1 - ext4 /dev/sda1 rw
func parseMount(line []byte) (m mount, err error) {
	left, right, ok := bytes.Cut(line, []byte(" - "))
	if !ok {
		return m, fmt.Errorf("no separator")
	}
	var l [6][]byte
	rest := fields(left)
	for i := range l {
		if l[i], err = rest.next(); err != nil {
			return m, fmt.Errorf("line is too short")
		}
	}
	rest = fields(right)
	fstype, err := rest.next()
	if err != nil {
		return m, fmt.Errorf("no file system type")
	}
	source, _ := rest.next() // the kernel prints an empty source as nothing
	super, _ := rest.next()  // "" if the file system has no options
	m = mount{id: string(l[0]), parent: string(l[1]), device: string(l[2]), root: unescape(l[3]), point: unescape(l[4]),
		fstype: unescape(fstype), source: unescape(source), superRO: hasOption(super, "ro")}
	m.quota = hasOption(super, "prjquota") || hasOption(super, "pquota")
	m.readOnly = m.superRO || hasOption(l[5], "ro")
	if m.fstype == "btrfs" {
		if m.subvolume = option(super, "subvolid="); m.subvolume == "" {
			m.subvolume = option(super, "subvol=")
		}
		if m.subvolume == "" {
			m.subvolume = m.root
		}
	}
	return m, nil
}

// fileSystem identifies what is mounted: a device and, for btrfs, a subvolume.
type fileSystem struct{ device, subvolume string }

// candidates groups mounts by file system, because a bind mount shows the same
// space again. In each group the best mount is first: the root directory, else
// the mount of the largest part of the file system, else the first in mountinfo.
func candidates(mounts []mount) [][]mount {
	index := make(map[fileSystem]int)
	var result [][]mount
	for _, m := range mounts {
		fs := fileSystem{m.device, m.subvolume}
		i, ok := index[fs]
		if !ok {
			i = len(result)
			index[fs], result = i, append(result, nil)
		}
		result[i] = append(result[i], m)
	}
	for _, same := range result {
		slices.SortStableFunc(same, preference)
	}
	return result
}

// preference compares two mounts of one file system for [candidates].
func preference(a, b mount) int {
	if (a.point == "/") != (b.point == "/") {
		if a.point == "/" {
			return -1
		}
		return 1
	}
	return len(a.root) - len(b.root)
}

// option returns the value of the option that begins with name, or "" if there is
// none.
func option(options []byte, name string) string {
	for o := range bytes.SplitSeq(options, []byte(",")) {
		if value, ok := bytes.CutPrefix(o, []byte(name)); ok {
			return unescape(value)
		}
	}
	return ""
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

// unescape decodes \ooo. The kernel writes space, tab, line break and backslash
// in this way (fs/seq_file.c, mangle_path).
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

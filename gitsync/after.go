package main

import (
	"bufio"
	"errors"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"observability-hub/gitsync/internal/unit"
)

// after is the host as it will be after a plan: the files of the commit over the
// files of the host, without the files that the plan removes.
type after struct {
	host host
	want *want
	gone map[string]bool // paths that the plan removes
	left map[string]bool // paths of the commit where the host keeps its own file

	// The rest is a cache.
	units  map[string]*unit.Unit      // parsed units, by name
	listed map[string]map[string]bool // names in a directory
	links  map[string][]string        // names in a directory that are symbolic links on the host
	other  map[string]string          // the target of each alias
	named  map[string][]string        // all names of a unit
}

func newAfter(h host, w *want, gone map[string]bool) *after {
	return &after{host: h, want: w, gone: gone, units: map[string]*unit.Unit{}, listed: map[string]map[string]bool{}, links: map[string][]string{}, named: map[string][]string{}}
}

// file returns the file of the commit that will be at a host path, or nil.
func (a *after) file(p string) *wantedFile {
	if a.left[p] {
		return nil
	}
	return a.want.file(p)
}

// names returns the names that will be in a directory.
func (a *after) names(dir string) map[string]bool {
	if names, ok := a.listed[dir]; ok {
		return names
	}
	names := map[string]bool{}
	a.listed[dir] = names
	for _, f := range a.want.files {
		if below, ok := strings.CutPrefix(f.path, dir+"/"); ok {
			name, _, _ := strings.Cut(below, "/")
			names[name] = true
		}
	}
	real, err := a.host.resolve(dir)
	if err != nil {
		return names
	}
	entries, err := os.ReadDir(real)
	if err != nil {
		return names
	}
	for _, e := range entries {
		if !a.gone[path.Join(dir, e.Name())] {
			names[e.Name()] = true
			if e.Type() == fs.ModeSymlink {
				a.links[dir] = append(a.links[dir], e.Name())
			}
		}
	}
	return names
}

// unitPath has the directories in which systemd looks for units, in the order of
// priority (systemd.unit(5), "Unit File Load Path"). The units of generators and of
// systemd-run are below /run.
var unitPath = []string{
	"/etc/systemd/system.control", "/run/systemd/system.control", "/run/systemd/transient", "/run/systemd/generator.early",
	unitDir, "/etc/systemd/system.attached", "/run/systemd/system", "/run/systemd/system.attached", "/run/systemd/generator",
	"/usr/local/lib/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system", "/run/systemd/generator.late",
}

// find returns the path where systemd will find the main file of a unit, or of its
// template. It returns "" if there is none. masked says that this file masks the
// unit.
func (a *after) find(name string) (p string, masked bool) {
	if name == "" {
		return "", false
	}
	names := []string{name}
	if t, ok := unit.Template(name); ok {
		names = append(names, t)
	}
	for _, n := range names {
		for _, dir := range unitPath {
			if !a.names(dir)[n] {
				continue
			}
			p := path.Join(dir, n)
			if a.file(p) != nil {
				return p, false
			}
			s, err := a.host.state(p)
			if err != nil || s.kind == "" {
				continue
			}
			return p, isMask(s)
		}
	}
	return "", false
}

// aliases returns the aliases on the host: links to a unit of another name. The
// values are those names.
func (a *after) aliases() map[string]string {
	if a.other != nil {
		return a.other
	}
	a.other = map[string]string{}
	seen := map[string]bool{}
	for _, dir := range unitPath {
		names := a.names(dir)
		for _, name := range a.links[dir] {
			s, err := a.host.state(path.Join(dir, name))
			if target := path.Base(s.link); err == nil && !seen[name] && unit.Type(target) == unit.Type(name) && target != name {
				a.other[name] = target
			}
		}
		for name := range names {
			seen[name] = true
		}
	}
	return a.other
}

// id returns the main name of a unit. For an alias this is the unit that it names.
func (a *after) id(name string) string {
	for range 5 {
		target, ok := a.aliases()[name]
		if !ok {
			template, _ := unit.Template(name)
			if target, ok = a.aliases()[template]; !ok {
				break
			}
		}
		if unit.IsTemplate(target) && unit.Instance(name) != "" {
			target = unit.Instantiate(target, unit.Instance(name))
		}
		name = target
	}
	return name
}

// namesOf returns the name of a unit, followed by its aliases.
func (a *after) namesOf(name string) []string {
	if all, ok := a.named[name]; ok {
		return all
	}
	all := []string{name}
	for alias := range a.aliases() {
		if unit.IsTemplate(alias) && unit.Instance(name) != "" {
			alias = unit.Instantiate(alias, unit.Instance(name))
		}
		if alias != name && a.id(alias) == name && !slices.Contains(all, alias) {
			all = append(all, alias)
		}
	}
	slices.Sort(all[1:])
	a.named[name] = all
	return all
}

// isMask reports whether a file in the place of a unit masks the unit, because it
// is a link to /dev/null or is empty (systemctl(1), mask).
func isMask(s fileState) bool {
	return s.kind == "link" && s.link == "/dev/null" || s.kind == "file" && len(s.data) == 0 && s.sum == sum(nil)
}

// maskedByAdmin reports whether the administrator masked a unit of the commit. As
// for systemd, a mask in /run counts only if /etc has no file of that name.
func (a *after) maskedByAdmin(name string) bool {
	s, err := a.host.state(path.Join(unitDir, name))
	if err != nil || s.kind == "file" && len(s.data) > 0 {
		return false
	}
	if s.kind != "" {
		return s.kind == "link" && s.link == "/dev/null"
	}
	s, err = a.host.state(path.Join("/run/systemd/system", name))
	return err == nil && isMask(s)
}

// content returns the content that a host path will have. It returns nil if there
// will be no readable file.
func (a *after) content(p string) []byte {
	if f := a.file(p); f != nil {
		return f.content
	}
	if a.gone[p] {
		return nil
	}
	real, err := a.host.resolve(p)
	if err != nil {
		return nil
	}
	b, err := readRegular(real, maxFile)
	if err != nil {
		return nil
	}
	return b
}

// dropIns returns the paths of the drop-ins that will apply to a unit, in the
// order in which systemd applies them.
func (a *after) dropIns(name string) []string {
	var all []string
	names, places := []string{name}, unitPath
	if unit.Quadlet(name) {
		places = []string{quadletDir, "/usr/share/containers/systemd"}
	} else {
		names = a.namesOf(a.id(name))
	}
	for _, place := range places {
		for _, dir := range unit.DropInDirs(names...) {
			if !a.names(place)[dir] {
				continue
			}
			for n := range a.names(path.Join(place, dir)) {
				if strings.HasSuffix(n, ".conf") {
					all = append(all, path.Join(place, dir, n))
				}
			}
		}
	}
	return unit.DropIns(names, all)
}

// unit returns a unit or quadlet with its drop-ins. It returns nil if the unit will
// not exist or is masked.
func (a *after) unit(name string) *unit.Unit {
	if u, ok := a.units[name]; ok {
		return u
	}
	var main string
	if unit.Quadlet(name) {
		main = path.Join(quadletDir, name)
	} else if p, masked := a.find(name); !masked {
		main = p
	}
	var u *unit.Unit
	if main == "" || strings.HasPrefix(main, "/run/systemd/generator/") {
		u = a.generated(name)
	}
	if main != "" && u == nil {
		var dropIns [][]byte
		for _, p := range a.dropIns(name) {
			dropIns = append(dropIns, a.content(p))
		}
		u = unit.Parse(name, a.content(main), dropIns...)
	}
	a.units[name] = u
	return u
}

// generated returns the service that podman's generator will make of a quadlet of
// the commit. It has only what matters here: the sections of the quadlet and a
// program. It returns nil if there is no such quadlet.
func (a *after) generated(name string) *unit.Unit {
	for _, f := range a.want.files {
		if !f.isQuadlet() || a.service(f.unit) != name {
			continue
		}
		made := "[Service]\nExecStart=/usr/bin/podman\n"
		if kind := unit.Type(f.unit); kind != "container" && kind != "kube" && kind != "pod" {
			made += "Type=oneshot\nRemainAfterExit=yes\n"
		}
		more := [][]byte{[]byte(made)}
		for _, p := range a.dropIns(f.unit) {
			more = append(more, a.content(p))
		}
		return unit.Parse(name, f.content, more...)
	}
	return nil
}

// service returns the name that a unit or quadlet has in systemd. For a quadlet
// this is the service that podman's generator makes of it.
func (a *after) service(name string) string {
	if !unit.Quadlet(name) {
		return name
	}
	contents := [][]byte{a.content(path.Join(quadletDir, name))}
	for _, p := range a.dropIns(name) {
		contents = append(contents, a.content(p))
	}
	return unit.QuadletService(name, contents...)
}

// lookUp returns the paths where systemd looks for a program of a unit: the program
// itself if it is an absolute path, and otherwise the name in each directory of the
// search path (systemd.service(5), "Command lines"; systemd.exec(5),
// ExecSearchPath=).
func lookUp(u *unit.Unit, name string) []string {
	if path.IsAbs(name) {
		return []string{path.Clean(name)}
	}
	dirs := executablePath
	if all := u.Values("Service", "ExecSearchPath"); len(all) > 0 {
		dirs = strings.Split(strings.Join(all, ":"), ":")
	}
	var paths []string
	for _, dir := range dirs {
		paths = append(paths, path.Join(dir, name))
	}
	return paths
}

// executable reports whether a program of a unit will exist and be executable. If
// that cannot be known, it returns true.
func (a *after) executable(u *unit.Unit, name string) bool {
	if u.BringsFiles(name) {
		return true
	}
	root, known := u.RootDirectory()
	if !known {
		return true
	}
	in := a.host
	if root != "" {
		real, err := a.host.resolve(root)
		if err != nil {
			return false
		}
		in = host{root: real} // links in this root lead to files in this root
	}
	for _, p := range lookUp(u, name) {
		if f := a.file(path.Join("/", root, p)); f != nil {
			if f.mode&0o111 != 0 {
				return true
			}
		} else if !a.gone[path.Join("/", root, p)] && in.executable(p) {
			return true
		}
	}
	return false
}

// executable reports whether the host's path p is an executable file. If the
// sandbox of gitsync's own unit hides the directory (ProtectHome=,
// InaccessiblePaths=, PrivateTmp=), this cannot be known. Then it returns true and
// so trusts the unit that names the program.
func (h host) executable(p string) bool {
	r := p
	if h.offline() {
		var err error
		if r, err = h.resolve(p); err != nil {
			return false
		}
	}
	info, err := os.Stat(r)
	switch {
	case err == nil:
		return info.Mode().IsRegular() && info.Mode().Perm()&0o111 != 0
	case h.offline():
		return false
	case errors.Is(err, fs.ErrPermission):
		return true
	}
	return hidden(p)
}

// hidden reports whether a mount in this process's own namespace hides a path: a
// tmpfs, or a mount that systemd puts over inaccessible paths.
func hidden(p string) bool {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return false
	}
	defer f.Close()
	best, isHiding := "", false
	for lines := bufio.NewScanner(f); lines.Scan(); {
		root, point, kind, ok := mountLine(lines.Text())
		if !ok || len(point) < len(best) || point != "/" && p != point && !strings.HasPrefix(p, point+"/") {
			continue
		}
		best = point
		isHiding = point != "/" && (kind == "tmpfs" && !isRuntime(point) || strings.Contains(root, "/systemd/inaccessible/") || strings.Contains(root, "/systemd-private-"))
	}
	return isHiding
}

// isRuntime reports whether hosts usually have a tmpfs at a mount point.
func isRuntime(point string) bool {
	return point == "/run" || point == "/tmp" || point == "/run/lock" || strings.HasPrefix(point+"/", "/dev/")
}

// mountLine parses a line of proc_pid_mountinfo(5).
func mountLine(line string) (root, point, kind string, ok bool) {
	left, right, found := strings.Cut(line, " - ")
	f := strings.Fields(left)
	if !found || len(f) < 6 {
		return "", "", "", false
	}
	kind, _, _ = strings.Cut(right, " ")
	return f[3], f[4], kind, true
}

// hasQuadletGenerator reports whether podman's generator is installed.
func (h host) hasQuadletGenerator() bool {
	for _, dir := range []string{"/run/systemd", "/etc/systemd", "/usr/local/lib/systemd", "/usr/lib/systemd", "/lib/systemd"} {
		if h.executable(path.Join(dir, "system-generators", "podman-system-generator")) {
			return true
		}
	}
	return false
}

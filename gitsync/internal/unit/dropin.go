package unit

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

// DropInDirs returns the names of the directories whose drop-ins systemd applies to
// a unit, in the order of increasing priority: service.d, foo-.service.d,
// foo-bar.service.d. If several directories have a drop-in of the same name, only
// the one with the highest priority counts. systemd applies all drop-ins in the order
// of their names, whatever their directories are (systemd.unit(5)). The first name is
// the unit's own. The others are its aliases, whose directories have a lower
// priority. podman's generator reads the drop-ins of quadlets by the same rules.
func DropInDirs(names ...string) []string {
	var dirs []string
	for _, name := range names {
		if CheckName(name) != nil && !Quadlet(name) {
			continue
		}
		for _, dir := range strongestFirst(name) {
			if !slices.Contains(dirs, dir) {
				dirs = append(dirs, dir)
			}
		}
	}
	if len(dirs) == 0 {
		return nil
	}
	dirs = append(dirs, Type(names[0])+".d")
	slices.Reverse(dirs)
	return dirs
}

// strongestFirst returns the directories of one name in the order of decreasing
// priority. Like systemd, it goes from a unit to its template and to shorter and
// shorter prefixes that end with a dash. The prefixes of the template come before
// those of the instance.
func strongestFirst(name string) []string {
	dirs := []string{name + ".d"}
	if template, ok := Template(name); ok {
		dirs = append(dirs, strongestFirst(template)...)
	}
	prefix, instance, _ := parts(name)
	dash := strings.LastIndexByte(strings.TrimSuffix(prefix, "-"), '-')
	if dash <= 0 {
		return dirs
	}
	shorter := prefix[:dash+1]
	if instance != "" {
		shorter += "@" + instance
	}
	for _, dir := range strongestFirst(shorter + "." + Type(name)) {
		if !slices.Contains(dirs, dir) {
			dirs = append(dirs, dir)
		}
	}
	return dirs
}

// DropInApplies reports whether systemd applies the drop-ins in a directory of this
// name to a unit with these names.
func DropInApplies(dir string, names ...string) bool {
	return slices.Contains(DropInDirs(names...), path.Base(dir))
}

// DropIns returns the paths of the drop-ins that apply to a unit, in the order in
// which systemd applies them. names has the unit's own name and then its aliases.
// paths has the candidates. Those in a unit directory of higher priority come first:
// /etc/systemd/system before /usr/lib/systemd/system.
func DropIns(names, paths []string) []string {
	dirs := DropInDirs(names...)
	var roots []string
	for _, p := range paths {
		if root := path.Dir(path.Dir(p)); !slices.Contains(roots, root) {
			roots = append(roots, root)
		}
	}
	// Only type.d has a lower priority, in every unit directory, than all others.
	weakness := func(p string) int {
		dir := slices.Index(dirs, path.Base(path.Dir(p)))
		if dir == 0 {
			return len(roots)*len(dirs) + slices.Index(roots, path.Dir(path.Dir(p)))
		}
		return slices.Index(roots, path.Dir(path.Dir(p)))*len(dirs) + len(dirs) - dir
	}
	strongest := map[string]string{}
	for _, p := range paths {
		if file := path.Base(p); strings.HasSuffix(file, ".conf") && !strings.HasPrefix(file, ".") && slices.Contains(dirs, path.Base(path.Dir(p))) {
			if other, ok := strongest[file]; !ok || weakness(p) < weakness(other) {
				strongest[file] = p
			}
		}
	}
	var apply []string
	for _, p := range strongest {
		apply = append(apply, p)
	}
	slices.SortFunc(apply, func(a, b string) int { return strings.Compare(path.Base(a), path.Base(b)) })
	return apply
}

// CheckDropInDir returns nil if systemd reads drop-ins from directories of this name,
// such as "x.service.d", "service.d" and "foo-.service.d". Otherwise it returns why
// not.
func CheckDropInDir(dir string) error {
	name, ok := strings.CutSuffix(dir, ".d")
	if !ok {
		return fmt.Errorf("directory %q does not end with .d, as directories of drop-ins do", dir)
	}
	if knownType(name) {
		return nil
	}
	if err := CheckName(name); err != nil {
		return fmt.Errorf("directory %q: %w", dir, err)
	}
	return nil
}

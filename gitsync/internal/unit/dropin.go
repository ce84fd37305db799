package unit

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

// DropInDirs returns the names of the directories whose drop-ins systemd
// applies to a unit, the weakest first: service.d, foo-.service.d,
// foo-bar.service.d. Of drop-ins with one name the one in the strongest
// directory counts, and then all apply in the order of their names, whatever
// their directories (systemd.unit(5)). The other names of a unit are its
// aliases, whose directories are weaker. podman's generator reads those of
// quadlets by the same rules.
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

// strongestFirst walks from a unit to its template and to ever shorter prefixes
// that end with a dash, as systemd does: the prefixes of the template come
// before those of the instance.
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

// DropInApplies reports whether systemd applies the drop-ins in a directory of
// this name to a unit of these names.
func DropInApplies(dir string, names ...string) bool {
	return slices.Contains(DropInDirs(names...), path.Base(dir))
}

// DropIns returns those of the paths of drop-ins that apply to a unit, in the
// order in which they apply. The unit's names are its own and its aliases.
// Paths of a stronger unit directory come first:
// /etc/systemd/system before /usr/lib/systemd/system.
func DropIns(names, paths []string) []string {
	dirs := DropInDirs(names...)
	var roots []string
	for _, p := range paths {
		if root := path.Dir(path.Dir(p)); !slices.Contains(roots, root) {
			roots = append(roots, root)
		}
	}
	// Only type.d is weaker in every unit directory than all others.
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

// CheckDropInDir returns why systemd does not read a directory of drop-ins of
// this name, or nil: "x.service.d", "service.d" and "foo-.service.d" are read.
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

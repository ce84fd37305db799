package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"observability-hub/gitsync/internal/unit"
)

// link is a symbolic link that enables a unit, as a path of the host.
type link struct {
	Path   string `json:"path"`
	Target string `json:"target"`
}

// subject returns the unit that a link enables. In a .wants directory this is the
// name of the link. For an alias it is the unit that the link points to. For the
// alias of an instance it is the same instance of that unit.
func (l link) subject() string {
	name, target := path.Base(l.Path), path.Base(l.Target)
	switch {
	case path.Dir(l.Path) != unitDir:
		return name
	case unit.IsTemplate(target) && unit.Instance(name) != "":
		return unit.Instantiate(target, unit.Instance(name))
	}
	return target
}

// wanter returns the unit that starts the subject of the link when it is started
// itself. It returns "" for an alias.
func (l link) wanter() string {
	dir := path.Base(path.Dir(l.Path))
	if !isWants(dir) {
		return ""
	}
	return strings.TrimSuffix(dir, path.Ext(dir))
}

// enablement is a set of links. It says which units are enabled, and which units
// want them.
type enablement []link

// readEnablement reads all links below /etc/systemd/system.
func readEnablement(h host) (enablement, error) {
	dir, err := h.resolve(unitDir)
	if err != nil {
		return nil, err
	}
	var all enablement
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read enablement: %w", err)
	}
	add := func(p, real string) error {
		target, err := os.Readlink(real)
		if err != nil {
			return fmt.Errorf("read enablement: %w", err)
		}
		all = append(all, link{p, target})
		return nil
	}
	for _, e := range entries {
		p, real := path.Join(unitDir, e.Name()), filepath.Join(dir, e.Name())
		switch {
		case isWants(e.Name()):
			// The directory itself may be a link.
			if real, err = h.resolve(p); err != nil {
				return nil, fmt.Errorf("read enablement: %w", err)
			}
			var below []fs.DirEntry
			if below, err = os.ReadDir(real); notThere(err) {
				err = nil
				continue
			} else if err != nil {
				return nil, fmt.Errorf("read enablement: %w", err)
			}
			for _, b := range below {
				if b.Type() == fs.ModeSymlink && err == nil {
					err = add(path.Join(p, b.Name()), filepath.Join(real, b.Name()))
				}
			}
		case e.Type() == fs.ModeSymlink:
			err = add(p, real)
		}
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}

func isWants(dir string) bool {
	return slices.Contains([]string{".wants", ".requires", ".upholds"}, path.Ext(dir))
}

// of returns the links that enable a unit or, for a template, its instances. It
// leaves out links that mask the unit or give it another file.
func (e enablement) of(name string) enablement {
	var mine enablement
	for _, l := range e {
		subject := l.subject()
		if template, instance := unit.Template(subject); subject != name && !(instance && template == name) {
			continue
		}
		if path.Dir(l.Path) == unitDir && path.Base(l.Path) == path.Base(l.Target) {
			continue // made by systemctl link
		}
		mine = append(mine, l)
	}
	return mine
}

// bySubject groups links by the units that they enable.
func (e enablement) bySubject() map[string]enablement {
	all := map[string]enablement{}
	for _, l := range e {
		all[l.subject()] = append(all[l.subject()], l)
	}
	return all
}

// hasPath reports whether the set has a link with this path.
func (e enablement) hasPath(p string) bool {
	return slices.ContainsFunc(e, func(l link) bool { return l.Path == p })
}

// without returns the links whose paths are not in the other set.
func (e enablement) without(other enablement) enablement {
	var left enablement
	for _, l := range e {
		if !other.hasPath(l.Path) {
			left = append(left, l)
		}
	}
	return left
}

// both returns the links whose paths are in the other set too.
func (e enablement) both(other enablement) enablement {
	var common enablement
	for _, l := range e {
		if other.hasPath(l.Path) {
			common = append(common, l)
		}
	}
	return common
}

// make makes the links on the host. It replaces a link in a .wants directory that
// has another target. An alias must not replace the name of another unit: that is
// an *unhealthy.
func (e enablement) make(h host) error {
	for _, l := range e {
		real, err := h.real(l.Path)
		if err != nil {
			return err
		}
		target, err := os.Readlink(real)
		switch {
		case err == nil && target == l.Target:
			continue
		case err == nil && (l.wanter() != "" || path.Base(target) == path.Base(l.Target)):
			if err := remove(real); err != nil {
				return err
			}
		case !notThere(err):
			return &unhealthy{l.subject(), "its alias " + path.Base(l.Path) + " is the name of another unit on this host"}
		}
		if err := os.MkdirAll(filepath.Dir(real), 0o755); err != nil {
			return err
		}
		if err := os.Symlink(l.Target, real); err != nil {
			return err
		}
	}
	return nil
}

// remove removes the links from the host, and then the .wants directories that are
// empty.
func (e enablement) remove(h host) error {
	for _, l := range e {
		real, err := h.real(l.Path)
		if err != nil {
			return err
		}
		if info, err := os.Lstat(real); err == nil && info.Mode()&fs.ModeSymlink == 0 {
			continue // the path is not a link any more
		}
		if err := remove(real); err != nil {
			return err
		}
		if isWants(path.Dir(l.Path)) {
			_ = os.Remove(filepath.Dir(real)) // fails if the directory has other links
		}
	}
	return nil
}

// restore makes the links of the given units equal to those in e. It removes links
// that were added since, and makes links that are missing.
func (e enablement) restore(h host, units []string) error {
	now, err := readEnablement(h)
	if err != nil {
		return err
	}
	for _, name := range units {
		was, is := e.of(name), now.of(name)
		var added enablement
		for _, l := range is {
			if !slices.Contains(was, l) {
				added = append(added, l)
			}
		}
		if err := errors.Join(added.remove(h), was.make(h)); err != nil {
			return err
		}
	}
	return nil
}

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
)

// link is a symbolic link that enables a unit, as a path of the host.
type link struct {
	Path   string `json:"path"`
	Target string `json:"target"`
}

// enablement is all links below /etc/systemd/system: which units are enabled,
// in what. It is what systemctl changes, and what a rollback puts back.
type enablement []link

// readEnablement reads the links.
func readEnablement(h host) (enablement, error) {
	var all enablement
	dir, err := h.resolve(unitDir)
	if err != nil {
		return nil, err
	}
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
		case e.Type() == fs.ModeSymlink:
			err = add(p, real)
		case e.IsDir() && isWants(e.Name()):
			var below []fs.DirEntry
			if below, err = os.ReadDir(real); err != nil {
				return nil, fmt.Errorf("read enablement: %w", err)
			}
			for _, b := range below {
				if b.Type() == fs.ModeSymlink && err == nil {
					err = add(path.Join(p, b.Name()), filepath.Join(real, b.Name()))
				}
			}
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

// of returns the links that enable a unit or, for a template, its instances:
// those of its name in the .wants folders, and aliases that point to it.
func (e enablement) of(unit string) enablement {
	var mine enablement
	for _, l := range e {
		name := path.Base(l.Path)
		t, instance := template(name)
		alias := path.Dir(l.Path) == unitDir
		switch {
		case alias && name != unit && path.Base(l.Target) == unit:
		case !alias && (name == unit || instance && t == unit):
		default:
			continue
		}
		mine = append(mine, l)
	}
	return mine
}

// has reports whether there is a link at every one of the paths.
func (e enablement) has(paths []string) bool {
	for _, p := range paths {
		if !slices.ContainsFunc(e, func(l link) bool { return l.Path == p }) {
			return false
		}
	}
	return true
}

// putBack makes the links of the given units what they were before: removes
// what was added, makes what is missing.
func (e enablement) putBack(h host, units []string) error {
	now, err := readEnablement(h)
	if err != nil {
		return err
	}
	for _, unit := range units {
		was, is := e.of(unit), now.of(unit)
		for _, l := range is {
			if slices.Contains(was, l) {
				continue
			}
			real, err := h.real(l.Path)
			if err != nil {
				return err
			}
			if err := os.Remove(real); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			// As systemctl disable does; a folder with other links stays.
			if isWants(path.Dir(l.Path)) {
				_ = os.Remove(filepath.Dir(real))
			}
		}
		for _, l := range was {
			if slices.Contains(is, l) {
				continue
			}
			real, err := h.real(l.Path)
			if err != nil {
				return err
			}
			if err := os.MkdirAll(filepath.Dir(real), 0o755); err != nil {
				return err
			}
			if err := os.Symlink(l.Target, real); err != nil && !errors.Is(err, fs.ErrExist) {
				return err
			}
		}
	}
	return nil
}

// units returns the names of the units that the links enable, of those that
// belong to a template the template.
func (e enablement) instancesOf(t string) []string {
	var all []string
	for _, l := range e.of(t) {
		if name := path.Base(l.Path); name != t && !slices.Contains(all, name) && strings.Contains(name, "@") {
			all = append(all, name)
		}
	}
	return all
}

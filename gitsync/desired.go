package main

import (
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"observability-hub/gitsync/internal/gitobj"
)

// Limits of what a commit may want.
const (
	maxFile  = 1 << 20
	maxKept  = 8 << 20 // of a file on the host, which may have grown by hand
	maxFiles = 4000
	maxTotal = 64 << 20
)

// wantedFile is a file that the commit wants on the host.
type wantedFile struct {
	path    string // on the host
	source  string // in the repository
	unit    string // the unit that it belongs to; empty for scripts and presets
	mode    fs.FileMode
	content []byte
	sum     string
}

// isUnit reports whether the file is a unit's main file, not a drop-in.
func (w *wantedFile) isUnit() bool { return w.unit != "" && path.Base(w.path) == w.unit }

// skippedUnit is a unit of the commit that this host does not get.
type skippedUnit struct{ unit, path, reason string }

// desired is what a commit wants: of every host, as read, and of one host,
// after forHost.
type desired struct {
	commit  string
	files   []*wantedFile
	skipped []skippedUnit
	rules   []rule // of .gitsync.json
	size    int    // bytes of all files
}

// readDesired reads what the commit wants. Only plain names and regular files
// are taken; anything else in the folders that are deployed refuses the commit,
// so that a host never has half of it.
func readDesired(o *gitobj.Store, c *gitobj.Commit, scriptsDir string) (*desired, error) {
	d := &desired{commit: c.ID}
	top, err := o.Tree(c.Tree)
	if err != nil {
		return nil, err
	}
	var rules *gitobj.Entry
	for _, e := range top {
		switch e.Name {
		case "systemd", "scripts":
			if !e.IsTree() {
				return nil, gitobj.Refuse(e.Name, "it is "+e.Kind()+", not a folder")
			}
			entries, err := o.Tree(e.ID)
			if err != nil {
				return nil, err
			}
			read := d.readUnits
			if e.Name == "scripts" {
				read = func(o *gitobj.Store, all []gitobj.Entry) error { return d.readScripts(o, all, scriptsDir) }
			}
			if err := read(o, entries); err != nil {
				return nil, err
			}
		case rulesFile:
			rules = &e
		}
	}
	if rules != nil {
		if d.rules, err = readRules(o, *rules, c.Tree); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(d.files, func(a, b *wantedFile) int { return strings.Compare(a.path, b.path) })
	for i := 1; i < len(d.files); i++ {
		if d.files[i].path == d.files[i-1].path {
			return nil, gitobj.Refuse(d.files[i].source, "it and "+d.files[i-1].source+" go to one place: "+d.files[i].path)
		}
	}
	for _, f := range d.files {
		if f.isUnit() {
			if reason := d.withDropIns(f).badInstall(f.unit); reason != "" {
				return nil, gitobj.Refuse(f.source, "[Install] of it or its drop-ins: "+reason)
			}
		}
	}
	return d, nil
}

// readScripts takes the files of scripts/. Folders in it, such as tests, stay.
func (d *desired) readScripts(o *gitobj.Store, entries []gitobj.Entry, scriptsDir string) error {
	for _, e := range entries {
		source := "scripts/" + e.Name
		if err := checkEntry(source, e); err != nil {
			return err
		}
		if e.IsTree() || strings.HasPrefix(e.Name, ".") {
			continue
		}
		if err := d.add(o, e, source, path.Join(scriptsDir, e.Name), ""); err != nil {
			return err
		}
	}
	return nil
}

// readUnits takes the units, drop-ins and presets of systemd/. Other files,
// such as documentation, stay.
func (d *desired) readUnits(o *gitobj.Store, entries []gitobj.Entry) error {
	for _, e := range entries {
		source := "systemd/" + e.Name
		if err := checkEntry(source, e); err != nil {
			return err
		}
		kind := unitType(e.Name)
		unit := strings.TrimSuffix(e.Name, ".d")
		var err error
		switch {
		case strings.HasPrefix(e.Name, "."):
		case e.IsTree() && kind == "d" && (slices.Contains(unitTypes, unitType(unit)) || slices.Contains(unitTypes, unit)):
			err = d.readDropIns(o, e, source, unit)
		case slices.Contains(unitTypes, kind):
			if e.IsTree() {
				return gitobj.Refuse(source, "it is a folder")
			}
			if err := checkUnitName(source, e.Name); err != nil {
				return err
			}
			err = d.add(o, e, source, path.Join(unitDir, e.Name), e.Name)
		case kind == "device" || kind == "scope" || kind == "snapshot":
			return gitobj.Refuse(source, "a "+kind+" unit has no file: systemd makes it")
		case slices.Contains(otherTypes, kind):
			d.skipped = append(d.skipped, skippedUnit{e.Name, path.Join(unitDir, e.Name), "type-not-deployed"})
		case kind == "preset" && !e.IsTree():
			err = d.add(o, e, source, path.Join(presetDir, e.Name), "")
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// readDropIns takes the *.conf files of a folder UNIT.d.
func (d *desired) readDropIns(o *gitobj.Store, dir gitobj.Entry, source, unit string) error {
	entries, err := o.Tree(dir.ID)
	if err != nil {
		return err
	}
	for _, e := range entries {
		source := source + "/" + e.Name
		if err := checkEntry(source, e); err != nil {
			return err
		}
		switch {
		case strings.HasPrefix(e.Name, "."):
		case e.IsTree():
			return gitobj.Refuse(source, "a folder in a drop-in folder")
		case unitType(e.Name) == "conf":
			if err := d.add(o, e, source, path.Join(unitDir, dir.Name, e.Name), unit); err != nil {
				return err
			}
		}
	}
	return nil
}

// add reads one file and wants it at host path p.
func (d *desired) add(o *gitobj.Store, e gitobj.Entry, source, p, unit string) error {
	content, err := o.Blob(source, e.ID, maxFile)
	if err != nil {
		return err
	}
	if gitobj.IsLFSPointer(content) {
		return gitobj.Refuse(source, "it is a Git LFS pointer, and the file that it stands for is not in the repository: commit the file itself (git lfs untrack)")
	}
	w := &wantedFile{path: p, source: source, unit: unit, mode: 0o644, content: content, sum: sum(content)}
	if e.Mode == "100755" && unit == "" {
		w.mode = 0o755
	}
	if unit != "" && slices.Contains(content, 0) {
		return gitobj.Refuse(source, "it holds a NUL byte")
	}
	d.files = append(d.files, w)
	d.size += len(content)
	if len(d.files) > maxFiles || d.size > maxTotal {
		return gitobj.Refuse(source, fmt.Sprintf("more than %d files or %d bytes in all", maxFiles, maxTotal))
	}
	return nil
}

// checkEntry refuses what is not a regular file or folder with a plain name.
func checkEntry(source string, e gitobj.Entry) error {
	if reason := badName(e.Name); reason != "" {
		return gitobj.Refuse(source, reason)
	}
	if !e.IsRegular() && !e.IsTree() {
		return gitobj.Refuse(source, "it is "+e.Kind())
	}
	return nil
}

// badName says what is wrong with a name that is to be a file's; empty if
// nothing is. Letters, digits and :-_.@\ are what systemd.unit(5) allows in
// unit names; scripts may have + , = ~ # and % in addition.
func badName(name string) string {
	switch {
	case name == "" || name == "." || name == "..":
		return "not a file name"
	case len(name) > 200:
		return "a name of more than 200 bytes"
	case strings.HasPrefix(name, "-"):
		return "a name that looks like an option"
	case strings.EqualFold(name, ".git"):
		return "a repository in the repository"
	}
	for _, c := range []byte(name) {
		switch {
		case c < ' ' || c == 0x7f:
			return "a control character in the name"
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', strings.IndexByte(`:-_.@\+,=~#%`, c) >= 0:
		default:
			return fmt.Sprintf("%q in the name", string(rune(c)))
		}
	}
	return ""
}

// checkUnitName refuses names that systemd would not load.
func checkUnitName(source, name string) error {
	base := strings.TrimSuffix(name, path.Ext(name))
	if base == "" || strings.HasPrefix(base, "@") || strings.Count(base, "@") > 1 || strings.ContainsAny(base, "+,=~#%") {
		return gitobj.Refuse(source, "not a name of a unit")
	}
	return nil
}

// file returns the wanted file at a host path, nil if there is none.
func (d *desired) file(p string) *wantedFile {
	i, ok := slices.BinarySearchFunc(d.files, p, func(f *wantedFile, p string) int { return strings.Compare(f.path, p) })
	if !ok {
		return nil
	}
	return d.files[i]
}

// unit returns the parsed main file of a unit, or of its template; nil if the
// commit does not have it.
func (d *desired) unit(name string) unitFile {
	f := d.file(path.Join(unitDir, name))
	if f == nil {
		if t, ok := template(name); ok {
			f = d.file(path.Join(unitDir, t))
		}
	}
	if f == nil {
		return nil
	}
	return parseUnit(f.content)
}

// withDropIns returns a unit's settings with those of its drop-ins behind them.
func (d *desired) withDropIns(f *wantedFile) unitFile {
	u := parseUnit(f.content)
	for _, other := range d.files {
		if other.unit == f.unit && other != f {
			u = append(u, parseUnit(other.content)...)
		}
	}
	return u
}

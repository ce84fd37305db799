package main

import (
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"observability-hub/gitsync/internal/gitobj"
	"observability-hub/gitsync/internal/unit"
)

// Limits on what a commit may want.
const (
	maxFile  = 1 << 20
	maxKept  = 8 << 20 // bytes of a file on the host, which may have been edited since
	maxFiles = 4000
	maxTotal = 64 << 20
)

// wantedFile is a file that the commit wants on the host.
type wantedFile struct {
	path    string // on the host
	source  string // in the repository
	unit    string // the unit or quadlet of the file; empty for scripts and presets
	mode    fs.FileMode
	content []byte
	sum     string
}

// isMain reports whether the file is the main file of a unit or a quadlet. A
// drop-in is not.
func (w *wantedFile) isMain() bool { return w.unit != "" && path.Base(w.path) == w.unit }

// isUnit reports whether the file is the main file of a unit.
func (w *wantedFile) isUnit() bool { return w.isMain() && !unit.Quadlet(w.unit) }

// isQuadlet reports whether the file is the main file of a quadlet.
func (w *wantedFile) isQuadlet() bool { return w.isMain() && unit.Quadlet(w.unit) }

// skippedFile is a file of the commit that this host does not get.
type skippedFile struct{ unit, path, reason string }

// key is the key of the file in the ledger.
func (s skippedFile) key() string {
	if s.unit != "" {
		return s.unit
	}
	return s.path
}

// want is what a commit wants. readWant returns what it wants on every host, and
// want.forHost returns what it wants on one host.
type want struct {
	commit  string
	files   []*wantedFile // by path
	skipped []skippedFile
	rules   []rule // of .gitsync.json
	size    int    // total size of the files in bytes
}

// readWant reads what the commit wants. It accepts only regular files with plain
// names. If the deployed directories contain anything else, it refuses the whole
// commit, because a host must never get a part of a commit.
func readWant(o *gitobj.Store, c *gitobj.Commit, scriptsDir string) (*want, error) {
	w := &want{commit: c.ID}
	top, err := o.Tree(c.Tree)
	if err != nil {
		return nil, err
	}
	for _, e := range top {
		read := w.readUnits
		switch e.Name {
		case "systemd":
		case "scripts":
			read = func(o *gitobj.Store, all []gitobj.Entry) error { return w.readScripts(o, all, scriptsDir) }
		case rulesFile:
			if w.rules, err = readRules(o, e, c.Tree); err != nil {
				return nil, err
			}
			continue
		default:
			continue
		}
		if !e.IsTree() {
			return nil, gitobj.Refuse(e.Name, "it is "+e.Kind()+", not a directory")
		}
		entries, err := o.Tree(e.ID)
		if err != nil {
			return nil, err
		}
		if err := read(o, entries); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(w.files, func(a, b *wantedFile) int { return strings.Compare(a.path, b.path) })
	for i := 1; i < len(w.files); i++ {
		if w.files[i].path == w.files[i-1].path {
			return nil, gitobj.Refuse(w.files[i].source, "it and "+w.files[i-1].source+" would be the same file on the host: "+w.files[i].path)
		}
	}
	return w, nil
}

// readScripts adds the files of scripts/. Directories in it, such as tests, are
// not deployed.
func (w *want) readScripts(o *gitobj.Store, entries []gitobj.Entry, scriptsDir string) error {
	for _, e := range entries {
		source := "scripts/" + e.Name
		if err := checkEntry(source, e); err != nil {
			return err
		}
		if e.IsTree() || strings.HasPrefix(e.Name, ".") {
			continue
		}
		if err := w.add(o, e, source, path.Join(scriptsDir, e.Name), ""); err != nil {
			return err
		}
	}
	return nil
}

// readUnits adds the units, quadlets, drop-ins and presets of systemd/. It skips
// other files, such as documentation.
func (w *want) readUnits(o *gitobj.Store, entries []gitobj.Entry) error {
	for _, e := range entries {
		source := "systemd/" + e.Name
		if err := checkEntry(source, e); err != nil {
			return err
		}
		kind := unit.Type(e.Name)
		var err error
		switch {
		case strings.HasPrefix(e.Name, "."):
		case e.IsTree() && kind == "d" && isDropInDir(e.Name, entries):
			err = w.readDropIns(o, e, source)
		case !isDeployed(e.Name) && kind == "preset" && !e.IsTree():
			err = w.add(o, e, source, path.Join(presetDir, e.Name), "")
		case kind == "device" || kind == "scope" || kind == "snapshot":
			return gitobj.Refuse(source, "systemd creates "+kind+" units itself: they have no files")
		case !isDeployed(e.Name):
			w.passOver(source)
		case e.IsTree():
			return gitobj.Refuse(source, "it is a directory")
		default:
			if err := unit.CheckName(e.Name); err != nil && !unit.Quadlet(e.Name) {
				return gitobj.Refuse(source, err.Error())
			}
			err = w.add(o, e, source, path.Join(placeOf(e.Name), e.Name), e.Name)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// isDropInDir reports whether systemd or podman's generator reads drop-ins of a
// deployed type from a directory of this name. systemd-networkd also has files
// with the suffix .network, so the drop-ins of a quadlet count only if the quadlet
// itself is among the entries.
func isDropInDir(dir string, entries []gitobj.Entry) bool {
	name := strings.TrimSuffix(dir, ".d")
	if unit.Quadlet(name) {
		return slices.ContainsFunc(entries, func(e gitobj.Entry) bool { return e.Name == name })
	}
	return slices.Contains(unit.QuadletTypes(), name) || isDeployed(name) && unit.CheckDropInDir(dir) == nil
}

// isDeployed reports whether gitsync deploys files of this name or type for
// systemd or for podman's generator.
func isDeployed(name string) bool {
	return unit.Deployed(name) || unit.Quadlet(name) || slices.Contains(unit.Types(), name) || slices.Contains(unit.QuadletTypes(), name)
}

// placeOf returns the directory on the host for a unit or quadlet of this name, or
// for the drop-ins of a type.
func placeOf(name string) string {
	if unit.Quadlet(name) || slices.Contains(unit.QuadletTypes(), name) {
		return quadletDir
	}
	return unitDir
}

// passOver records a file of systemd/ that is not deployed.
func (w *want) passOver(source string) {
	w.skipped = append(w.skipped, skippedFile{path: source, reason: "not-deployed"})
}

// readDropIns adds the *.conf files of a directory NAME.d.
func (w *want) readDropIns(o *gitobj.Store, dir gitobj.Entry, source string) error {
	entries, err := o.Tree(dir.ID)
	if err != nil {
		return err
	}
	name := strings.TrimSuffix(dir.Name, ".d")
	for _, e := range entries {
		source := source + "/" + e.Name
		if err := checkEntry(source, e); err != nil {
			return err
		}
		switch {
		case strings.HasPrefix(e.Name, "."):
		case e.IsTree():
			return gitobj.Refuse(source, "it is a directory in a drop-in directory")
		case unit.Type(e.Name) != "conf":
			w.passOver(source)
		default:
			if err := w.add(o, e, source, path.Join(placeOf(name), dir.Name, e.Name), name); err != nil {
				return err
			}
		}
	}
	return nil
}

// add reads one file and adds it at the host path p. name is its unit or quadlet.
func (w *want) add(o *gitobj.Store, e gitobj.Entry, source, p, name string) error {
	content, err := o.Blob(source, e.ID, maxFile)
	if err != nil {
		return err
	}
	if gitobj.IsLFSPointer(content) {
		return gitobj.Refuse(source, "it is a Git LFS pointer, not the file; gitsync does not fetch from LFS")
	}
	if name != "" && path.Dir(p) == quadletDir && isNetworkd(content) {
		w.passOver(source)
		return nil
	}
	f := &wantedFile{path: p, source: source, unit: name, mode: 0o644, content: content, sum: sum(content)}
	if e.Mode == "100755" && name == "" {
		f.mode = 0o755
	}
	if name != "" && slices.Contains(content, 0) {
		return gitobj.Refuse(source, "it contains a NUL byte")
	}
	w.files = append(w.files, f)
	w.size += len(content)
	if len(w.files) > maxFiles || w.size > maxTotal {
		return gitobj.Refuse(source, fmt.Sprintf("the commit has more than %d files or %d bytes in all", maxFiles, maxTotal))
	}
	return nil
}

// isNetworkd reports whether a .network file is for systemd-networkd
// (systemd.network(5)) and is not a quadlet.
func isNetworkd(content []byte) bool {
	u := unit.Parse("x.network", content)
	return len(u.Values("Match", "Name"))+len(u.Values("Match", "MACAddress"))+len(u.Values("Match", "Type")) > 0
}

// checkEntry refuses an entry that is not a regular file or directory with a plain
// name.
func checkEntry(source string, e gitobj.Entry) error {
	if reason := badName(e.Name); reason != "" {
		return gitobj.Refuse(source, reason)
	}
	if !e.IsRegular() && !e.IsTree() {
		return gitobj.Refuse(source, "it is "+e.Kind())
	}
	return nil
}

// badName returns why a deployed file cannot have a name; empty if it can.
// systemd.unit(5) allows letters, digits and :-_.@\ in the names of units. The
// names of scripts may also contain + , = ~ # and %.
func badName(name string) string {
	switch {
	case name == "" || name == "." || name == "..":
		return "it is not a file name"
	case len(name) > 200:
		return "its name is longer than 200 bytes"
	case strings.HasPrefix(name, "-") && !strings.HasPrefix(name, "-."): // -.mount is the unit of the root file system
		return "its name looks like an option"
	case strings.EqualFold(name, ".git"):
		return "it is a repository in the repository"
	}
	for _, c := range []byte(name) {
		switch {
		case c < ' ' || c == 0x7f:
			return "its name contains a control character"
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', strings.IndexByte(`:-_.@\+,=~#%`, c) >= 0:
		default:
			return fmt.Sprintf("its name contains %q", string(rune(c)))
		}
	}
	return ""
}

// file returns the wanted file at a host path, or nil.
func (w *want) file(p string) *wantedFile {
	i, ok := slices.BinarySearchFunc(w.files, p, func(f *wantedFile, p string) int { return strings.Compare(f.path, p) })
	if !ok {
		return nil
	}
	return w.files[i]
}

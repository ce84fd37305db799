package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"observability-hub/gitsync/internal/unit"
	"observability-hub/lib/durable"
	"observability-hub/lib/sysexits"
)

// journal is written before the first change to the host and removed after the
// last. While it exists, an apply is unfinished. It contains everything that is
// needed to undo that apply, which the next run does first.
type journal struct {
	Version  int         `json:"version"`
	Root     string      `json:"root"`
	Commit   string      `json:"commit"`
	Began    time.Time   `json:"began"`
	Run      string      `json:"run"`           // unique name of the run
	Bad      string      `json:"bad,omitempty"` // why to quarantine the commit after the undo; empty if it is not bad
	Files    []savedFile `json:"files"`
	Dirs     []string    `json:"dirs"`               // directories that did not exist before
	Links    enablement  `json:"links"`              // all links before the change
	Units    []string    `json:"units"`              // units whose links, files or state the change affects
	Active   []string    `json:"active"`             // of these and their instances, units that were running
	Retrying []string    `json:"retrying,omitempty"` // units that systemd was about to start again, or that were starting and that the change restarts
	Starting []string    `json:"starting,omitempty"` // units that were starting and that the change does not restart
	Bound    []string    `json:"bound,omitempty"`    // other running units, which systemd stops together with one of the units
	Running  bool        `json:"running"`            // systemd runs on this root
}

// savedFile is a file before the change. Kind is empty if there was no file.
type savedFile struct {
	Path    string      `json:"path"`
	Kind    string      `json:"kind"`
	Mode    fs.FileMode `json:"mode"`
	UID     uint32      `json:"uid"`
	GID     uint32      `json:"gid"`
	Content []byte      `json:"content"`
	Sum     string      `json:"sha256"`
}

const (
	journalFile    = "journal.json"
	journalVersion = 1
)

// Names of the files that an unfinished apply has beside a file NAME. systemd does
// not read them, because they begin with a dot and do not end with a unit type.
const (
	newPrefix = ".gitsync-new-" // the new content of NAME
	oldPrefix = ".gitsync-old-" // the old content of NAME; restoring it needs no space on a full disk
	suffix    = "~"
)

func beside(p, prefix string) string {
	return path.Join(path.Dir(p), prefix+path.Base(p)+suffix)
}

// newJournal records the state of the host that the actions will change.
func newJournal(v view, commit string, actions []action) (*journal, error) {
	now := time.Now().UTC()
	j := &journal{Version: journalVersion, Root: v.host.root, Commit: commit, Began: now, Run: fmt.Sprintf("%d-%d", now.UnixNano(), os.Getpid()), Links: v.links, Running: v.running != nil}
	units, dirs, restarted := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for _, a := range actions {
		if a.Action == doRun || a.Action == doSkip {
			continue
		}
		restarted[a.Unit] = restarted[a.Unit] || a.Action == doRestart
		for _, name := range append([]string{a.Unit, a.service}, a.start...) {
			if name != "" {
				units[name] = true
			}
		}
		for _, l := range append(slices.Clone(a.add), a.drop...) {
			units[l.subject()] = true
		}
		if !a.isFile() {
			continue
		}
		s, err := v.host.state(a.Path)
		if err != nil {
			return nil, err
		}
		if s.kind != "" && s.kind != "file" || s.kind == "file" && s.data == nil && s.sum != sum(nil) {
			return nil, fmt.Errorf("%s changed during this run", a.Path)
		}
		j.Files = append(j.Files, savedFile{a.Path, s.kind, s.mode, s.uid, s.gid, s.data, s.sum})
		for d := path.Dir(a.Path); d != "/"; d = path.Dir(d) {
			real, err := v.host.resolve(d)
			if err != nil {
				return nil, err
			}
			if _, err := os.Lstat(real); errors.Is(err, fs.ErrNotExist) {
				dirs[d] = true
			}
		}
	}
	j.Units = slices.Sorted(maps.Keys(units))
	j.Dirs = slices.Sorted(maps.Keys(dirs))
	for _, name := range slices.Sorted(maps.Keys(v.running)) {
		t, instance := unit.Template(name)
		if !units[name] && !(instance && units[t]) {
			continue
		}
		if s := v.running[name]; s.runs() {
			j.Active = append(j.Active, name)
		} else if s.retries() || s.starting(name) && restarted[name] {
			j.Retrying = append(j.Retrying, name)
		} else if s.starting(name) {
			j.Starting = append(j.Starting, name)
		}
	}
	return j, nil
}

// bind records the running units that systemd stops if a unit of the change fails or
// stops: they are bound to it, require it, or are part of it, directly or through
// other units.
func (j *journal) bind(ctx context.Context, running map[string]unitState) error {
	seen := map[string]bool{}
	for _, name := range slices.Concat(j.Active, j.Retrying, j.Starting) {
		seen[name] = true
	}
	for next := slices.Concat(j.Active, j.Retrying); len(next) > 0; {
		all, err := properties(ctx, next, "RequiredBy", "BoundBy", "ConsistsOf", "RequisiteOf")
		if err != nil {
			return err
		}
		next = nil
		for _, p := range all {
			for _, name := range strings.Fields(p["RequiredBy"] + " " + p["BoundBy"] + " " + p["ConsistsOf"] + " " + p["RequisiteOf"]) {
				if !seen[name] && running[name].runs() {
					seen[name] = true
					next = append(next, name)
				}
			}
		}
		j.Bound = append(j.Bound, next...)
	}
	slices.Sort(j.Bound)
	return nil
}

// readJournal reads the journal of an unfinished apply. It returns nil if there is
// none.
func readJournal(state string) (*journal, error) {
	if _, err := os.Lstat(filepath.Join(state, journalFile)); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	j := &journal{}
	if err := readState(state, journalFile, j); err != nil {
		return nil, err
	}
	if j.Version != journalVersion {
		return nil, sysexits.New(sysexits.Config, "state_damaged", fmt.Errorf("%s: version %d, not %d", filepath.Join(state, journalFile), j.Version, journalVersion)).
			WithHint("an apply of another version of gitsync was interrupted: install that version and run gitsync apply once, which finishes or undoes it")
	}
	return j, nil
}

// restore restores every file and every link. If it is interrupted at any point, it
// can be called again.
func (j *journal) restore(h host) error {
	var failed error
	touched := map[string]bool{}
	for _, f := range j.Files {
		step("restore")
		if err := f.restore(h); err != nil {
			failed = errors.Join(failed, fmt.Errorf("restore %s: %w", f.Path, err))
		}
		touched[path.Dir(f.Path)] = true
	}
	step("restore")
	if err := j.Links.restore(h, j.Units); err != nil {
		failed = errors.Join(failed, fmt.Errorf("restore enablement: %w", err))
	}
	for _, d := range slices.Backward(j.Dirs) {
		if real, err := h.resolve(d); err == nil {
			_ = os.Remove(real) // fails if another program has put files there
		}
	}
	return errors.Join(failed, syncDirs(h, touched))
}

// restore restores one file.
func (f savedFile) restore(h host) error {
	real, err := h.real(f.Path)
	if err != nil {
		return err
	}
	fresh, old := filepath.Join(filepath.Dir(real), path.Base(beside(f.Path, newPrefix))), filepath.Join(filepath.Dir(real), path.Base(beside(f.Path, oldPrefix)))
	if err := remove(fresh); err != nil {
		return err
	}
	is, err := h.state(f.Path)
	if err != nil {
		return err
	}
	same := is.kind == f.Kind && is.sum == f.Sum && is.mode == f.Mode && is.uid == f.UID && is.gid == f.GID
	switch {
	case f.Kind == "" && is.kind == "file":
		if err := os.Remove(real); err != nil {
			return err
		}
	case f.Kind == "file" && !same:
		kept, err := h.state(beside(f.Path, oldPrefix))
		if err != nil {
			return err
		}
		if kept.kind == "file" && kept.sum == f.Sum && kept.mode == f.Mode {
			return os.Rename(old, real)
		}
		if err := writeNew(fresh, f.Content, f.Mode, int(f.UID), int(f.GID)); err != nil {
			return err
		}
		if err := os.Rename(fresh, real); err != nil {
			return err
		}
	}
	return remove(old)
}

// tidy removes the files that were kept for an undo.
func (j *journal) tidy(h host) error {
	for _, f := range j.Files {
		for _, prefix := range []string{newPrefix, oldPrefix} {
			real, err := h.real(beside(f.Path, prefix))
			if err != nil {
				return err
			}
			if err := remove(real); err != nil {
				return err
			}
		}
	}
	return nil
}

// remove removes a file if it exists.
func remove(name string) error {
	err := os.Remove(name)
	if notThere(err) {
		return nil
	}
	return err
}

// writeNew writes a complete file with its mode and owner. A file on the host gets a
// temporary name, and the caller renames it: nothing reads an incomplete file.
func writeNew(name string, content []byte, mode fs.FileMode, uid, gid int) error {
	return durable.Write(name, content, func(f *os.File) error {
		if os.Geteuid() == 0 {
			if err := f.Chown(uid, gid); err != nil {
				return err
			}
		}
		return f.Chmod(mode)
	})
}

// syncDirs makes renames in directories of the host durable.
func syncDirs(h host, dirs map[string]bool) error {
	for dir := range dirs {
		real, err := h.resolve(dir)
		if err != nil {
			return err
		}
		// A directory may have been removed again.
		if err := durable.SyncDir(real); err != nil && !notThere(err) {
			return err
		}
	}
	return nil
}

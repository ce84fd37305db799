package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"observability-hub/lib/statedir"
	"observability-hub/lib/sysexits"
)

// ledger records the files that gitsync deployed to the host, and their commit.
// gitsync changes and removes only files that are in its ledger.
type ledger struct {
	Version  int                   `json:"version"`
	Root     string                `json:"root"`     // of the host
	Run      string                `json:"run"`      // the name of the run, from its journal
	Commit   string                `json:"commit"`   // the last commit that was applied completely
	Previous []string              `json:"previous"` // the commits applied before it, newest first
	Applied  time.Time             `json:"applied"`  // when Commit was applied
	Anchor   anchor                `json:"anchor"`
	Files    map[string]owned      `json:"files"`           // by path on the host
	Enabled  map[string]bool       `json:"enabled"`         // by unit: whether the presets enabled it
	Links    map[string]enablement `json:"links,omitempty"` // links that the commit declared, by unit and instance
	Skipped  map[string]string     `json:"skipped"`         // units and files that were left out, with the reason
	OnChange map[string]string     `json:"on_change"`       // by rule: the state of its paths when its command last succeeded
}

// owned is a file that gitsync owns.
type owned struct {
	Unit   string `json:"unit,omitempty"`
	Source string `json:"source"`
	Sum    string `json:"sha256"`
	Mode   string `json:"mode"`
}

// modeText returns a file mode in the format of the ledger.
func modeText(mode fs.FileMode) string { return fmt.Sprintf("%04o", mode) }

// anchor is the newest commit that was accepted from a branch. Later commits must
// descend from it. If the administrator changes the repository or the ref, the next
// commit need not.
type anchor struct {
	Repo   string `json:"repo"`
	Ref    string `json:"ref"`
	Commit string `json:"commit"`
}

const (
	ledgerFile    = "ledger.json"
	ledgerVersion = 1
	maxPrevious   = 10
	maxState      = 64 << 20
)

// equal reports whether two ledgers describe the same state of the host.
func (l *ledger) equal(m *ledger) bool {
	return l.Root == m.Root && l.Commit == m.Commit && l.Anchor == m.Anchor && maps.Equal(l.Files, m.Files) &&
		maps.Equal(l.Enabled, m.Enabled) && maps.EqualFunc(l.Links, m.Links, slices.Equal[enablement]) && maps.Equal(l.Skipped, m.Skipped) && maps.Equal(l.OnChange, m.OnChange)
}

// next returns the ledger after the actions of a plan that were done: all of them,
// or the selected ones. Entries that only an unselected action would have changed
// stay as they are. run is the name of the run; it is empty without a journal.
func (l *ledger) next(p *plan, did []action, now time.Time, run string) *ledger {
	n := *l
	n.Root = p.host.root
	n.Files, n.Enabled, n.Skipped, n.OnChange = map[string]owned{}, map[string]bool{}, map[string]string{}, map[string]string{}
	n.Links = map[string]enablement{}
	left := map[string]bool{}    // paths with an action that was not selected
	pending := map[string]bool{} // units whose links were not selected
	whole := true
	for _, a := range p.actions {
		if a.Action == doRun || slices.ContainsFunc(did, a.same) {
			continue
		}
		whole = false
		left[a.Path] = true
		if a.Action == doEnable || a.Action == doDisable {
			pending[a.Unit] = true
		}
	}
	for path, f := range l.Files {
		if left[path] {
			n.Files[path] = f
		}
	}
	for _, f := range p.want.files {
		foreign := slices.ContainsFunc(p.actions, func(a action) bool { return a.Action == doSkip && a.Path == f.path })
		if !left[f.path] && !foreign {
			n.Files[f.path] = owned{f.unit, f.source, f.sum, modeText(f.mode)}
		}
	}
	for _, subjects := range []map[string]enablement{p.declared.Links, p.declared.Preset} {
		for subject := range subjects {
			on := len(p.declared.Preset[subject]) > 0
			links := p.declared.Links[subject]
			if on {
				links = p.declared.Preset[subject]
			}
			if !pending[subject] {
				n.Enabled[subject], n.Links[subject] = on, links
			}
		}
	}
	for subject := range pending {
		if on, known := l.Enabled[subject]; known {
			n.Enabled[subject] = on
		}
		if links, known := l.Links[subject]; known {
			n.Links[subject] = links
		}
	}
	for _, s := range p.want.skipped {
		if reason, known := l.Skipped[s.key()]; !left[s.path] || known && reason == s.reason {
			n.Skipped[s.key()] = s.reason
		}
	}
	for _, r := range p.want.rules {
		if state, known := l.OnChange[r.key()]; known {
			n.OnChange[r.key()] = state
		}
	}
	if strings.Contains(n.Anchor.Repo, "://") { // the ledger of an older version may hold a token
		n.Anchor.Repo = bareURL(n.Anchor.Repo)
	}
	if p.pulled.Commit == p.want.commit {
		n.Anchor = p.pulled.anchor
	}
	if run != "" {
		n.Run = run
	}
	if whole {
		n.applied(l, p, now)
	}
	return &n
}

// applied records that the commit was applied completely.
func (n *ledger) applied(was *ledger, p *plan, now time.Time) {
	if p.want.commit == was.Commit {
		return
	}
	n.Applied, n.Commit = now.UTC(), p.want.commit
	without := func(commits []string, all ...string) []string {
		return slices.DeleteFunc(slices.Clone(commits), func(c string) bool { return slices.Contains(all, c) })
	}
	if p.back {
		n.Previous = without(was.Previous, n.Commit)
	} else if was.Commit != "" {
		n.Previous = append([]string{was.Commit}, without(was.Previous, was.Commit, n.Commit)...)
		n.Previous = n.Previous[:min(len(n.Previous), maxPrevious)]
	}
}

// readLedger reads the ledger of a state directory. If there is none, it returns an
// empty ledger.
func readLedger(state string) (*ledger, error) {
	l := &ledger{Version: ledgerVersion}
	if err := readState(state, ledgerFile, l); err != nil {
		return nil, err
	}
	if l.Version != ledgerVersion {
		return nil, sysexits.New(sysexits.Config, "state_damaged", fmt.Errorf("%s: version %d, not %d", filepath.Join(state, ledgerFile), l.Version, ledgerVersion)).
			WithHint("another version of gitsync wrote it: install that version")
	}
	if l.Files == nil {
		l.Files = map[string]owned{}
	}
	return l, nil
}

// damagedHints say what to do about a damaged file of the state directory.
var damagedHints = map[string]string{
	ledgerFile:     "restore it from a backup, or remove it: then identical files are adopted, and other files count as foreign",
	journalFile:    "do not remove it yet: it is needed to undo an interrupted apply. Restore it from a backup, or compare the host with the repository by hand first; docs/operations.md has the steps",
	quarantineFile: "remove it: a commit that was rolled back is then tried once more",
	holdFile:       "run gitsync resume: it removes the file and ends the hold",
	pulledFile:     "remove it, then run gitsync pull or systemctl start gitops-sync.service, which writes a new one",
}

// readState reads a JSON file of a state directory into v. If there is no such
// file, v is unchanged. A damaged file is an error, because a run that ignored a
// damaged ledger would not know which files it owns.
func readState(state, name string, v any) error {
	b, err := readRegular(filepath.Join(state, name), maxState)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if _, ok := errors.AsType[*fs.PathError](err); ok && !errors.Is(err, syscall.ELOOP) { // ELOOP: a link is not the tool's file
		return statedir.Unreadable(err)
	}
	if err == nil {
		if err = json.Unmarshal(b, v); err != nil {
			err = fmt.Errorf("read %s: %w", filepath.Join(state, name), err)
		}
	}
	if err != nil {
		return sysexits.New(sysexits.Failed, "state_damaged", err).WithHint(damagedHints[name])
	}
	return nil
}

// writeState replaces a JSON file of the state directory. Every user who may enter
// the directory can read it, and ask for the status, except the journal.
func writeState(dir *statedir.Dir, name string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	b = append(b, '\n')
	if name == journalFile { // it holds files of the host, which may be secret
		return dir.WriteFile(name, b)
	}
	return dir.WriteReadable(name, b)
}

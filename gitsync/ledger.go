package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"time"

	"observability-hub/lib/statedir"
	"observability-hub/lib/sysexits"
)

// ledger is what gitsync remembers of the host: which files it put there, of
// which commit. Only what is in it may be changed or removed.
type ledger struct {
	Version  int                   `json:"version"`
	Root     string                `json:"root"`     // of the host
	Run      string                `json:"run"`      // the journal of the run that wrote it
	Commit   string                `json:"commit"`   // the last one that was applied whole
	Previous []string              `json:"previous"` // those before it, newest first
	Applied  time.Time             `json:"applied"`  // when Commit was
	Anchor   anchor                `json:"anchor"`
	Files    map[string]owned      `json:"files"`           // by path on the host
	Enabled  map[string]bool       `json:"enabled"`         // what the presets said of each unit
	Links    map[string]enablement `json:"links,omitempty"` // links that the commit declared, by unit and instance
	Skipped  map[string]string     `json:"skipped"`         // units and files left out, and why
	OnChange map[string]string     `json:"on_change"`       // state of a rule's paths when its command last succeeded
}

// owned is a file that is ours.
type owned struct {
	Unit   string `json:"unit,omitempty"`
	Source string `json:"source"`
	Sum    string `json:"sha256"`
	Mode   string `json:"mode"`
}

// modeText returns a mode as the ledger has it.
func modeText(mode fs.FileMode) string { return fmt.Sprintf("%04o", mode) }

// anchor is the newest commit taken from a branch. What comes later must
// descend from it; another repository or ref is a decision of the
// administrator and begins anew.
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

// equal reports whether two ledgers say the same of the host.
func (l *ledger) equal(m *ledger) bool {
	return l.Root == m.Root && l.Commit == m.Commit && l.Anchor == m.Anchor && maps.Equal(l.Files, m.Files) &&
		maps.Equal(l.Enabled, m.Enabled) && maps.EqualFunc(l.Links, m.Links, slices.Equal[enablement]) && maps.Equal(l.Skipped, m.Skipped) && maps.Equal(l.OnChange, m.OnChange)
}

// next returns the ledger after the actions of a plan that were done: all of
// them, or those that somebody selected. What an action that was not selected
// would have changed stays as the ledger has it. run names the journal.
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

// applied notes that all that the commit wants is done.
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

// readLedger reads the ledger of a state directory; without one nothing is owned.
func readLedger(state string) (*ledger, error) {
	l := &ledger{Version: ledgerVersion}
	if err := readState(state, ledgerFile, l); err != nil {
		return nil, err
	}
	if l.Version != ledgerVersion {
		return nil, sysexits.New(sysexits.Config, "state_damaged", fmt.Errorf("%s: version %d, not %d", filepath.Join(state, ledgerFile), l.Version, ledgerVersion)).
			WithHint("a newer gitsync wrote it: use that one")
	}
	if l.Files == nil {
		l.Files = map[string]owned{}
	}
	return l, nil
}

// damagedHints say what to do about a damaged file of the state directory.
var damagedHints = map[string]string{
	ledgerFile:     "restore it from a backup, or remove it: then identical files are adopted, and others count as foreign",
	journalFile:    "do not remove it yet: it is needed to undo an interrupted apply. Restore it from a backup, or compare the host with the repository by hand first; docs/operations.md has the steps",
	quarantineFile: "remove it: a commit that was rolled back is then tried once more",
	holdFile:       "gitsync resume removes it and ends the hold",
	pulledFile:     "remove it and run gitsync pull, or systemctl start gitops-sync.service: it is written anew",
}

// readState reads a JSON file of a state directory into v, which stays as it
// is if there is none. A damaged file is an error: to go on without the ledger
// would be to forget what is owned.
func readState(state, name string, v any) error {
	b, err := readRegular(filepath.Join(state, name), maxState)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
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

// writeState replaces a JSON file of the state directory.
func writeState(dir *statedir.Dir, name string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return dir.WriteFile(name, append(b, '\n'))
}

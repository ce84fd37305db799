package main

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"observability-hub/lib/sysexits"
)

// The ledger after a whole plan, and after a part of it.
func TestLedgerNext(t *testing.T) {
	on, other := links("multi-user.target.wants/a.service"), links("graphical.target.wants/a.service")
	f := func(p, u string) *wantedFile { return &wantedFile{path: p, unit: u, mode: 0o644, sum: "new"} }
	r := rule{Run: []string{"x"}, state: "2"}
	gone := rule{Run: []string{"gone"}}
	p := &plan{
		view: view{host: host{"/r"}}, pulled: pulled{anchor: anchor{"repo", "main", "c2"}},
		want: &want{commit: "c2", files: []*wantedFile{f("/a", "a.service"), f("/f", "f.service"), f("/n", "n.service"), f("/same", "same.service")},
			skipped: []skippedFile{{"m.service", "/m", masked}, {"o.service", "/o", notInstalledHere}, {"", "systemd/README", "not-deployed"}}, rules: []rule{r}},
		declared: &declared{Links: map[string]enablement{"a.service": other, "n.service": on}, Preset: map[string]enablement{"a.service": other}},
	}
	p.add(doUpdate, "a.service", "/a", "changed")
	p.add(doInstall, "n.service", "/n", "new")
	p.add(doSkip, "f.service", "/f", "foreign")
	p.add(doRemove, "g.service", "/g", "pruned")
	p.add(doEnable, "a.service", "/a", "changed")
	p.add(doDisable, "g@x.service", "/g@", "preset")
	p.add(doRun, r.unit(), rulesFile, "changed")
	p.add(doSkip, "m.service", "/m", masked)
	was := &ledger{
		Commit: "c1", Previous: []string{"c0"}, Anchor: anchor{"repo", "main", "c1"},
		Files:    map[string]owned{"/a": {Unit: "a.service", Sum: "old"}, "/g": {Unit: "g.service"}, "/same": {Unit: "same.service", Sum: "new", Mode: "0644"}},
		Enabled:  map[string]bool{"a.service": true, "g@x.service": true, "g.service": true},
		Links:    map[string]enablement{"a.service": on, "g@x.service": on},
		Skipped:  map[string]string{"o.service": notInstalledHere, "old.service": masked},
		OnChange: map[string]string{r.key(): "1", gone.key(): "1"},
	}
	before := *was
	now := time.Unix(1e9, 0)

	all := was.next(p, p.actions, now, "run")
	if all.Commit != "c2" || !slices.Equal(all.Previous, []string{"c1", "c0"}) || !all.Applied.Equal(now) || all.Run != "run" || all.Root != "/r" || all.Anchor != p.pulled.anchor {
		t.Errorf("whole: %+v", all)
	}
	if got := slices.Sorted(maps.Keys(all.Files)); !slices.Equal(got, []string{"/a", "/n", "/same"}) || all.Files["/a"].Sum != "new" {
		t.Errorf("files: %v", all.Files)
	}
	if !maps.Equal(all.Enabled, map[string]bool{"a.service": true, "n.service": false}) || !slices.Equal(all.Links["a.service"], other) || len(all.Links) != 2 {
		t.Errorf("enabled: %v, links: %v", all.Enabled, all.Links)
	}
	if !maps.Equal(all.Skipped, map[string]string{"m.service": masked, "o.service": notInstalledHere, "systemd/README": "not-deployed"}) {
		t.Errorf("skipped: %v", all.Skipped)
	}
	if !maps.Equal(all.OnChange, map[string]string{r.key(): "1"}) {
		t.Errorf("on-change: %v", all.OnChange)
	}

	part := was.next(p, p.actions[1:2], now, "run") // only n.service
	if part.Commit != "c1" || !slices.Equal(part.Previous, was.Previous) || !part.Applied.IsZero() {
		t.Errorf("part: %+v", part)
	}
	if got := slices.Sorted(maps.Keys(part.Files)); !slices.Equal(got, []string{"/a", "/g", "/n", "/same"}) || part.Files["/a"].Sum != "old" {
		t.Errorf("files of a part: %v", part.Files)
	}
	if !part.Enabled["a.service"] || !part.Enabled["g@x.service"] || !slices.Equal(part.Links["a.service"], on) || !slices.Equal(part.Links["g@x.service"], on) {
		t.Errorf("enabled after a part: %v, links: %v", part.Enabled, part.Links)
	}
	if _, known := part.Skipped["m.service"]; known || part.Skipped["o.service"] == "" {
		t.Errorf("skipped after a part: %v", part.Skipped)
	}
	if was.Commit != before.Commit || len(was.Files) != 3 || !maps.Equal(was.OnChange, before.OnChange) {
		t.Error("next changed the ledger that it was given")
	}
	if !all.equal(all.next(&plan{view: p.view, pulled: p.pulled, want: p.want, declared: p.declared, actions: p.actions[2:3]}, p.actions[2:3], now, "")) {
		t.Error("a second run with nothing to do changes the ledger")
	}
	if all.equal(part) {
		t.Error("two different ledgers are equal")
	}

	// A rollback to an earlier commit, and the limit of the history.
	p.back, p.want.commit = true, "c0"
	if n := was.next(p, p.actions, now, ""); n.Commit != "c0" || len(n.Previous) != 0 || n.Anchor != was.Anchor || n.Run != "" {
		t.Errorf("back: %+v", n)
	}
	p.back, p.want.commit = false, "c9"
	for range 2 * maxPrevious {
		was.Previous = append(was.Previous, "c")
	}
	if n := was.next(p, p.actions, now, ""); len(n.Previous) != maxPrevious || n.Previous[0] != "c1" {
		t.Errorf("history: %v", n.Previous)
	}
}

// Each damaged file needs its own hint. The ledger may be removed. Removing the
// journal would leave half a change on the host.
func TestDamagedStateHints(t *testing.T) {
	for name, want := range map[string]string{
		ledgerFile: "adopted", journalFile: "do not remove it", quarantineFile: "remove it", holdFile: "gitsync resume", pulledFile: "gitsync pull",
	} {
		state := t.TempDir()
		if err := os.WriteFile(filepath.Join(state, name), []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
		var v map[string]any
		e, ok := errors.AsType[*sysexits.Error](readState(state, name, &v))
		if !ok || !strings.Contains(e.Hint, want) {
			t.Errorf("%s: the error is %v; want a hint with %q", name, e, want)
		}
	}
}

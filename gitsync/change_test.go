package main

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"observability-hub/lib/statedir"
	"observability-hub/lib/sysexits"
)

// liveExecution returns an execution of a plan on a root where units run according
// to the fake systemd. The function returns what was written.
func liveExecution(t *testing.T, p *plan) (*execution, func() string) {
	t.Helper()
	env, said := testEnv(t)
	dir, err := statedir.Open(t.Context(), t.TempDir(), 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dir.Close() })
	a := &apply{env: env, dir: dir, host: p.host, ledger: p.ledger}
	return &execution{apply: a, plan: p, actions: p.actions, touched: map[string]bool{}}, said
}

// A commit on a running host calls systemctl in this order.
func TestChangeRunningHost(t *testing.T) {
	f := newFakeSystemd(t)
	w := newWorld(t)
	l := &ledger{Files: map[string]owned{}, Links: map[string]enablement{}, Enabled: map[string]bool{}}
	for name, content := range map[string]string{"changed.service": service, "gone.timer": timer, "gone.service": service, "w@.service": service} {
		w.onHost(unitDir+"/"+name, content, 0o644)
		l.Files[unitDir+"/"+name] = owned{Unit: name, Sum: sum([]byte(content))}
	}
	w.onHost(unitDir+"/timers.target.wants/gone.timer", "-> "+unitDir+"/gone.timer", 0)
	w.onHost("/usr/local/bin/job", "#!/bin/sh\n", 0o755)
	want := wantOf(map[string]string{
		unitDir + "/changed.service": service + "# 2\n", unitDir + "/new.timer": timer, unitDir + "/new.service": service, unitDir + "/probe.service": service + "[X-Gitsync]\nProbe=yes\n",
		presetDir + "/hub.preset": presets,
	})
	running := f.units("timers.target active active", "changed.service active running", "gone.timer active waiting", "gone.service failed failed", "w@one.service active running", "own.service active running")
	f.put("show-new.timer", "LoadState=not-found\n")
	p := planOn(t, w.root, l, want, running)
	x, said := liveExecution(t, p)
	same(t, "plan", summary(p.actions), []string{
		"update changed.service changed", "install new.service new", "install new.timer new", "install probe.service new", "install /usr/local/lib/systemd/system-preset/hub.preset new",
		"remove gone.service pruned", "remove gone.timer pruned", "remove w@.service pruned", "enable new.timer new", "restart changed.service changed",
	})
	f.put("show-new.timer", "LoadState=loaded\nActiveState=active\nSubState=waiting\nNextElapseUSecRealtime=Sat 2099-01-03\n")
	f.put("fail-stop", "it is busy\n")
	if err := x.execute(t.Context(), x.plan, p.actions); err != nil {
		t.Fatal(err)
	}
	same(t, "calls", f.calls(), []string{
		"stop gone.timer", "stop gone.service w@*.service", "daemon-reload", "stop gone.timer w@one.service", "reset-failed gone.service",
		"--no-block restart changed.service", "--no-block start new.timer", "start probe.service",
	})
	if text := said(); strings.Count(text, `"stop_failed"`) != 3 || !strings.Contains(text, `"msg":"applied"`) {
		t.Errorf("output: %s", text)
	}
	if w.hostFile(unitDir+"/timers.target.wants/gone.timer") != "" || w.hostFile(unitDir+"/timers.target.wants/new.timer") == "" {
		t.Error("the links did not change")
	}
}

// If a unit of the commit fails, files, links and running units are restored.
func TestRollBackRunningHost(t *testing.T) {
	f := newFakeSystemd(t)
	w := newWorld(t)
	l := &ledger{Commit: "before", Files: map[string]owned{}, Links: map[string]enablement{}}
	for _, name := range []string{"a.service", "retries.service"} {
		w.onHost(unitDir+"/"+name, daemon, 0o644)
		l.Files[unitDir+"/"+name] = owned{Unit: name, Sum: sum([]byte(daemon))}
	}
	w.onHost("/usr/local/bin/job", "#!/bin/sh\n", 0o755)
	want := wantOf(map[string]string{unitDir + "/a.service": daemon + "# 2\n", unitDir + "/retries.service": daemon + "# 2\n", unitDir + "/new.timer": timer, unitDir + "/new.service": service, presetDir + "/hub.preset": presets})
	p := planOn(t, w.root, l, want, f.units("timers.target active active", "a.service active running", "retries.service activating auto-restart"))
	x, said := liveExecution(t, p)
	f.put("show-a.service", "LoadState=loaded\nActiveState=failed\nSubState=failed\nResult=exit-code\n")
	f.put("show-retries.service", "LoadState=loaded\nActiveState=activating\nSubState=auto-restart\n")
	f.units("timers.target active active", "a.service failed failed", "retries.service failed failed", "new.timer active waiting", "new.service failed failed")
	err := x.execute(t.Context(), p, p.actions)
	if sysexits.Code(err) != sysexits.RolledBack || !strings.Contains(err.Error(), "a.service: failed: exit-code") {
		t.Fatalf("execute = %v", err)
	}
	calls := f.calls()
	same(t, "calls", calls, []string{
		"daemon-reload", "--no-block restart a.service", "--no-block start new.timer", "--no-block restart retries.service",
		"reset-failed new.service", "stop new.timer", "daemon-reload", "reset-failed new.service", "stop new.timer",
		"reset-failed a.service retries.service", "--no-block start a.service", "--no-block start retries.service",
	})
	if w.hostFile(unitDir+"/a.service") != daemon || w.hostFile(unitDir+"/new.timer") != "" || w.hostFile(unitDir+"/timers.target.wants/new.timer") != "" {
		t.Error("the host was not restored")
	}
	if q, err := readQuarantine(x.dir.Path); err != nil || q.Commit != someHash {
		t.Errorf("quarantine: %+v, %v", q, err)
	}
	if !strings.Contains(said(), `"rolled_back"`) || !strings.Contains(said(), `"back_to":"before"`) {
		t.Errorf("output: %s", said())
	}
}

// A unit that was broken before does not count against the commit.
func TestEvidence(t *testing.T) {
	x := &execution{plan: &plan{}, touched: map[string]bool{}}
	x.plan.own = "own.service"
	x.plan.running = parseUnits("failed.service loaded failed failed x\nretries.service loaded activating auto-restart x\nruns.service loaded active running x\n")
	for _, name := range []string{"failed.service", "retries.service", "runs.service", "own.service", "new.service", "healed.service", "started.timer"} {
		x.touched[name] = true
	}
	x.todo = []action{{Action: doRestart, Unit: "runs.service"}, {Action: doRestart, Unit: "healed.service", healing: true}, {Action: doRestart, Unit: "failed.service"}, {Action: doEnable, Unit: "started.timer", start: []string{"started.timer"}}}
	want := map[string]bool{"runs.service": true, "new.service": false, "started.timer": true}
	if got := x.evidence(); !maps.Equal(got, want) {
		t.Errorf("evidence = %v; want %v", got, want)
	}
}

// If something cannot be restored, the journal stays.
func TestUndoFailed(t *testing.T) {
	f := newFakeSystemd(t)
	w := newWorld(t)
	dir, err := statedir.Open(t.Context(), w.state, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	a := &apply{dir: dir, host: host{w.root}}
	w.onHost("/blocked", "x", 0o644)
	j := &journal{Version: journalVersion, Root: w.root, Commit: "c", Running: true, Active: []string{"t.timer", "x.slice"}, Files: []savedFile{{Path: "/blocked/x", Kind: "file", Content: []byte("x"), Sum: sum([]byte("x")), Mode: 0o644}}}
	if err := writeState(dir, journalFile, j); err != nil {
		t.Fatal(err)
	}
	f.put("fail-start", "Unit t.timer not found.\n")
	if err := a.undo(t.Context(), j); err == nil || !strings.Contains(err.Error(), "restore /blocked/x") || !strings.Contains(err.Error(), "t.timer") {
		t.Errorf("undo = %v", err)
	}
	if again, err := readJournal(w.state); err != nil || again == nil {
		t.Errorf("the journal: %v, %v", again, err)
	}
	if _, err := os.Stat(filepath.Join(w.state, quarantineFile)); err == nil {
		t.Error("a commit that is not bad was quarantined")
	}
	if got := f.calls(); !slices.Contains(got, "daemon-reload") {
		t.Errorf("calls: %v", got)
	}
}

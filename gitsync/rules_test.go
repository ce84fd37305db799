package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"observability-hub/lib/statedir"
	"observability-hub/lib/sysexits"
)

// On-change commands run after the commit counts as applied. The failure of a
// command is reported and does not undo the units, and the ledger does not record
// the command.
func TestRunRules(t *testing.T) {
	good, bad, same2 := rule{Paths: []string{"a"}, Run: []string{"good"}, state: "1"}, rule{Paths: []string{"b"}, Run: []string{"bad"}, state: "1"}, rule{Paths: []string{"c"}, Run: []string{"same"}, state: "1"}
	for _, publish := range []bool{true, false} {
		env, said := testEnv(t)
		bin, trees := t.TempDir(), ""
		script := "#!/bin/sh\necho \"$@\" >>" + bin + "/calls\ncase $* in *bad) echo 'no such image' >&2; exit 1 ;; esac\n"
		if err := os.WriteFile(filepath.Join(bin, "systemd-run"), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
		t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
		if publish {
			trees = t.TempDir()
			if err := os.Mkdir(filepath.Join(trees, someHash), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		dir, err := statedir.Open(t.Context(), t.TempDir(), 0)
		if err != nil {
			t.Fatal(err)
		}
		defer dir.Close()
		l := &ledger{Version: ledgerVersion, Files: map[string]owned{}, OnChange: map[string]string{same2.key(): "1", good.key(): "0", "gone": "1"}}
		p := &plan{view: view{host: host{"/"}, ledger: l}, want: &want{commit: someHash, rules: []rule{good, bad, same2}}, declared: &declared{}}
		p.runs()
		p.host.root = t.TempDir() // the state directory registers there
		a := &apply{env: env, dir: dir, host: p.host, ledger: l, originFlags: originFlags{Publish: trees}, applyFlags: applyFlags{RunAs: "server", OnChangeTimeout: 60e9}}
		err = a.execute(t.Context(), p, p.actions)
		if sysexits.Code(err) != sysexits.Partial || !strings.Contains(said(), `"on_change_failed"`) {
			t.Errorf("execute = %v; output %s", err, said())
		}
		after, err := readLedger(dir.Path)
		if err != nil {
			t.Fatal(err)
		}
		want := map[string]string{same2.key(): "1", good.key(): "0"}
		if publish {
			want[good.key()] = "1"
			if calls, err := os.ReadFile(filepath.Join(bin, "calls")); err != nil || strings.Count(string(calls), "\n") != 2 || !strings.Contains(string(calls), "--uid=server") {
				t.Errorf("calls: %s, %v", calls, err)
			}
		}
		for key, state := range after.OnChange {
			if want[key] != state {
				t.Errorf("published %v: the ledger has %v; want %v", publish, after.OnChange, want)
			}
		}
	}
}

// A state is stale if its last success is too old. The error names the half.
func TestStale(t *testing.T) {
	w := newWorld(t)
	w.commit(map[string]string{"systemd/a.service": service})
	if o := w.run("", "status", "--state-dir", w.state); o.status != int(sysexits.Config) {
		t.Errorf("status without a state: %+v", o)
	}
	if o := w.run("", "pull", "--repo", w.repo, "--state-dir", w.state); o.status != 0 {
		t.Fatalf("pull: %+v", o)
	}
	if o := w.run("", "status", "--state-dir", w.state, "--max-age", "1h"); o.status != int(sysexits.Failed) || !strings.Contains(o.stderr, "no apply has succeeded yet") {
		t.Errorf("status before an apply: %+v", o)
	}
	w.sync(0)
	if o := w.run("", "status", "--state-dir", w.state, "--max-age", "1h"); o.status != 0 {
		t.Errorf("status after an apply: %+v", o)
	}
	long := time.Now().Add(-2 * time.Hour)
	if err := os.Chtimes(filepath.Join(w.state, ledgerFile), long, long); err != nil {
		t.Fatal(err)
	}
	if o := w.run("", "status", "--state-dir", w.state, "--max-age", "1h"); o.status != int(sysexits.Failed) || !strings.Contains(o.stderr, "the last successful apply was 2h") {
		t.Errorf("status after two hours: %+v", o)
	}
	if o := w.run("", "status", "--state-dir", w.state, "--max-age=-1s"); o.status != int(sysexits.Usage) {
		t.Errorf("a negative age: %+v", o)
	}
	// A run with nothing to do is a success too.
	w.sync(0)
	if o := w.run("", "status", "--state-dir", w.state, "--max-age", "1h"); o.status != 0 {
		t.Errorf("status after a run with nothing to do: %+v", o)
	}
}

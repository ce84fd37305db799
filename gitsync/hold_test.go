package main

import (
	"os"
	"strings"
	"testing"
	"time"

	"observability-hub/lib/sysexits"
)

func TestHoldAndResume(t *testing.T) {
	w := newCommands(t)
	w.want(sysexits.Config, "no_state_directory", "hold")
	w.want(sysexits.Config, "no_state_directory", "resume")
	if w.exists("state") {
		t.Error("a state directory was created")
	}
	w.want(0, "", "pull")
	w.want(0, `"until":null`, "hold")
	w.want(0, `"msg":"held"`, "apply")
	w.want(0, `"held":true`, "status")
	w.want(0, `"was_held":true`, "resume")
	w.want(0, `"was_held":false`, "resume")
	w.want(sysexits.Usage, "--for", "hold", "--for", "0s")
	w.want(0, `"until":"`, "hold", "--for", "1h")
	w.want(0, `"held_until":"`, "status")
	w.write("state/hold.json", "damaged")
	w.want(0, "hold_unreadable", "resume")
}

func TestHoldEndsByItself(t *testing.T) {
	state := t.TempDir()
	since := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	if err := os.WriteFile(state+"/"+holdFile, []byte(`{"since":"2026-01-01T00:00:00Z","until":"2026-01-01T01:00:00Z"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for after, want := range map[time.Duration]bool{time.Minute: true, time.Hour: false, 2 * time.Hour: false} {
		if _, held, err := readHold(state, since.Add(after)); held != want || err != nil {
			t.Errorf("held after %v = %v, %v; want %v", after, held, err, want)
		}
	}
}

func TestStatus(t *testing.T) {
	w := newCommands(t)
	w.want(sysexits.Config, "no_state_directory", "status")
	w.want(0, "", "pull")
	w.want(sysexits.Failed, "no apply has succeeded", "status", "--max-age", "1h")
	w.want(0, "", "sync")
	w.want(0, `"stale":false`, "status", "--max-age", "1h")
	old := time.Now().Add(-2 * time.Hour)
	if err := os.Chtimes(w.path("state/pulled.json"), old, old); err != nil {
		t.Fatal(err)
	}
	w.want(sysexits.Failed, "the last successful pull", "status", "--max-age", "1h")
	w.write("root/etc/systemd/system/a.service", "edited")
	if got := w.field(w.want(0, "", "status"), "drift"); got != 1.0 {
		t.Errorf("drift = %v; want 1", got)
	}
	w.want(sysexits.Usage, "--max-age", "status", "--max-age", "-1s")
	for _, file := range []string{"journal.json", "hold.json", "quarantine.json", "ledger.json", "pulled.json"} {
		w.write("state/"+file, "damaged")
		w.want(sysexits.Failed, "state_damaged", "status")
	}
}

func TestRollback(t *testing.T) {
	w := newCommands(t)
	w.want(sysexits.Config, "no_state_directory", "rollback")
	w.want(0, "", "sync")
	w.want(sysexits.Failed, "nothing_before", "rollback")
	w.write("hub/systemd/b.service", "[Service]\nExecStart=true\n")
	w.push()
	w.want(0, "", "sync")
	w.want(0, `"msg":"applied"`, "rollback")
	if w.exists("root/etc/systemd/system/b.service") {
		t.Error("the unit of the newer commit still exists")
	}
	w.want(0, `"quarantine_reason":"rolled back by hand"`, "status")
	w.want(0, "quarantined", "sync")
	if w.exists("root/etc/systemd/system/b.service") {
		t.Error("the commit that was rolled back was applied again")
	}
}

func TestSync(t *testing.T) {
	w := newCommands(t)
	w.want(sysexits.Unavailable, "remote_unavailable", "sync", "--repo", "/nowhere")
	if w.exists("root/etc/systemd/system/a.service") {
		t.Error("something was applied")
	}
	w.want(0, "", "sync", "--source", w.path("source"))
	if !w.exists("source/pulled.json") || w.exists("state/pulled.json") || !w.exists("state/ledger.json") {
		t.Error("the two halves do not use separate state directories")
	}
	w.write("root/etc/systemd/system/a.service", "edited")
	if err := os.Rename(w.path("hub"), w.path("away")); err != nil {
		t.Fatal(err)
	}
	w.want(sysexits.Unavailable, `"reason":"drift"`, "sync", "--source", w.path("source"))
	if strings.Contains(w.read("root/etc/systemd/system/a.service"), "edited") {
		t.Error("drift is not repaired while the remote is down")
	}
	// If apply fails too, both errors are printed, and the status is that of the pull.
	w.write("state/ledger.json", "damaged")
	w.want(sysexits.Unavailable, "state_damaged", "sync", "--source", w.path("source"))
}

func TestPath(t *testing.T) {
	w := newCommands(t)
	w.write("hub/hosts/web/systemd/w.service", "[Service]\nExecStart=true\n")
	w.push()
	w.want(0, "", "sync", "--path", "hosts/web")
	if !w.exists("root/etc/systemd/system/w.service") || w.exists("root/etc/systemd/system/a.service") {
		t.Error("the directory that --path names is not the one that is deployed")
	}
	w.want(0, "", "apply")
	w.want(sysexits.Config, "nothing_pulled", "apply", "--path", "hosts/db")
	w.want(sysexits.DataErr, "hosts/db", "pull", "--path", "hosts/db")
	w.want(sysexits.Usage, "--path", "pull", "--path", "../x")
}

func TestDefaultSource(t *testing.T) {
	for state, want := range map[string]string{
		"/var/lib/gitops-apply":     "/var/lib/gitops-sync",
		"/var/lib/gitops-apply-web": "/var/lib/gitops-sync-web",
		"/var/lib/gitops-applyweb":  "/var/lib/gitops-applyweb",
		"/mnt/var/lib/gitops-apply": "/mnt/var/lib/gitops-apply",
		"/var/lib/gitops-sync":      "/var/lib/gitops-sync",
		"/home/u/.local/state/x":    "/home/u/.local/state/x",
	} {
		if got := defaultSource(state); got != want {
			t.Errorf("defaultSource(%s) = %s; want %s", state, got, want)
		}
	}
}

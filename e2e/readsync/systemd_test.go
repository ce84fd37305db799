package readsync

import (
	_ "embed"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"observability-hub/e2e/nspawn"
	"observability-hub/e2e/workspace"
)

//go:embed testdata/systemd/script.sh
var systemdScript string

// TestSystemd boots a machine with both databases, in which the timer fires: trigger calls the socket, serve syncs, marks, and goes when
// nobody calls any more.
func TestSystemd(t *testing.T) {
	t.Parallel()
	mongo, err := workspace.Build(filepath.Join("..", "mongo"), "mongo")
	if err != nil {
		t.Fatal(err)
	}
	result := nspawn.Run(t, nspawn.Config{
		Packages: []string{"iproute2", "make", "man-db", "postgresql"},
		Tools:    []string{"readsync"},
		Binds:    []nspawn.Bind{{From: mongo, To: "/usr/local/bin/mongo", ReadOnly: true}},
		Script:   systemdScript,
		Timeout:  4 * time.Minute,
	})
	if result.Status != 0 {
		t.Errorf("the script exited %d\n%s\n%s", result.Status, result.Stdout, result.Stderr)
		for _, entry := range result.Journal[max(0, len(result.Journal)-60):] {
			t.Logf("%s: %s", entry["SYSLOG_IDENTIFIER"], clip(entry["MESSAGE"]))
		}
		return
	}
	left := func(name string) string {
		t.Helper()
		content, err := os.ReadFile(filepath.Join(result.Dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(content)
	}
	for name, want := range map[string]string{
		"enabled":       "reading-sync.service disabled\nreading-sync.timer enabled\nreading-sync-api.service disabled\nreading-sync-api.socket enabled\n",
		"verify":        "",
		"rows":          "2500|2500\n",
		"idle":          "success\nactive\n",
		"database-down": "failed\n",
		"final-rows":    "2502|2502\n",
	} {
		if got := left(name); got != want {
			t.Errorf("%s: %q; want %q", name, got, want)
		}
	}
	for line := range strings.Lines(left("security")) {
		t.Log(strings.TrimSpace(line))
		if !strings.HasPrefix(line, "0 ") {
			t.Errorf("above 1.3: %s", line)
		}
	}
	// Everything that the tool says is a record with the family's name.
	priorities := map[string]string{"INFO": "6", "WARN": "4", "ERROR": "3"}
	said := map[string]int{}
	for _, entry := range result.Journal {
		if unit := entry["_SYSTEMD_UNIT"]; unit != "reading-sync.service" && unit != "reading-sync-api.service" {
			continue
		}
		var r struct{ Level, Msg, Service string }
		if err := json.Unmarshal([]byte(entry["MESSAGE"]), &r); err != nil {
			t.Errorf("%q: %v", entry["MESSAGE"], err)
		}
		if r.Service != "reading-sync" || entry["PRIORITY"] != priorities[r.Level] || entry["SYSLOG_IDENTIFIER"] != "readsync" {
			t.Errorf("identifier %s, priority %s: %s", entry["SYSLOG_IDENTIFIER"], entry["PRIORITY"], entry["MESSAGE"])
		}
		said[r.Msg]++
	}
	for _, msg := range []string{"triggered", "synced", "listening"} {
		if said[msg] < 2 {
			t.Errorf("%d records %q; want at least 2 in %v", said[msg], msg, said)
		}
	}
}

package e2e

import (
	_ "embed"
	"strings"
	"testing"
	"time"

	"observability-hub/e2e/nspawn"
	"observability-hub/e2e/workspace"
)

//go:embed testdata/gitsync/machine.sh
var gitsyncMachine string

// TestGitsyncMachine drives gitsync's units in a booted machine, from an empty host to a second repository.
func TestGitsyncMachine(t *testing.T) {
	root, err := workspace.Root()
	if err != nil {
		t.Fatal(err)
	}
	result := nspawn.Run(t, nspawn.Config{
		Packages: []string{"git", "jq"},
		Tools:    []string{"gitsync"},
		Binds:    []nspawn.Bind{{From: root, To: "/project", ReadOnly: true}},
		Script:   gitsyncMachine,
		Timeout:  10 * time.Minute,
	})
	for line := range strings.Lines(result.Stdout) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "ok "); ok {
			t.Log(name)
		}
	}
	if result.Status != 0 {
		t.Errorf("exit status %d\nstdout: %s\nstderr: %s", result.Status, result.Stdout, result.Stderr)
		for _, e := range result.Journal[max(0, len(result.Journal)-40):] {
			t.Logf("%s: %s", e["SYSLOG_IDENTIFIER"], e["MESSAGE"])
		}
	}
}

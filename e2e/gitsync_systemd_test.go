package e2e

import (
	_ "embed"
	"strings"
	"testing"
	"time"

	"observability-hub/e2e/nspawn"
	"observability-hub/e2e/workspace"
)

//go:embed testdata/gitsync-machine/units.sh
var gitsyncUnits string

// TestGitsyncUnits runs gitsync's units in a booted machine. Every deployment goes from a push through gitops-sync.service, which
// runs as the user server, to gitops-apply.service, which runs as root without network.
func TestGitsyncUnits(t *testing.T) {
	t.Parallel()
	root, err := workspace.Root()
	if err != nil {
		t.Fatal(err)
	}
	sysmetrics, err := workspace.Binary("sysmetrics")
	if err != nil {
		t.Fatal(err)
	}
	result := nspawn.Run(t, nspawn.Config{
		Packages: []string{"git", "jq"},
		Tools:    []string{"gitsync"},
		Binds:    []nspawn.Bind{{From: root, To: "/project", ReadOnly: true}, {From: sysmetrics, To: "/opt/sysmetrics", ReadOnly: true}},
		Script:   gitsyncUnits,
		Timeout:  10 * time.Minute,
	})
	for line := range strings.Lines(result.Stdout) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "ok "); ok {
			t.Log(name)
		}
	}
	if result.Status != 0 {
		t.Errorf("exit status %d\nstdout: %s\nstderr: %s", result.Status, result.Stdout, result.Stderr)
	}
	sides(t, result.Journal)
}

// sides checks which unit and user wrote each event: pull runs as an ordinary user, and apply as root.
func sides(t *testing.T, journal []nspawn.Entry) {
	t.Helper()
	seen := map[string]int{}
	for _, e := range journal {
		for event, side := range map[string]string{"pulled": "gitops-sync", "applied": "gitops-apply", "rolled_back": "gitops-apply"} {
			if !strings.Contains(e["MESSAGE"], `"msg":"`+event+`"`) || e["SYSLOG_IDENTIFIER"] != "gitsync" {
				continue
			}
			seen[event]++
			if unit, root := e["_SYSTEMD_UNIT"], e["_UID"] == "0"; !strings.HasPrefix(unit, side) || root != (side == "gitops-apply") {
				t.Errorf("%s was written by %s as user %s", event, unit, e["_UID"])
			}
		}
	}
	for _, event := range []string{"pulled", "applied", "rolled_back"} {
		if seen[event] == 0 {
			t.Errorf("the journal has no %s", event)
		}
	}
}

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

// TestGitsyncUnits lets gitsync's units do their work in a booted machine: every deployment goes from a push through
// gitops-sync.service, as the user server, to gitops-apply.service, as root without network.
func TestGitsyncUnits(t *testing.T) {
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

// sides checks who wrote what: pull is an ordinary user, apply is root.
func sides(t *testing.T, journal []nspawn.Entry) {
	t.Helper()
	users := map[string]map[string]bool{}
	for _, e := range journal {
		for _, event := range []string{"pulled", "applied", "rolled_back"} {
			if strings.Contains(e["MESSAGE"], `"msg":"`+event+`"`) {
				if users[event] == nil {
					users[event] = map[string]bool{}
				}
				users[event][e["_SYSTEMD_UNIT"]+" "+e["_UID"]] = true
			}
		}
	}
	if len(users["pulled"]) != 1 || users["pulled"]["gitops-sync.service 0"] {
		t.Errorf("pulled was written by %v; want gitops-sync.service as an ordinary user", users["pulled"])
	}
	for _, event := range []string{"applied", "rolled_back"} {
		if len(users[event]) != 1 || !users[event]["gitops-apply.service 0"] {
			t.Errorf("%s was written by %v; want gitops-apply.service as root", event, users[event])
		}
	}
}

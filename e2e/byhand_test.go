package e2e

import (
	_ "embed"
	"strings"
	"testing"

	"observability-hub/e2e/nspawn"
)

var (
	//go:embed testdata/byhand/script.sh
	byHandScript string
	//go:embed testdata/byhand/odd.env
	oddEnvironment string
)

// TestRootByHand boots a machine in which root runs the tools by hand beside their units. They use the unit's environment
// file, credential and state, and their files belong to the owner of the state.
func TestRootByHand(t *testing.T) {
	t.Parallel()
	result := nspawn.Run(t, nspawn.Config{
		Tools:  []string{"sysmetrics", "volbackup"},
		Files:  []nspawn.File{{Path: "/odd.env", Content: oddEnvironment}},
		Script: byHandScript,
	})
	if result.Status != 0 {
		t.Fatalf("the script exited %d\n%s\n%s", result.Status, result.Stdout, result.Stderr)
	}
	left := func(name string) string {
		t.Helper()
		return strings.ReplaceAll(result.Left(t, name), "\x00", "|\n")
	}
	unit, hand := left("environment-unit"), left("environment-by-hand")
	if !strings.Contains(unit, "V15=unfinished") {
		t.Fatalf("the unit has no such environment: %s", unit)
	}
	// systemd 252 joins a comment that ends in a backslash with the next line. systemd 254 and later versions do not.
	if without := strings.Replace(hand, "V1=plain|\n", "", 1); without != strings.Replace(unit, "V1=plain|\n", "", 1) {
		t.Errorf("the environment by hand is\n%s\nthat of the unit is\n%s", hand, unit)
	}
	if got := left("environment-by-hand-overridden"); !strings.HasPrefix(got, "V1=mine|\n") && !strings.Contains(got, "\nV1=mine|\n") {
		t.Errorf("the environment does not win over the file:\n%s", got)
	}
	for _, run := range []string{"by-hand-said", "fresh-said", "unit"} {
		if got := left(run); !strings.Contains(got, "127.0.0.1:1") {
			t.Errorf("%s: the database of the credential was not asked: %s", run, got)
		}
	}
	if got := left("overridden"); !strings.Contains(got, "127.0.0.2:1") {
		t.Errorf("DATABASE_URL does not win over the credential: %s", got)
	}
	if got := left("owners"); strings.Count(got, "server ") != 2 || strings.Contains(got, "root ") {
		t.Errorf("the files in the unit's state belong to:\n%s", got)
	}
	if got := left("by-hand"); !strings.Contains(got, `"spooled":4`) {
		t.Errorf("by hand: %s", got)
	}
	if got := left("unit"); strings.Contains(got, "unwritable") || !strings.Contains(got, `"spooled":4`) {
		t.Errorf("the unit after root: %s", got)
	}
	if got, want := left("as-unit"), "server\ndatabase_url\n/var/lib/system-metrics\nstatus 11\nfrom stdin\n"; got != want {
		t.Errorf("hub-run: %q; want %q\n%s", got, want, left("as-unit-said"))
	}
	if got := left("told"); !strings.Contains(got, "server\nsystem-metrics.service somebody\n{") || !strings.Contains(got, `"msg":"unit_failed"`) {
		t.Errorf("the program in on-failure.d said %q\n%s", got, left("told-why"))
	}
}

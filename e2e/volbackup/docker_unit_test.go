package volbackup

import (
	_ "embed"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"observability-hub/e2e/docker"
	"observability-hub/e2e/nspawn"
)

//go:embed testdata/unit.sh
var unitScript string

//go:embed testdata/power.sh
var powerScript string

// dockerMachine boots a machine with Debian's Docker and volbackup, and fails the test if the script fails.
func dockerMachine(t *testing.T, script string) *nspawn.Result {
	t.Helper()
	result := nspawn.Run(t, docker.Machine(t, nspawn.Config{
		Tools:   []string{"volbackup"},
		Script:  script,
		Timeout: 5 * time.Minute,
	}))
	if result.Status != 0 {
		t.Errorf("exit status %d\nstdout: %s\nstderr: %s", result.Status, result.Stdout, result.Stderr)
		for _, e := range result.Journal {
			if e["SYSLOG_IDENTIFIER"] != "systemd" {
				t.Logf("%s: %.400s", e["SYSLOG_IDENTIFIER"], e["MESSAGE"])
			}
		}
	}
	return result
}

// TestDockerUnit runs the installed unit in a booted machine with Debian's Docker daemon, as User=server in its complete
// sandbox.
func TestDockerUnit(t *testing.T) {
	result := dockerMachine(t, unitScript)
	for line := range strings.Lines(result.Stdout) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "ok "); ok {
			t.Log(name)
		}
	}
}

// TestDockerPowerLoss simulates a power failure in the middle of a backup. After the next boot all containers run.
func TestDockerPowerLoss(t *testing.T) {
	result := dockerMachine(t, powerScript)
	log, err := os.ReadFile(filepath.Join(result.Dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s", log)
	if !strings.Contains(string(log), "ok after the power failure") {
		t.Error("the script did not reach its end after the second boot")
	}
}

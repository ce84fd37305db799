package e2e

import (
	_ "embed"
	"strings"
	"testing"
	"time"

	"observability-hub/e2e/nspawn"
)

//go:embed testdata/systemd/retries.sh
var retriesScript string

// TestRetries makes the units of all families fail, repairs them and starts them, on the systemd of Debian 12 and of Debian 13.
// Each failed job is tried as often as its unit says and reported once, and no start is refused.
func TestRetries(t *testing.T) {
	t.Parallel()
	for _, suite := range []string{nspawn.Bookworm, nspawn.Trixie} {
		t.Run(suite, func(t *testing.T) {
			result := nspawn.Run(t, nspawn.Config{
				Suite:    suite,
				Packages: []string{"git", "jq"}, // the packages of a root that another test creates
				Tools:    []string{"gitsync", "readsync", "sysmetrics", "volbackup"},
				Script:   retriesScript,
				Timeout:  8 * time.Minute,
			})
			t.Log(strings.TrimSpace(result.Stdout))
			if result.Status != 0 {
				t.Errorf("exit status %d\n%s", result.Status, result.Stderr)
			}
		})
	}
}

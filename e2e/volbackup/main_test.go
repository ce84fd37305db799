// Package volbackup tests the built volbackup binary and manage_volume.sh, with
// directories as volumes and with a Docker daemon that the tests start.
package volbackup

import (
	"os"
	"testing"

	"observability-hub/e2e/dependent"
	"observability-hub/e2e/workspace"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == dependent.ReapArgument {
		os.Exit(dependent.Reap(os.Args[2:]))
	}
	os.Exit(workspace.Run(m))
}

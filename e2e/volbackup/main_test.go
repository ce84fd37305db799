// Package volbackup tests volbackup and manage_volume.sh from outside: the built
// binary and the script, on folders and on a Docker daemon of their own.
package volbackup

import (
	"fmt"
	"os"
	"testing"

	"observability-hub/e2e/workspace"
)

func TestMain(m *testing.M) {
	status := m.Run()
	if err := workspace.Clean(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		status = 1
	}
	os.Exit(status)
}

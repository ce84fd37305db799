package e2e

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

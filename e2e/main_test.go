package e2e

import (
	"os"
	"testing"

	"observability-hub/e2e/workspace"
)

func TestMain(m *testing.M) {
	os.Exit(workspace.Run(m))
}

package e2e

import (
	"os/exec"
	"path/filepath"
	"testing"

	"observability-hub/e2e/workspace"
)

// TestByOthers runs the tools on the state of the units as users that may not read all of it. They must say what cannot be
// read, and must not take it for damaged or missing.
func TestByOthers(t *testing.T) {
	t.Parallel()
	root, err := workspace.Root()
	if err != nil {
		t.Fatal(err)
	}
	var binary string
	for _, name := range []string{"gitsync", "readsync", "sysmetrics", "volbackup"} {
		if binary, err = workspace.Binary(name); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("unshare", "--mount", "--", "bash", filepath.Join("testdata", "byothers", "script.sh"),
		filepath.Dir(binary), filepath.Join(root, "scripts"))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

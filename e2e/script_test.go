package e2e

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"observability-hub/e2e/workspace"
)

// TestScript runs the scripts in testdata/script, one behaviour of a command
// line in each. The tools are in PATH, and $STATE is a state directory.
func TestScript(t *testing.T) {
	binary, err := workspace.Binary("sysmetrics")
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Cmds:                workspace.Commands,
		Dir:                 filepath.Join("testdata", "script"),
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("PATH", filepath.Dir(binary)+":/usr/sbin:/usr/bin:/sbin:/bin")
			env.Setenv("STATE", filepath.Join(env.WorkDir, "state"))
			env.Setenv("SYSMETRICS_STATE_DIR", filepath.Join(env.WorkDir, "state"))
			return nil
		},
		Condition: func(cond string) (bool, error) { return cond == "root" && os.Getuid() == 0, nil },
	})
}

package volbackup

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"observability-hub/e2e/workspace"
)

// TestScript runs the scripts in testdata/script. Each one tests one behaviour of
// volbackup. The directory volumes contains a directory for each volume, which a stand-in
// for manage_volume.sh reads. The directory repo is the repository.
func TestScript(t *testing.T) {
	binary, err := workspace.Binary("volbackup")
	if err != nil {
		t.Fatal(err)
	}
	bin, err := filepath.Abs(filepath.Join("testdata", "bin"))
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Cmds:                workspace.Commands,
		Dir:                 filepath.Join("testdata", "script"),
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			for name, value := range map[string]string{
				"PATH":           bin + ":" + filepath.Dir(binary) + ":/usr/sbin:/usr/bin:/sbin:/bin",
				"HOME":           env.WorkDir,
				"VOLUMES":        filepath.Join(env.WorkDir, "volumes"),
				"VOLBACKUP_REPO": filepath.Join(env.WorkDir, "repo"),
				"LOG":            filepath.Join(env.WorkDir, "log"),
				"EARLIER":        filepath.Join(filepath.Dir(bin), "earlier"),
			} {
				env.Setenv(name, value)
			}
			return os.MkdirAll(filepath.Join(env.WorkDir, "volumes"), 0o755)
		},
	})
}

package e2e

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"observability-hub/e2e/workspace"
)

// TestGitsyncScript runs the scripts in testdata/script-gitsync, one behaviour of gitsync in each, with the real git and a root in
// a directory. hub is the repository, root is the host, and state is the state directory.
func TestGitsyncScript(t *testing.T) {
	binary, err := workspace.Binary("gitsync")
	if err != nil {
		t.Fatal(err)
	}
	// The test does not write these programs. A file that was open for writing while another test forked cannot be executed
	// until that child has closed it (text file busy, https://go.dev/issue/22315).
	bin, err := filepath.Abs(filepath.Join("testdata", "bin"))
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Cmds:                workspace.Commands,
		Dir:                 filepath.Join("testdata", "script-gitsync"),
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			for _, dir := range []string{filepath.Join(env.WorkDir, "root/etc/systemd/system"), filepath.Join(env.WorkDir, "root/usr/bin"), filepath.Join(env.WorkDir, "hub")} {
				if err := os.MkdirAll(dir, 0o755); err != nil {
					return err
				}
			}
			// A program that the host has already.
			if err := os.WriteFile(filepath.Join(env.WorkDir, "root/usr/bin/true"), nil, 0o755); err != nil {
				return err
			}
			for name, value := range map[string]string{
				"PATH":                bin + ":" + filepath.Dir(binary) + ":/usr/sbin:/usr/bin:/sbin:/bin",
				"HOME":                env.WorkDir,
				"STATE":               filepath.Join(env.WorkDir, "state"),
				"GITSYNC_STATE_DIR":   filepath.Join(env.WorkDir, "state"),
				"GITSYNC_REPO":        filepath.Join(env.WorkDir, "hub"),
				"GITSYNC_ROOT":        filepath.Join(env.WorkDir, "root"),
				"UNITS":               filepath.Join(env.WorkDir, "root/etc/systemd/system"),
				"GIT_AUTHOR_NAME":     "test",
				"GIT_AUTHOR_EMAIL":    "test@example.org",
				"GIT_COMMITTER_NAME":  "test",
				"GIT_COMMITTER_EMAIL": "test@example.org",
			} {
				env.Setenv(name, value)
			}
			return nil
		},
		Condition: func(cond string) (bool, error) { return cond == "root" && os.Getuid() == 0, nil },
	})
}

package docs

import (
	"path/filepath"
	"strings"
	"testing"

	"observability-hub/e2e/workspace"
)

// files returns the names of the files below the root of the repository that match a pattern.
func files(t *testing.T, pattern string) []string {
	t.Helper()
	root, err := workspace.Root()
	if err != nil {
		t.Fatal(err)
	}
	all, err := filepath.Glob(filepath.Join(root, pattern))
	if err != nil || len(all) == 0 {
		t.Fatalf("%s: %d files, %v", pattern, len(all), err)
	}
	for i := range all {
		all[i] = filepath.Base(all[i])
	}
	return all
}

// Each service has a row in SECURITY.md. A template and the unit of the same name share one.
func TestSecurityNamesServices(t *testing.T) {
	page := pages(t)["SECURITY.md"]
	for _, file := range files(t, "systemd/*.service") {
		name := strings.TrimSuffix(strings.TrimSuffix(file, ".service"), "@")
		if !strings.Contains(page, "\n| `"+name+"` |") && !strings.Contains(page, "\n| `"+name+"@` |") {
			t.Errorf("SECURITY.md has no row for %s", file)
		}
	}
}

// docs/architecture.md says what each file of a tool holds.
func TestArchitectureNamesFiles(t *testing.T) {
	page := pages(t)["docs/architecture.md"]
	for _, tool := range []string{"sysmetrics", "gitsync", "readsync", "volbackup"} {
		_, section, ok := strings.Cut(page, "\n### "+tool+", file by file\n")
		if !ok {
			t.Errorf("docs/architecture.md has no section about the files of %s", tool)
		}
		section, _, _ = strings.Cut(section, "\n##")
		for _, file := range files(t, tool+"/*.go") {
			if !strings.HasSuffix(file, "_test.go") && !strings.Contains(section, "`"+file+"`") {
				t.Errorf("docs/architecture.md does not say what %s/%s holds", tool, file)
			}
		}
	}
}

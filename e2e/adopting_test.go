package e2e

import (
	_ "embed"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"observability-hub/e2e/nspawn"
	"observability-hub/e2e/workspace"
)

//go:embed testdata/adopting/script.sh
var adoptingScript string

// TestAdopting boots a host of the older hub and walks through docs/adopting.md: each block of the page runs, each step is
// taken back, and done again.
func TestAdopting(t *testing.T) {
	t.Parallel()
	result := nspawn.Run(t, nspawn.Config{
		Packages: hubPackages,
		Tools:    []string{"sysmetrics", "gitsync", "readsync", "volbackup"},
		Files:    adoptingBlocks(t),
		Script:   adoptingScript,
		Timeout:  5 * time.Minute,
	})
	if result.Status != 0 {
		t.Fatalf("the script exited %d\n%s\n%s\n%s", result.Status, result.Stdout, result.Stderr, result.Left(t, "walk"))
	}
	for name, want := range map[string]string{
		"linked":   "0\n",
		"rows":     "100|t\n",
		"restored": "2024-06-01\n",
		"enabled":  strings.Repeat("enabled\n", 4),
	} {
		if got := result.Left(t, name); got != want {
			t.Errorf("%s: %q; want %q", name, got, want)
		}
	}
	if got := result.Left(t, "archives"); strings.Count(got, `"made":"2024-05-31T00:00:00.000Z"`) == 0 || strings.Count(got, `"made":"2024-06-01T00:00:00.000Z"`) == 0 {
		t.Errorf("the old archives are not there: %s", got)
	}
	if got := result.Left(t, "gitsync"); !strings.Contains(got, `"held":false`) || !strings.Contains(got, `"files":1`) || strings.Contains(got, `"applied":null`) {
		t.Errorf("gitsync status: %s", got)
	}
}

// adoptingBlocks returns the blocks of docs/adopting.md as files /page/STEP-NUMBER-forth.sh, or -back.sh if the paragraph before
// the block begins with "Back".
func adoptingBlocks(t *testing.T) (files []nspawn.File) {
	t.Helper()
	root, err := workspace.Root()
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(filepath.Join(root, "docs", "adopting.md"))
	if err != nil {
		t.Fatal(err)
	}
	step, steps := regexp.MustCompile(`^## (\d+)\. `), 0
	fence := regexp.MustCompile("(?s)([^\n]*)\n\n```sh\n(.*?)```\n")
	for _, section := range regexp.MustCompile(`(?m)^## `).Split(string(page), -1) {
		number := step.FindStringSubmatch("## " + section)
		if number == nil {
			continue
		}
		steps++
		for i, block := range fence.FindAllStringSubmatch(section, -1) {
			kind := "forth"
			if strings.HasPrefix(block[1], "Back") {
				kind = "back"
			}
			files = append(files, nspawn.File{Path: fmt.Sprintf("/page/%s-%d-%s.sh", number[1], i, kind), Content: block[2]})
		}
	}
	if steps != 7 || len(files) < 12 {
		t.Fatalf("docs/adopting.md has %d steps and %d blocks: is it cut as before?", steps, len(files))
	}
	return files
}

package e2e

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"observability-hub/e2e/nspawn"
	"observability-hub/e2e/workspace"
)

//go:embed testdata/quickstart/script.sh
var quickstartScript string

// TestQuickstart walks through the README in a booted machine, block by block: from two packages to the first row, and the
// same from source. The machine has no network, so the packages are made before, and PostgreSQL is installed already.
func TestQuickstart(t *testing.T) {
	t.Parallel()
	dist := buildPackages(t, "sysmetrics", "TZ=UTC")
	tree := filepath.Dir(dist)
	if err := os.Rename(dist, tree+".dist"); err != nil { // the tree is copied in the machine
		t.Fatal(err)
	}
	result := nspawn.Run(t, nspawn.Config{
		Packages: hubPackages,
		Files:    quickstartBlocks(t),
		Binds:    []nspawn.Bind{{From: tree, To: "/src", ReadOnly: true}, {From: tree + ".dist", To: "/dist", ReadOnly: true}},
		Script:   quickstartScript,
	})
	if result.Status != 0 {
		t.Fatalf("the script exited %d\n%s\n%s\n%s", result.Status, result.Stdout, result.Stderr, result.Left(t, "packages")+result.Left(t, "source"))
	}
	for _, name := range []string{"rows-of-packages", "rows-of-source"} {
		// The timer may have fired too.
		if rows := result.Left(t, name); rows != "4\n" && rows != "8\n" {
			t.Errorf("%s: %q; want those of one run", name, rows)
		}
	}
	for name, want := range map[string]string{"enabled": "enabled\n", "path": "/usr/local/bin/sysmetrics\n"} {
		if got := result.Left(t, name); got != want {
			t.Errorf("%s: %q; want %q", name, got, want)
		}
	}
	if got := result.Left(t, "packages"); !strings.Contains(got, "| e2e  | cpu") {
		t.Errorf("the last command of the first row does not show it:\n%s", got)
	}
}

// quickstartBlocks returns the blocks of the README's sections "The first row" and "From source" that a host runs, as files
// /page/SECTION-NUMBER.sh.
func quickstartBlocks(t *testing.T) (files []nspawn.File) {
	t.Helper()
	names := map[string]string{"## The first row": "first-row", "### From source": "from-source"}
	section, heading := "", regexp.MustCompile(`(?m)^##+ .*$`)
	readme := readme(t)
	for _, piece := range regexp.MustCompile("(?sm)^##+ [^\n]*$|^```sh\n.*?^```$").FindAllString(readme, -1) {
		if heading.MatchString(piece) && !strings.HasPrefix(piece, "```") {
			section = names[piece]
		} else if section != "" {
			block := strings.TrimSuffix(strings.TrimPrefix(piece, "```sh\n"), "```")
			n := 1
			for _, file := range files {
				if strings.HasPrefix(file.Path, "/page/"+section) {
					n++
				}
			}
			files = append(files, nspawn.File{Path: fmt.Sprintf("/page/%s-%d.sh", section, n), Content: block})
		}
	}
	if len(files) != 3 {
		t.Fatalf("the README has %d blocks for a host; this test walks 3", len(files))
	}
	return files
}

func readme(t *testing.T) string {
	t.Helper()
	root, err := workspace.Root()
	if err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(filepath.Join(root, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// copyTree returns a copy of the source tree in which a test may build.
func copyTree(t *testing.T) string {
	t.Helper()
	root, err := workspace.Root()
	if err != nil {
		t.Fatal(err)
	}
	tree := filepath.Join(t.TempDir(), "hub")
	// Not only files that git knows, or a new file would be missing before its commit.
	copied := exec.Command("bash", "-euo", "pipefail", "-c",
		`cd "$1" && mkdir "$2" && tar --exclude=./.git --exclude=./.cache --exclude=./bin --exclude=./dist -c . | tar -x -C "$2"`, "-", root, tree)
	if out, err := copied.CombinedOutput(); err != nil {
		t.Fatalf("copy the tree: %v\n%s", err, out)
	}
	return tree
}

// TestDemoOfTheReadme checks that the demo still prints what stands at the top of the README: the same lines, but for numbers.
func TestDemoOfTheReadme(t *testing.T) {
	t.Parallel()
	root, err := workspace.Root()
	if err != nil {
		t.Fatal(err)
	}
	binary, err := workspace.Binary("sysmetrics")
	if err != nil {
		t.Fatal(err)
	}
	demo := exec.Command(filepath.Join(root, "e2e/demo.sh"))
	demo.Env = append(os.Environ(), "SYSMETRICS="+binary, "SYSMETRICS_HOST=web1")
	printed, err := demo.CombinedOutput()
	if err != nil {
		t.Fatalf("demo.sh: %v\n%s", err, printed)
	}
	// The widths of the columns follow the numbers.
	numbers, blanks := regexp.MustCompile(`[0-9]+([.:][0-9]+)*`), regexp.MustCompile(`[ -]+`)
	same := func(line string) string {
		return strings.TrimSpace(blanks.ReplaceAllString(numbers.ReplaceAllString(line, "0"), " "))
	}
	rest := strings.Split(string(printed), "\n")
	_, block, _ := strings.Cut(readme(t), "\n\n    ")
	block, _, _ = strings.Cut(block, "\n\n")
	lines := strings.Split(block, "\n")
	if len(lines) < 10 {
		t.Fatalf("the README begins with %d lines of output", len(lines))
	}
next:
	for _, line := range lines {
		if strings.TrimSpace(line) == "…" {
			continue
		}
		for i, candidate := range rest {
			if same(candidate) == same(line) {
				rest = rest[i+1:]
				continue next
			}
		}
		t.Fatalf("the demo does not print this line of the README, or not in this place: %s\n%s", line, printed)
	}
}

// TestBuildWithOldGo checks that make says which Go is needed, with a go command that cannot parse go.work, and with none.
func TestBuildWithOldGo(t *testing.T) {
	t.Parallel()
	tree := copyTree(t)
	for version, want := range map[string]string{
		"go1.19.8": "make: Go 1.26 is needed, not go1.19.8. ",
		"":         "make: Go 1.26 is needed, not none. ",
	} {
		bin := t.TempDir()
		if version != "" {
			script := fmt.Sprintf("#!/bin/sh\n[ \"$*\" = 'env GOVERSION' ] || { echo 'reading go.work: invalid go version' >&2; exit 1; }\necho %s\n", version)
			if err := os.WriteFile(filepath.Join(bin, "go"), []byte(script), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		cmd := exec.Command("make", "-C", tree, "build", "TOOLS=sysmetrics", "scdoc=")
		cmd.Env = []string{"PATH=" + bin + ":/usr/bin:/bin"}
		out, err := cmd.CombinedOutput()
		if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() == 0 || !bytes.Contains(out, []byte(want)) {
			t.Errorf("make build with Go %q: %v\n%s", version, err, out)
		}
	}
}

package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"observability-hub/lib/cli"
)

// manPage returns the source of gitsync(1) without scdoc's escapes.
func manPage(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("gitsync.1.scd")
	if err != nil {
		t.Fatal(err)
	}
	return strings.ReplaceAll(string(b), `\`, "")
}

// section returns the text below a heading of the page.
func section(t *testing.T, page, heading string) string {
	t.Helper()
	_, text, ok := strings.Cut(page, "\n# "+heading+"\n")
	if !ok {
		t.Fatalf("the page has no section %s", heading)
	}
	text, _, _ = strings.Cut(text, "\n# ")
	return text
}

// stdoutOf runs the tool in this process.
func stdoutOf(t *testing.T, args ...string) string {
	t.Helper()
	out, err := os.Create(filepath.Join(t.TempDir(), "stdout"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	if status := cli.Main(app(), args, strings.NewReader(""), out, os.Stderr); status != 0 {
		t.Fatalf("gitsync %s: exit status %d", strings.Join(args, " "), status)
	}
	b, err := os.ReadFile(out.Name())
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// The flags are those that --help lists, and no others.
func TestManPageFlags(t *testing.T) {
	page := manPage(t)
	options := section(t, page, "OPTIONS")
	flags := map[string]bool{}
	for _, c := range app().Commands {
		if c.Hidden {
			continue
		}
		if !strings.Contains(section(t, page, "COMMANDS"), "\n*"+c.Name+"*\n") {
			t.Errorf("COMMANDS lacks %s", c.Name)
		}
		for _, m := range regexp.MustCompile(`(?m)^ +(?:-\w, +)?--([a-z-]+)`).FindAllStringSubmatch(stdoutOf(t, c.Name, "--help"), -1) {
			flags[m[1]] = true
		}
	}
	documented := map[string]bool{}
	for _, line := range regexp.MustCompile(`(?m)^\*-.*$`).FindAllString(options, -1) {
		for _, m := range regexp.MustCompile(`\*--([a-z-]+)\*`).FindAllStringSubmatch(line, -1) {
			documented[m[1]] = true
		}
	}
	expectSame(t, "OPTIONS", documented, "--help", flags)
}

// The exit statuses are those that the sources use, and no others.
func TestManPageExitStatuses(t *testing.T) {
	used := map[string]bool{"OK": true, "Failed": true}
	values := map[string]string{}
	for _, dir := range []string{".", "../lib"} {
		err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
			if err != nil {
				return err
			}
			ast.Inspect(file, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.SelectorExpr:
					if x, ok := n.X.(*ast.Ident); ok && x.Name == "sysexits" {
						used[n.Sel.Name] = true
					}
				case *ast.ValueSpec:
					if len(n.Values) == 1 && file.Name.Name == "sysexits" {
						if v, ok := n.Values[0].(*ast.BasicLit); ok {
							values[n.Names[0].Name] = v.Value
						}
					}
				}
				return true
			})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	returned := map[string]bool{}
	for name := range used {
		if value, ok := values[name]; ok { // others are functions and types
			returned[value] = true
		}
	}
	documented := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^\|.? *\*(\d+)\*$`).FindAllStringSubmatch(section(t, manPage(t), "EXIT STATUS"), -1) {
		documented[m[1]] = true
	}
	expectSame(t, "EXIT STATUS", documented, "the sources", returned)
}

func expectSame(t *testing.T, aName string, a map[string]bool, bName string, b map[string]bool) {
	t.Helper()
	for _, x := range slices.Sorted(maps.Keys(b)) {
		if !a[x] {
			t.Errorf("%s lacks %s, which %s has", aName, x, bName)
		}
	}
	for _, x := range slices.Sorted(maps.Keys(a)) {
		if !b[x] {
			t.Errorf("%s has %s, which %s does not have", aName, x, bName)
		}
	}
}

// Package mantest compares the man page of a tool with the tool. If the page
// differs from --help or from the sources, the tool's tests fail.
package mantest

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

// Page is the scdoc source of a man page, without scdoc's escapes.
type Page struct {
	t    *testing.T
	text string
}

// Read reads the tool's page, <app.Name>.1.scd, in the current directory.
func Read(t *testing.T, app cli.App) Page {
	t.Helper()
	b, err := os.ReadFile(app.Name + ".1.scd")
	if err != nil {
		t.Fatal(err)
	}
	return Page{t, strings.ReplaceAll(string(b), `\`, "")}
}

// Section returns the text below a heading.
func (p Page) Section(heading string) string {
	p.t.Helper()
	_, text, ok := strings.Cut(p.text, "\n# "+heading+"\n")
	if !ok {
		p.t.Fatalf("the page has no section %s", heading)
	}
	text, _, _ = strings.Cut(text, "\n# ")
	return text
}

// Stdout runs the tool in this process and returns what it prints.
func Stdout(t *testing.T, app cli.App, args ...string) string {
	t.Helper()
	out, err := os.Create(filepath.Join(t.TempDir(), "stdout"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	if status := cli.Main(app, args, strings.NewReader(""), out, os.Stderr); status != 0 {
		t.Fatalf("%s %s: exit status %d", app.Name, strings.Join(args, " "), status)
	}
	b, err := os.ReadFile(out.Name())
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// Flags checks that COMMANDS has each command, and that OPTIONS has exactly the flags that --help lists. It calls newApp
// for each run, because an app can run only once.
func Flags(t *testing.T, newApp func() cli.App) {
	t.Helper()
	page := Read(t, newApp())
	flags := map[string]bool{}
	for _, c := range newApp().Commands {
		if c.Hidden {
			continue
		}
		if !strings.Contains(page.Section("COMMANDS"), "\n*"+c.Name+"*\n") {
			t.Errorf("COMMANDS lacks %s", c.Name)
		}
		for _, m := range regexp.MustCompile(`(?m)^ +(?:-\w, +)?--([a-z-]+)`).FindAllStringSubmatch(Stdout(t, newApp(), c.Name, "--help"), -1) {
			flags[m[1]] = true
		}
	}
	documented := map[string]bool{}
	for _, line := range regexp.MustCompile(`(?m)^\*-.*$`).FindAllString(page.Section("OPTIONS"), -1) {
		for _, m := range regexp.MustCompile(`\*--([a-z-]+)\*`).FindAllStringSubmatch(line, -1) {
			documented[m[1]] = true
		}
	}
	expectSame(t, "OPTIONS", documented, "--help", flags)
}

// ExitStatuses checks that EXIT STATUS has exactly the statuses of lib/sysexits that the sources of the tool and of lib
// use.
func ExitStatuses(t *testing.T, app cli.App) {
	t.Helper()
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
	for _, m := range regexp.MustCompile(`(?m)^\|.? *\*(\d+)\*$`).FindAllStringSubmatch(Read(t, app).Section("EXIT STATUS"), -1) {
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

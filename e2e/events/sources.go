package events

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"observability-hub/e2e/workspace"
)

// sources finds the name of every event in the Go sources and scripts, and its places, such as sysmetrics/spool.go:12.
func sources(tb testing.TB) map[string][]string {
	tb.Helper()
	root, err := workspace.Root()
	if err != nil {
		tb.Fatal(err)
	}
	found := map[string][]string{}
	inGo := func(path string) error {
		set := token.NewFileSet()
		file, err := parser.ParseFile(set, path, nil, 0)
		if err != nil {
			return err
		}
		note := func(n ast.Node, e ast.Expr) {
			if lit, ok := e.(*ast.BasicLit); ok && lit.Kind == token.STRING {
				name, _ := strconv.Unquote(lit.Value)
				position := set.Position(n.Pos())
				found[name] = append(found[name], fmt.Sprintf("%s:%d", strings.TrimPrefix(position.Filename, root+"/"), position.Line))
			} else if file.Name.Name != "diag" { // package diag only passes on the name that it gets
				tb.Errorf("%s: the event's name is not a literal, so this test cannot see it", set.Position(n.Pos()))
			}
		}
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.CallExpr:
				f, ok := n.Fun.(*ast.SelectorExpr)
				if !ok {
					return true
				}
				on := ""
				switch x := f.X.(type) {
				case *ast.Ident:
					on = x.Name
				case *ast.SelectorExpr:
					on = x.Sel.Name
				case *ast.CallExpr: // diag.From(ctx).Warn
					if from, ok := x.Fun.(*ast.SelectorExpr); ok && from.Sel.Name == "From" {
						on = "Diag"
					}
				}
				switch {
				case on == "sysexits" && f.Sel.Name == "New":
					note(n, n.Args[1])
				case on == "record" && f.Sel.Name == "New":
					note(n, n.Args[2])
				case (strings.EqualFold(on, "diag") || on == "d") && (f.Sel.Name == "Warn" || f.Sel.Name == "Info" || f.Sel.Name == "Debug"):
					note(n, n.Args[0])
				}
			case *ast.AssignStmt: // event, hint := "failed", ""
				for i, left := range n.Lhs {
					if id, ok := left.(*ast.Ident); ok && id.Name == "event" && len(n.Rhs) == len(n.Lhs) {
						note(n, n.Rhs[i])
					}
				}
			}
			return true
		})
		return nil
	}
	inScript := func(path string) error {
		b, err := os.ReadFile(path)
		// In a line of JSON, or as an argument of a function that writes such a line.
		for _, m := range regexp.MustCompile(`(?:\\?"msg\\?": *\\?"|\bfail [0-9]+ |\bsay [A-Z]+ |\bemit )([a-z_]+)`).FindAllSubmatch(b, -1) {
			found[string(m[1])] = append(found[string(m[1])], strings.TrimPrefix(path, root+"/"))
		}
		return err
	}
	for _, dir := range []string{"lib", "gitsync", "readsync", "sysmetrics", "volbackup", "scripts"} {
		err := filepath.WalkDir(filepath.Join(root, dir), func(path string, entry fs.DirEntry, err error) error {
			switch {
			case err != nil || entry.IsDir() || strings.HasSuffix(path, "_test.go"):
				return err
			case strings.HasSuffix(path, ".go"):
				return inGo(path)
			case dir == "scripts" && !strings.HasSuffix(path, ".bats"):
				return inScript(path)
			}
			return nil
		})
		if err != nil {
			tb.Fatal(err)
		}
	}
	return found
}

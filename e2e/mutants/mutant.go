package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"strconv"
	"strings"
)

// mutant is one change of one file.
type mutant struct {
	file       string // from the project's root
	line       int
	kind       string
	start, end int // what is replaced, in bytes
	old, new   string
}

// change returns the replacement as one short line.
func (m mutant) change() string {
	short := func(s string) string {
		s = strings.Join(strings.Fields(s), " ")
		if r := []rune(s); len(r) > 60 {
			s = string(r[:60]) + "…"
		}
		return s
	}
	if m.new == "" {
		return short(m.old) + " → nothing"
	}
	return short(m.old) + " → " + short(m.new)
}

// apply returns the source with the change.
func (m mutant) apply(src []byte) []byte {
	return []byte(string(src[:m.start]) + m.new + string(src[m.end:]))
}

// swapped are the operators that take each other's place.
var swapped = map[token.Token]struct{ kind, op string }{
	token.LSS:  {"boundary", "<="},
	token.LEQ:  {"boundary", "<"},
	token.GTR:  {"boundary", ">="},
	token.GEQ:  {"boundary", ">"},
	token.EQL:  {"comparison", "!="},
	token.NEQ:  {"comparison", "=="},
	token.LAND: {"logic", "||"},
	token.LOR:  {"logic", "&&"},
	token.ADD:  {"arithmetic", "-"},
	token.SUB:  {"arithmetic", "+"},
	token.MUL:  {"arithmetic", "/"},
	token.QUO:  {"arithmetic", "*"},
}

// mutate returns every mutant of a file, in the order of the source.
func mutate(name string, src []byte) ([]mutant, error) {
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, name, src, 0)
	if err != nil {
		return nil, err
	}
	f := &finder{name: name, src: src, fset: fset}
	for _, decl := range file.Decls {
		if fn, ok := decl.(*ast.FuncDecl); ok && fn.Body != nil { // constants and types are not behaviour alone
			f.function(fn.Type, fn.Body)
		}
	}
	return f.found, nil
}

// finder collects the mutants of one file.
type finder struct {
	name  string
	src   []byte
	fset  *token.FileSet
	found []mutant
}

// add records the mutant that has text in the place of start to end.
func (f *finder) add(kind string, start, end token.Pos, text string) {
	p, q := f.fset.Position(start), f.fset.Position(end)
	f.found = append(f.found, mutant{f.name, p.Line, kind, p.Offset, q.Offset, string(f.src[p.Offset:q.Offset]), text})
}

func (f *finder) text(n ast.Node) string {
	return string(f.src[f.fset.Position(n.Pos()).Offset:f.fset.Position(n.End()).Offset])
}

// function adds the mutants of a function whose results typ names.
func (f *finder) function(typ *ast.FuncType, body *ast.BlockStmt) {
	ast.Inspect(body, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncLit:
			f.function(n.Type, n.Body)
			return false
		case *ast.IfStmt:
			f.condition(n.Cond)
		case *ast.ForStmt:
			if n.Cond != nil {
				f.condition(n.Cond)
			}
		case *ast.BinaryExpr:
			f.binary(n)
		case *ast.BasicLit:
			if i, err := strconv.Atoi(n.Value); err == nil && n.Kind == token.INT {
				f.add("number", n.Pos(), n.End(), strconv.Itoa(i+1))
			}
		case *ast.ReturnStmt:
			f.results(typ, n)
		case *ast.BlockStmt:
			f.statements(n.List)
		case *ast.CaseClause:
			f.statements(n.Body)
		case *ast.CommClause:
			f.statements(n.Body)
		}
		return true
	})
}

// condition negates a condition. Of == and != binary does it.
func (f *finder) condition(cond ast.Expr) {
	if b, ok := cond.(*ast.BinaryExpr); ok && (b.Op == token.EQL || b.Op == token.NEQ) {
		return
	}
	f.add("condition", cond.Pos(), cond.End(), "!("+f.text(cond)+")")
}

// binary swaps an operator. Text is not subtracted.
func (f *finder) binary(n *ast.BinaryExpr) {
	for _, side := range []ast.Expr{n.X, n.Y} {
		if lit, ok := side.(*ast.BasicLit); ok && lit.Kind == token.STRING && n.Op == token.ADD {
			return
		}
	}
	if to, ok := swapped[n.Op]; ok {
		f.add(to.kind, n.OpPos, n.OpPos+token.Pos(len(n.Op.String())), to.op)
	}
}

// statements drops each statement without which the rest may still compile.
func (f *finder) statements(list []ast.Stmt) {
	for _, s := range list {
		switch s := s.(type) {
		case *ast.ExprStmt, *ast.IncDecStmt, *ast.DeferStmt, *ast.SendStmt, *ast.BranchStmt, *ast.ReturnStmt:
		case *ast.AssignStmt:
			if s.Tok == token.DEFINE {
				continue
			}
		default:
			continue
		}
		f.add("dropped", s.Pos(), s.End(), "")
	}
}

// results negates the bools that a statement returns and replaces its error by nil.
func (f *finder) results(typ *ast.FuncType, ret *ast.ReturnStmt) {
	var types []string
	if typ.Results != nil {
		for _, field := range typ.Results.List {
			name := fmt.Sprint(field.Type) // an identifier's name
			for range max(1, len(field.Names)) {
				types = append(types, name)
			}
		}
	}
	if len(types) != len(ret.Results) { // named results, or the results of a call
		return
	}
	for i, r := range ret.Results {
		text := f.text(r)
		switch {
		case types[i] == "bool" && text == "true":
			f.add("result", r.Pos(), r.End(), "false")
		case types[i] == "bool" && text == "false":
			f.add("result", r.Pos(), r.End(), "true")
		case types[i] == "bool":
			f.add("result", r.Pos(), r.End(), "!("+text+")")
		case types[i] == "error" && text != "nil":
			f.add("error", r.Pos(), r.End(), "nil")
		}
	}
}

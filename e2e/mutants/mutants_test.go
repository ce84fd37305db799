package main

import (
	"fmt"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

const source = `package p

const limit = 5 // not in a function

func f(n int, err error) (bool, error) {
	if n < limit && err != nil {
		g("a" + "b")
		return false, err
	}
	for n > 0 {
		n--
	}
	return n == 0, nil
}
`

func TestMutate(t *testing.T) {
	found, err := mutate("p.go", []byte(source))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, m := range found {
		got = append(got, fmt.Sprintf("%d %s: %s", m.line, m.kind, m.change()))
		if _, err := parser.ParseFile(token.NewFileSet(), "p.go", m.apply([]byte(source)), 0); err != nil {
			t.Errorf("%s: %v", got[len(got)-1], err)
		}
	}
	want := []string{
		"6 condition: n < limit && err != nil → !(n < limit && err != nil)",
		"6 logic: && → ||",
		"6 boundary: < → <=",
		"6 comparison: != → ==",
		`7 dropped: g("a" + "b") → nothing`,
		"8 dropped: return false, err → nothing",
		"8 result: false → true",
		"8 error: err → nil",
		"10 condition: n > 0 → !(n > 0)",
		"10 boundary: > → >=",
		"10 number: 0 → 1",
		"11 dropped: n-- → nothing",
		"13 dropped: return n == 0, nil → nothing",
		"13 result: n == 0 → !(n == 0)",
		"13 comparison: == → !=",
		"13 number: 0 → 1",
	}
	for _, m := range want {
		if !slices.Contains(got, m) {
			t.Errorf("no mutant %s", m)
		}
	}
	for _, m := range got {
		if !slices.Contains(want, m) {
			t.Errorf("unexpected mutant %s", m)
		}
	}
}

// TestVerdicts runs mutants of a small module, of whose functions one has a test.
func TestVerdicts(t *testing.T) {
	t.Setenv("GOWORK", "off")
	root := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(root, "small", name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	// The users of a mutant's namespace must reach it, and testing makes it 0700 or less.
	for dir := root; dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(root, "small"), 0o755); err != nil {
		t.Fatal(err)
	}
	write("go.mod", "module small\n\ngo 1.26.0\n")
	write("small.go", "package small\n\nfunc tested(n int) bool { return n < 1 }\n\nfunc other(n int) bool { return n < 1 }\n\nfunc third(n int) int { return n }\n")
	write("small_test.go", "package small\n\nimport \"testing\"\n\nfunc TestTested(t *testing.T) {\n\tif !tested(0) || tested(1) {\n\t\tt.Error()\n\t}\n}\n")
	src, err := os.ReadFile(filepath.Join(root, "small/small.go"))
	if err != nil {
		t.Fatal(err)
	}
	all, err := mutate("small/small.go", src)
	if err != nil {
		t.Fatal(err)
	}
	tester := &tester{root: root, tool: "small", scratch: root}
	if err := tester.baseline(t.Context(), all); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"3 boundary": "killed by TestTested", "5 boundary": "survived ", "7 dropped": "did not compile "}
	for _, m := range all {
		verdict, ok := want[fmt.Sprintf("%d %s", m.line, m.kind)]
		if !ok {
			continue
		}
		delete(want, fmt.Sprintf("%d %s", m.line, m.kind))
		if result, by, err := tester.test(t.Context(), m); result+" "+by != verdict || err != nil {
			t.Errorf("line %d, %s: %s %s, %v; want %s", m.line, m.change(), result, by, err, verdict)
		}
	}
	if len(want) > 0 {
		t.Errorf("no such mutants: %v", want)
	}
	// Tests that fail by themselves say nothing of a mutant.
	write("small_test.go", "package small\n\nimport \"testing\"\n\nfunc TestTested(t *testing.T) { t.Error() }\n")
	if err := tester.baseline(t.Context(), all); err == nil {
		t.Error("baseline accepts tests that fail")
	}
}

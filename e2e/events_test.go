package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"observability-hub/e2e/postgres"
	"observability-hub/e2e/workspace"
)

// eventDocs are docs/events.md and docs/events.schema.json.
type eventDocs struct {
	sections map[string]string // the text below the heading of each event
	schema   *jsonSchema
}

func readEventDocs(tb testing.TB) eventDocs {
	tb.Helper()
	root, err := workspace.Root()
	if err != nil {
		tb.Fatal(err)
	}
	page, err := os.ReadFile(filepath.Join(root, "docs", "events.md"))
	if err != nil {
		tb.Fatal(err)
	}
	d := eventDocs{map[string]string{}, readSchema(tb, filepath.Join(root, "docs", "events.schema.json"))}
	for _, part := range regexp.MustCompile(`(?m)^##+ `).Split(string(page), -1) {
		heading, text, _ := strings.Cut(part, "\n")
		if event := strings.Trim(heading, "`"); event != heading {
			d.sections[event] = text
		}
	}
	return d
}

// events gives the definitions of each event in the schema; a sample has four.
func (d eventDocs) events() map[string][]map[string]any {
	events := map[string][]map[string]any{}
	for _, branch := range d.schema.root["oneOf"].([]any) {
		def := d.schema.definition(branch.(map[string]any)["$ref"].(string))
		msg := def["properties"].(map[string]any)["msg"].(map[string]any)
		names, ok := msg["enum"].([]any)
		if !ok {
			names = []any{msg["const"]}
		}
		for _, name := range names {
			events[name.(string)] = append(events[name.(string)], def)
		}
	}
	return events
}

// fields adds the names of all properties of a schema to names, those of objects inside too.
func (d eventDocs) fields(schema map[string]any, names map[string]bool) {
	if ref, ok := schema["$ref"].(string); ok {
		d.fields(d.schema.definition(ref), names)
	}
	properties, _ := schema["properties"].(map[string]any)
	for name, property := range properties {
		names[name] = true
		d.fields(property.(map[string]any), names)
	}
	for _, keyword := range []string{"additionalProperties", "items"} {
		if other, ok := schema[keyword].(map[string]any); ok {
			d.fields(other, names)
		}
	}
}

// The sources, the schema and the page know the same events, and the page has every field of the schema.
func TestEventsAreDocumented(t *testing.T) {
	docs := readEventDocs(t)
	schema, sources := docs.events(), eventsInSources(t)
	for _, event := range slices.Sorted(maps.Keys(sources)) {
		if schema[event] == nil {
			t.Errorf("%s: in %s, but not in docs/events.schema.json", event, sources[event])
		}
		if docs.sections[event] == "" {
			t.Errorf("%s: in %s, but not in docs/events.md", event, sources[event])
		}
	}
	for event := range docs.sections {
		if sources[event] == "" {
			t.Errorf("%s: in docs/events.md, but in no source", event)
		}
	}
	envelope := []string{"time", "level", "msg", "service"}
	for event, defs := range schema {
		if sources[event] == "" {
			t.Errorf("%s: in docs/events.schema.json, but in no source", event)
		}
		// What all errors and all warnings have is described above their sections.
		fields := map[string]bool{}
		for _, def := range defs {
			d := maps.Clone(def["properties"].(map[string]any))
			level := d["level"].(map[string]any)
			for _, name := range append(envelope, "error", "hint", "detail") {
				delete(d, name)
			}
			docs.fields(map[string]any{"properties": d}, fields)
			levels, ok := level["enum"].([]any)
			if !ok {
				levels = []any{level["const"]}
			}
			first, _, _ := strings.Cut(strings.TrimSpace(docs.sections[event]), ". ")
			for _, l := range levels {
				if !strings.Contains(docs.sections[event], l.(string)) || !strings.HasPrefix(first, "Level ") {
					t.Errorf("%s: docs/events.md does not begin with the level %s", event, l)
				}
			}
		}
		for _, field := range slices.Sorted(maps.Keys(fields)) {
			if !strings.Contains(docs.sections[event], "`"+field+"`") {
				t.Errorf("%s: docs/events.md lacks the field %s", event, field)
			}
		}
	}
}

// eventsInSources finds the name of every event in the Go sources and scripts, and where it is.
func eventsInSources(tb testing.TB) map[string]string {
	tb.Helper()
	root, err := workspace.Root()
	if err != nil {
		tb.Fatal(err)
	}
	found := map[string]string{}
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
				found[name] = fmt.Sprintf("%s:%d", strings.TrimPrefix(position.Filename, root+"/"), position.Line)
			} else if file.Name.Name != "diag" { // which passes on what it was given
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
				}
				switch {
				case on == "sysexits" && f.Sel.Name == "New":
					note(n, n.Args[1])
				case on == "record" && f.Sel.Name == "New":
					note(n, n.Args[2])
				case on == "Diag" && (f.Sel.Name == "Warn" || f.Sel.Name == "Debug"):
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
		// In a line of JSON, or as what a function that writes one is called with.
		for _, m := range regexp.MustCompile(`(?:\\?"msg\\?": *\\?"|\bfail [0-9]+ |\bsay [A-Z]+ |\benvelope INFO )([a-z_]+)`).FindAllSubmatch(b, -1) {
			found[string(m[1])] = strings.TrimPrefix(path, root+"/")
		}
		return err
	}
	for _, dir := range []string{"lib", "gitsync", "readsync", "sysmetrics", "volbackup", "scripts"} {
		err := filepath.WalkDir(filepath.Join(root, dir), func(path string, entry fs.DirEntry, err error) error {
			switch {
			case os.IsNotExist(err) && filepath.Base(path) == dir:
				return nil // not built yet
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

// Every documented event is provoked, and every line that comes is as the schema says.
func TestEventsAreAsDocumented(t *testing.T) {
	docs := readEventDocs(t)
	seen := map[string]bool{}
	look := func(from, output string) {
		t.Helper()
		for line := range strings.Lines(output) {
			for _, wrong := range docs.schema.check(line) {
				t.Errorf("%s: %s\n%s", from, wrong, line)
			}
			var event struct{ Msg string }
			if json.Unmarshal([]byte(line), &event) == nil {
				seen[event.Msg] = true
			}
			if len(line) > 48<<10 {
				t.Errorf("%s: a line of %d bytes", from, len(line))
			}
		}
	}
	// provoke runs the tool and demands an event of it.
	provoke := func(event string, m *tool, stdin string, args ...string) {
		t.Helper()
		got := m.run(stdin, args...)
		look(event, got.stdout)
		look(event, got.stderr)
		if !strings.Contains(got.stdout+got.stderr, `"msg":"`+event+`"`) {
			t.Errorf("sysmetrics %s does not say %s: status %d\nstdout: %.300s\nstderr: %s", strings.Join(args, " "), event, got.status, got.stdout, got.stderr)
		}
	}
	put := func(m *tool, name, content string) {
		t.Helper()
		if err := os.MkdirAll(m.state, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(m.state, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	nowhere := "DATABASE_URL=postgres://hub@/hub?host=/nowhere"

	// This host and one that is made up, in its first minutes and after a reset of all counters.
	here := sysmetrics(t)
	for range 2 {
		provoke("sample", here, "")
	}
	host, there := newFixtureHost(t, "web1"), sysmetrics(t)
	for range 3 {
		host.tick(t)
		provoke("sample", there, "", host.args()...)
	}
	host.ticks = 0
	host.tick(t)
	provoke("sample", there, "", host.args()...)

	// The kinds of host that the unit tests know, with sensors, odd mounts and old kernels.
	root, err := workspace.Root()
	if err != nil {
		t.Fatal(err)
	}
	golden, err := filepath.Glob(filepath.Join(root, "sysmetrics", "testdata", "*", "want.*.jsonl"))
	if err != nil || len(golden) == 0 {
		t.Errorf("golden output: %d files, %v", len(golden), err)
	}
	for _, path := range golden {
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		// The cost of a run is no part of golden output.
		look(path, strings.ReplaceAll(string(want), `"self":{}`, `"self":{"cpu_ms":1,"max_rss":1}`))
	}

	put(there, "counters", "half a fi")
	provoke("state_unreadable", there, "")
	provoke("flushed", there, "", "--flush")
	put(there, "spool.jsonl", `{"time":"2026-`)
	provoke("spool_torn", there, "", "--flush")
	put(there, "spool.jsonl", strings.Repeat(records("web1", 1), 2000)[:1<<20])
	provoke("spool_full", there, "", "--flush", "--spool-max", "1")

	provoke("usage", here, "", "--no-such-flag")
	provoke("no_procfs", here, "", "--procfs", "/nowhere")
	provoke("failed", here, "", "--procfs", t.TempDir())
	provoke("bad_record", here, "this is no record\n", "flush")
	provoke("bad_input", here, "this is no record\n", "flush")
	provoke("no_database", here, "", "prune", "--keep", "90d")
	provoke("database_unavailable", here.with(nowhere), "", "--flush")
	provoke("bad_configuration", here.with("DATABASE_URL=mysql://hub"), "", "--flush")
	provoke("state_unwritable", here, "", "--state-dir", "/proc/nowhere")
	provoke("records_lost", here, "", "--state-dir", "/proc/nowhere", "--flush")
	provoke("no_state_directory", here.with("SYSMETRICS_STATE_DIR=", "HOME="), "")

	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	cmd := here.command("")
	cmd.Stdout = full
	var said bytes.Buffer
	cmd.Stderr = &said
	_ = cmd.Run() // that it fails is the point
	look("output_failed", said.String())

	dir, err := os.Open(here.state)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	if err := syscall.Flock(int(dir.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	provoke("locked", here, "")

	c := postgres.Run(t, postgres.Config{})
	m := sysmetrics(t, "DATABASE_URL="+c.URL())
	provoke("flushed", m, records("web1", 3), "flush")
	provoke("pruned", m, "", "prune", "--keep", "90d")
	poison := strings.Replace(records("web2", 1), `"usage":0.5`, `"usage":"\u0000"`, 1)
	provoke("record_rejected", m, poison, "flush")
	provoke("records_rejected", m, strings.Replace(poison, "web2", "web3", 1), "flush")
	provoke("database_refused", m.with("DATABASE_URL="+c.SocketURL("hub", "missing")), "", "--flush")

	for _, unit := range []string{"system-metrics.service", "gitops-sync@web.service"} {
		script := exec.Command(filepath.Join(root, "scripts", "hub-failure"), unit)
		out, err := script.Output()
		if err != nil {
			t.Errorf("hub-failure %s: %v", unit, err)
		}
		look("unit_failed", string(out))
	}

	provokeGitsync(t, look)
	provokeVolbackup(t, look)
	provokeManageVolume(t, look)
	for event := range docs.sections {
		if !seen[event] {
			t.Errorf("%s is documented, and nothing that this test does provokes it", event)
		}
	}
}

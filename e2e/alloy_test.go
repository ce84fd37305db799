package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"text/scanner"

	"observability-hub/e2e/workspace"
)

// alloyBlock is a block of an Alloy configuration: `name "label" { … }`. The value of an attribute is a string, a []any, a
// map[string]any or a reference.
type alloyBlock struct {
	name, label string
	attributes  map[string]any
	blocks      []alloyBlock
}

// reference is a value such as loki.write.hub.receiver.
type reference string

// alloyKnown are the arguments and blocks of the components that deploy/alloy/config.alloy uses, after the reference of Alloy.
// Those with a "*" are required.
var alloyKnown = map[string]string{
	"":                    "loki.source.journal loki.relabel loki.process loki.write",
	"loki.source.journal": "*forward_to path max_age labels relabel_rules matches format_as_json",
	"loki.relabel":        "*forward_to max_cache_size rule",
	"rule":                "action modulus regex replacement separator source_labels target_label",
	"loki.process":        "*forward_to stage.json stage.labels",
	"stage.json":          "*expressions drop_malformed source",
	"stage.labels":        "*values",
	"loki.write":          "endpoint external_labels max_streams",
	"endpoint":            "*url name headers tenant_id",
}

// alloyParser reads the part of Alloy's syntax that the configuration uses: blocks, attributes, strings, lists, objects and
// references. Anything else is an error.
type alloyParser struct {
	scanner.Scanner
	token rune
	err   error
}

func (p *alloyParser) next() { p.token = p.Scan() }

func (p *alloyParser) fail(what string) {
	if p.err == nil {
		p.err = fmt.Errorf("%s: %s, not %q", p.Pos(), what, p.TokenText())
	}
	p.token = scanner.EOF
}

func (p *alloyParser) take(token rune) string {
	text := p.TokenText()
	if p.token != token {
		p.fail("want " + scanner.TokenString(token))
		return ""
	}
	p.next()
	return text
}

func (p *alloyParser) name() string {
	name := p.take(scanner.Ident)
	for p.token == '.' {
		p.next()
		name += "." + p.take(scanner.Ident)
	}
	return name
}

func (p *alloyParser) text() string {
	quoted := p.take(scanner.String)
	var text string
	if _, err := fmt.Sscanf(quoted, "%q", &text); err != nil {
		p.fail("want a string")
	}
	return text
}

func (p *alloyParser) value() any {
	switch p.token {
	case scanner.String:
		return p.text()
	case '[':
		list := []any{}
		for p.next(); p.token != ']' && p.token != scanner.EOF; {
			list = append(list, p.value())
			if p.token != ']' {
				p.take(',')
			}
		}
		p.take(']')
		return list
	case '{':
		object := map[string]any{}
		for p.next(); p.token != '}' && p.token != scanner.EOF; {
			key := p.take(scanner.Ident)
			p.take('=')
			object[key] = p.value()
			if p.token != '}' {
				p.take(',')
			}
		}
		p.take('}')
		return object
	}
	return reference(p.name())
}

// body reads up to the end of the block or the file.
func (p *alloyParser) body(of string, end rune) (b alloyBlock) {
	b.attributes = map[string]any{}
	known := strings.Fields(alloyKnown[of])
	for p.token != end && p.token != scanner.EOF {
		name := p.name()
		if !slices.Contains(known, name) && !slices.Contains(known, "*"+name) {
			p.fail(fmt.Sprintf("%q of %q is not known", name, of))
		}
		if p.token == '=' {
			p.next()
			if _, twice := b.attributes[name]; twice {
				p.fail(name + " comes twice")
			}
			b.attributes[name] = p.value()
			continue
		}
		label := ""
		if p.token == scanner.String {
			label = p.text()
		}
		p.take('{')
		inner := p.body(name, '}')
		p.take('}')
		inner.name, inner.label = name, label
		b.blocks = append(b.blocks, inner)
	}
	for _, name := range known {
		if _, found := b.attributes[strings.TrimPrefix(name, "*")]; name[0] == '*' && !found {
			p.fail(name[1:] + " is missing in " + of)
		}
	}
	return b
}

func parseAlloy(text string) (alloyBlock, error) {
	p := &alloyParser{}
	p.Init(strings.NewReader(text))
	p.Error = func(_ *scanner.Scanner, message string) { p.fail(message) }
	p.next()
	b := p.body("", scanner.EOF)
	return b, p.err
}

// all returns the blocks of that name.
func (b alloyBlock) all(name string) (found []alloyBlock) {
	for _, inner := range b.blocks {
		if inner.name == name {
			found = append(found, inner)
		}
	}
	return found
}

// TestAlloy checks that Alloy's configuration says the same as Promtail's: the same source, rules, stages and url. Alloy itself
// is neither among Debian's packages nor a Go module that can be imported.
func TestAlloy(t *testing.T) {
	t.Parallel()
	root, err := workspace.Root()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(root, "deploy/alloy/config.alloy"))
	if err != nil {
		t.Fatal(err)
	}
	config, err := parseAlloy(string(text))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range strings.Fields(alloyKnown[""]) {
		if found := config.all(name); len(found) != 1 || found[0].label != "hub" {
			t.Fatalf("%d blocks %s; want one with the label hub", len(found), name)
		}
	}
	source, relabel, process, write := config.all("loki.source.journal")[0], config.all("loki.relabel")[0], config.all("loki.process")[0], config.all("loki.write")[0]
	attribute := func(b alloyBlock, name string) string {
		value, _ := b.attributes[name].(string)
		return value
	}
	texts := func(value any) map[string]string {
		all := map[string]string{}
		object, _ := value.(map[string]any)
		for key, value := range object {
			all[key], _ = value.(string)
		}
		return all
	}
	var got scrape
	got.Job = "systemd-journal" // Promtail's name of the job; Alloy has none
	got.Journal.Path, got.Journal.MaxAge, got.Journal.Labels = attribute(source, "path"), attribute(source, "max_age"), texts(source.attributes["labels"])
	for _, r := range relabel.all("rule") {
		one := rule{Regex: attribute(r, "regex"), Target: attribute(r, "target_label"), Replacement: attribute(r, "replacement"), Action: attribute(r, "action")}
		list, _ := r.attributes["source_labels"].([]any)
		for _, label := range list {
			one.Source = append(one.Source, fmt.Sprint(label))
		}
		got.Relabel = append(got.Relabel, one)
	}
	want := readPromtail(t)
	if !reflect.DeepEqual(got.Journal, want.Journal) || !reflect.DeepEqual(got.Relabel, want.Relabel) {
		t.Errorf("config.alloy has %+v\nwant those of promtail.yaml: %+v", got, want)
	}
	// Promtail's stage "level:" without a value takes the name of the label.
	expressions, values := texts(process.all("stage.json")[0].attributes["expressions"]), texts(process.all("stage.labels")[0].attributes["values"])
	if !reflect.DeepEqual(expressions, want.Stages[0].JSON.Expressions) || !reflect.DeepEqual(values, map[string]string{"level": "level"}) || len(want.Stages[1].Labels) != 1 || len(process.blocks) != 2 {
		t.Errorf("the stages are %v and %v", expressions, values)
	}
	for name, flow := range map[string][2]any{
		"rules":   {source.attributes["relabel_rules"], reference("loki.relabel.hub.rules")},
		"source":  {source.attributes["forward_to"], []any{reference("loki.process.hub.receiver")}},
		"relabel": {relabel.attributes["forward_to"], []any{}},
		"process": {process.attributes["forward_to"], []any{reference("loki.write.hub.receiver")}},
		"url":     {write.all("endpoint")[0].attributes["url"], "http://localhost:3100/loki/api/v1/push"},
	} {
		if !reflect.DeepEqual(flow[0], flow[1]) {
			t.Errorf("%s: %v; want %v", name, flow[0], flow[1])
		}
	}
	for _, wrong := range []string{
		`loki.write "hub" { endpoint { } }`, `loki.write "hub" { endpoint { url = "x", } }`, `loki.writes "hub" { }`,
		`loki.write "hub" { endpoint { url = "x" }`, `loki.process "hub" { forward_to = [a b] }`, `loki.relabel "hub" { forward_to = [] rule { regexp = "x" } }`,
	} {
		if _, err := parseAlloy(wrong); err == nil {
			t.Errorf("this is not an error: %s", wrong)
		}
	}
}

// Package events compares the output of the tools with docs/events.md and docs/events.schema.json.
package events

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"observability-hub/e2e/workspace"
)

// maxLine is the longest line that the journal does not split.
const maxLine = 48 << 10

// Docs are docs/events.md and docs/events.schema.json, and the lines that were compared with them.
type Docs struct {
	sections map[string]string // the text below the heading of each event
	schema   *jsonSchema
	seen     map[string]bool
	reported map[string]bool // errors, by event
}

// Read reads both.
func Read(tb testing.TB) *Docs {
	tb.Helper()
	root, err := workspace.Root()
	if err != nil {
		tb.Fatal(err)
	}
	page, err := os.ReadFile(filepath.Join(root, "docs", "events.md"))
	if err != nil {
		tb.Fatal(err)
	}
	d := &Docs{map[string]string{}, readSchema(tb, filepath.Join(root, "docs", "events.schema.json")), map[string]bool{}, map[string]bool{}}
	for _, part := range regexp.MustCompile(`(?m)^##+ `).Split(string(page), -1) {
		heading, text, _ := strings.Cut(part, "\n")
		if event := strings.Trim(heading, "`"); event != heading {
			d.sections[event] = text
		}
	}
	return d
}

// Documents reports whether docs/events.md has a section for the event.
func (d *Docs) Documents(event string) bool {
	_, ok := d.sections[event]
	return ok
}

// Check fails the test if a line of an output does not match the schema, or is too long for the journal. It reports the same
// error of one event once, with the first line that has it. from names the source of the output, for the message. Records
// that carry a document may have any length.
func (d *Docs) Check(tb testing.TB, from, output string) {
	tb.Helper()
	for line := range strings.Lines(output) {
		var event struct{ Msg string }
		if json.Unmarshal([]byte(line), &event) == nil {
			d.seen[event.Msg] = true
		}
		for _, wrong := range d.schema.check(line) {
			if key := event.Msg + ": " + wrong; !d.reported[key] {
				d.reported[key] = true
				tb.Errorf("%s: %s\n%s", from, wrong, line)
			}
		}
		if len(line) > maxLine && event.Msg != "extract" && event.Msg != "dead_letter" {
			tb.Errorf("%s: a line of %d bytes", from, len(line))
		}
	}
}

// Demand fails the test for each event in the sources below these directories that no checked line has had so far.
func (d *Docs) Demand(tb testing.TB, dirs ...string) {
	tb.Helper()
	for event, places := range sources(tb) {
		for _, place := range places {
			if slices.ContainsFunc(dirs, func(f string) bool { return strings.HasPrefix(place, f) }) && !d.seen[event] {
				tb.Errorf("%s of %s is documented, but this test does not provoke it", event, place)
				break
			}
		}
	}
}

// Excuse is for an event that a test cannot provoke from outside, because it reports a bug in the tool itself.
func (d *Docs) Excuse(event string) { d.seen[event] = true }

// events returns the definitions of each event in the schema. A sample has four definitions.
func (d *Docs) events() map[string][]map[string]any {
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

// levels returns the levels that the definitions of an event allow.
func levels(defs []map[string]any) (all []string) {
	for _, def := range defs {
		level := def["properties"].(map[string]any)["level"].(map[string]any)
		names, ok := level["enum"].([]any)
		if !ok {
			names = []any{level["const"]}
		}
		for _, name := range names {
			all = append(all, name.(string))
		}
	}
	return all
}

// fields adds the names of all properties of a schema to names, including those of nested objects.
func (d *Docs) fields(schema map[string]any, names map[string]bool) {
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

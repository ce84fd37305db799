package events

import (
	"maps"
	"slices"
	"strings"
	"testing"
)

// The sources, the schema and the page know the same events, and the page has every field of the schema.
func TestEventsAreDocumented(t *testing.T) {
	docs := Read(t)
	schema, found := docs.events(), sources(t)
	for _, event := range slices.Sorted(maps.Keys(found)) {
		if schema[event] == nil {
			t.Errorf("%s: in %s, but not in docs/events.schema.json", event, found[event])
		}
		if docs.sections[event] == "" {
			t.Errorf("%s: in %s, but not in docs/events.md", event, found[event])
		}
	}
	for event := range docs.sections {
		if found[event] == nil {
			t.Errorf("%s: in docs/events.md, but in no source", event)
		}
	}
	envelope := []string{"time", "level", "msg", "service"}
	for event, defs := range schema {
		if found[event] == nil {
			t.Errorf("%s: in docs/events.schema.json, but in no source", event)
		}
		// Fields of all errors and all warnings are described above their sections.
		fields := map[string]bool{}
		for _, def := range defs {
			d := maps.Clone(def["properties"].(map[string]any))
			for _, name := range append(envelope, "error", "hint", "detail") {
				delete(d, name)
			}
			docs.fields(map[string]any{"properties": d}, fields)
		}
		first, _, _ := strings.Cut(strings.TrimSpace(docs.sections[event]), ". ")
		for _, level := range levels(defs) {
			if !strings.Contains(docs.sections[event], level) || !strings.HasPrefix(first, "Level ") {
				t.Errorf("%s: docs/events.md does not begin with the level %s", event, level)
			}
		}
		for _, field := range slices.Sorted(maps.Keys(fields)) {
			if !strings.Contains(docs.sections[event], "`"+field+"`") {
				t.Errorf("%s: docs/events.md lacks the field %s", event, field)
			}
		}
	}
}

package events

import (
	"fmt"
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

// failures collects what a test would report.
type failures struct {
	testing.TB
	said []string
}

func (f *failures) Errorf(format string, args ...any) {
	f.said = append(f.said, fmt.Sprintf(format, args...))
}

// A key that the schema lacks is reported once for each event, not once for each line.
func TestCheckReportsOnce(t *testing.T) {
	f := &failures{TB: t}
	d := Read(t)
	pruned := `{"time":"2026-01-02T03:04:05.678Z","level":"INFO","msg":"pruned","service":"system-metrics","before":"2026-01-02T03:04:05.678Z","partitions":1,"rows":%d,"more":1}` + "\n"
	resumed := `{"time":"2026-01-02T03:04:05.678Z","level":"INFO","msg":"resumed","service":"gitops-sync","was_held":true,"more":%d}` + "\n"
	for n := range 3 {
		d.Check(f, "a run", fmt.Sprintf(pruned+resumed, n, n))
	}
	if len(f.said) != 2 || !strings.Contains(f.said[0], `"rows":0,`) || !strings.Contains(f.said[0], "more is not in docs/events.schema.json") || !strings.Contains(f.said[1], "resumed") {
		t.Errorf("%q", f.said)
	}
}

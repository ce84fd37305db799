package events

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// jsonSchema is a schema of draft 2020-12 with the keywords that docs/events.schema.json needs. An unknown keyword is an
// error, so that no keyword is ignored.
type jsonSchema struct {
	root map[string]any
	tb   testing.TB
}

func readSchema(tb testing.TB, path string) *jsonSchema {
	tb.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		tb.Fatal(err)
	}
	s := &jsonSchema{tb: tb}
	if err := json.Unmarshal(b, &s.root); err != nil {
		tb.Fatalf("%s: %v", path, err)
	}
	return s
}

// check returns the errors in a line, or nil if it is valid.
func (s *jsonSchema) check(line string) []string {
	var v any
	if err := json.Unmarshal([]byte(line), &v); err != nil {
		return []string{err.Error()}
	}
	return s.errors(s.root, v, "line")
}

// definition follows a $ref into $defs.
func (s *jsonSchema) definition(ref string) map[string]any {
	name, ok := strings.CutPrefix(ref, "#/$defs/")
	def, found := s.root["$defs"].(map[string]any)[name].(map[string]any)
	if !ok || !found {
		s.tb.Fatalf("schema: no %s", ref)
	}
	return def
}

func (s *jsonSchema) errors(schema map[string]any, v any, at string) (wrong []string) {
	for _, keyword := range slices.Sorted(maps.Keys(schema)) {
		arg := schema[keyword]
		switch keyword {
		case "$schema", "$defs", "title", "description":
		case "$ref":
			wrong = append(wrong, s.errors(s.definition(arg.(string)), v, at)...)
		case "oneOf":
			wrong = append(wrong, s.oneOf(arg.([]any), v, at)...)
		case "type":
			types, ok := arg.([]any)
			if !ok {
				types = []any{arg}
			}
			if !slices.ContainsFunc(types, func(t any) bool { return isType(v, t.(string)) }) {
				wrong = append(wrong, fmt.Sprintf("%s: %v is not of type %v", at, v, arg))
			}
		case "const":
			if !reflect.DeepEqual(v, arg) {
				wrong = append(wrong, fmt.Sprintf("%s: %v is not %v", at, v, arg))
			}
		case "enum":
			if !slices.ContainsFunc(arg.([]any), func(one any) bool { return reflect.DeepEqual(v, one) }) {
				wrong = append(wrong, fmt.Sprintf("%s: %v is none of %v", at, v, arg))
			}
		case "minimum":
			if n, ok := v.(float64); ok && n < arg.(float64) {
				wrong = append(wrong, fmt.Sprintf("%s: %v is less than %v", at, v, arg))
			}
		case "maximum":
			if n, ok := v.(float64); ok && n > arg.(float64) {
				wrong = append(wrong, fmt.Sprintf("%s: %v is more than %v", at, v, arg))
			}
		case "minLength":
			if text, ok := v.(string); ok && float64(utf8.RuneCountInString(text)) < arg.(float64) {
				wrong = append(wrong, fmt.Sprintf("%s: %q is too short", at, text))
			}
		case "pattern":
			if text, ok := v.(string); ok && !regexp.MustCompile(arg.(string)).MatchString(text) {
				wrong = append(wrong, fmt.Sprintf("%s: %q does not match %s", at, text, arg))
			}
		case "items":
			list, _ := v.([]any)
			for i, item := range list {
				wrong = append(wrong, s.errors(arg.(map[string]any), item, fmt.Sprintf("%s[%d]", at, i))...)
			}
		case "required":
			if object, ok := v.(map[string]any); ok {
				for _, name := range arg.([]any) {
					if _, ok := object[name.(string)]; !ok {
						wrong = append(wrong, fmt.Sprintf("%s: no %v", at, name))
					}
				}
			}
		case "properties":
			object, _ := v.(map[string]any)
			for name, property := range arg.(map[string]any) {
				if value, ok := object[name]; ok {
					wrong = append(wrong, s.errors(property.(map[string]any), value, at+"."+name)...)
				}
			}
		case "additionalProperties":
			known, _ := schema["properties"].(map[string]any)
			object, _ := v.(map[string]any)
			for name, value := range object {
				if _, ok := known[name]; ok {
					continue
				}
				if other, ok := arg.(map[string]any); ok {
					wrong = append(wrong, s.errors(other, value, at+"."+name)...)
				} else if arg == false {
					wrong = append(wrong, fmt.Sprintf("%s: %s is not in docs/events.schema.json", at, name))
				}
			}
		default:
			s.tb.Fatalf("schema: the keyword %s is not understood here", keyword)
		}
	}
	return wrong
}

// oneOf demands that exactly one of the branches matches. If none matches, it returns the errors of the nearest branch.
func (s *jsonSchema) oneOf(branches []any, v any, at string) []string {
	var nearest []string
	fits := 0
	for _, b := range branches {
		wrong := s.errors(b.(map[string]any), v, at)
		if len(wrong) == 0 {
			fits++
		} else if nearest == nil || len(wrong) < len(nearest) {
			nearest = wrong
		}
	}
	switch fits {
	case 0:
		return nearest
	case 1:
		return nil
	}
	return []string{fmt.Sprintf("%s fits %d branches of oneOf", at, fits)}
}

func isType(v any, name string) bool {
	switch v := v.(type) {
	case nil:
		return name == "null"
	case bool:
		return name == "boolean"
	case string:
		return name == "string"
	case []any:
		return name == "array"
	case map[string]any:
		return name == "object"
	case float64:
		return name == "number" || name == "integer" && v == float64(int64(v))
	}
	return false
}

package main

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"

	"observability-hub/lib/mantest"
)

func TestManPageFlags(t *testing.T) { mantest.Flags(t, app) }

func TestManPageExitStatuses(t *testing.T) { mantest.ExitStatuses(t, app()) }

// The man page explains every key of every payload. Keys that this host does not
// have, and names that were found on it, are not checked.
func TestManPagePayloadKeys(t *testing.T) {
	records := mantest.Read(t, app()).Section("RECORDS")
	names := map[string]bool{"failed": true, "core_temps": true, "core_usage": true, "_io": true}
	var missing func(kind, path string, v any)
	missing = func(kind, path string, v any) {
		object, _ := v.(map[string]any)
		for key, value := range object {
			name := names[path] || path == "" && (kind == "disk" || kind == "network") && !strings.HasPrefix(key, "_")
			if !name && !regexp.MustCompile(`(?m)(^|[ *_(])`+key+`([ ,*_;:]|$)`).MatchString(records) {
				t.Errorf("RECORDS lacks %s of the %s payload", key, kind)
			}
			missing(kind, key, value)
		}
	}
	lines := mantest.Stdout(t, app(), "--state-dir", t.TempDir())
	for line := range strings.Lines(lines) {
		var r struct {
			MetricType string `json:"metric_type"`
			Payload    any
		}
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatal(err)
		}
		missing(r.MetricType, "", r.Payload)
	}
}

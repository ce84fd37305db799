package main

import (
	"regexp"
	"strings"
	"testing"

	"observability-hub/lib/mantest"
	"observability-hub/readsync/internal/extjson"
)

func TestManPageFlags(t *testing.T) { mantest.Flags(t, app) }

func TestManPageExitStatuses(t *testing.T) { mantest.ExitStatuses(t, app()) }

// The reasons are those that a refusal can have.
func TestManPageReasons(t *testing.T) {
	section := mantest.Read(t, app()).Section("DOCUMENTS AND ROWS")
	for _, reason := range []string{"nul", "invalid_utf8", "duplicate_key", "too_deep", "corrupt_bson", "bad_timestamp",
		"timestamp_out_of_range", "number_out_of_range", "id_too_long", "no_id", "bad_json", "refused"} {
		if text := (&extjson.Refusal{Reason: reason}).Error(); text == reason {
			t.Errorf("%s: no text says what it means", reason)
		}
		if !strings.Contains(section, "_"+reason+"_") {
			t.Errorf("DOCUMENTS AND ROWS lacks the reason %s", reason)
		}
	}
}

// Each flag is explained, with its environment variable, and nothing is
// explained that is not there.
func TestHelp(t *testing.T) {
	used := map[string]bool{}
	for _, c := range app().Commands {
		text := mantest.Stdout(t, app(), c.Name, "--help")
		if !strings.HasSuffix(text, app().Examples) {
			t.Errorf("%s --help does not end in the examples", c.Name)
		}
		for _, m := range regexp.MustCompile(`(?m)^ +(?:-\w, +)?--([a-z-]+)`).FindAllStringSubmatch(text, -1) {
			used[m[1]] = true
			if m[1] != "help" && m[1] != "version" && !strings.Contains(app().Flags, "\n"+m[1]+" ") {
				t.Errorf("%s --help does not say what --%s is for", c.Name, m[1])
			}
		}
	}
	for line := range strings.Lines(strings.TrimSpace(app().Flags)) {
		if flag, _, _ := strings.Cut(line, " "); !used[flag] {
			t.Errorf("--%s is explained, but no command has it", flag)
		}
	}
}

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

// The man page describes every reason of a refusal, and every reason has a text.
func TestManPageReasons(t *testing.T) {
	section := mantest.Read(t, app()).Section("DOCUMENTS AND ROWS")
	for _, reason := range []string{"nul", "invalid_utf8", "duplicate_key", "too_deep", "corrupt_bson", "bad_timestamp",
		"timestamp_out_of_range", "number_out_of_range", "id_too_long", "ambiguous_id", "no_id", "bad_json", "refused"} {
		if text := (&extjson.Refusal{Reason: reason}).Error(); text == reason {
			t.Errorf("the reason %s has no text", reason)
		}
		if !strings.Contains(section, "_"+reason+"_") {
			t.Errorf("DOCUMENTS AND ROWS lacks the reason %s", reason)
		}
	}
}

// --help explains every flag, and help.go has no text for a flag that does not exist.
func TestHelp(t *testing.T) {
	used := map[string]bool{}
	for _, c := range app().Commands {
		text := mantest.Stdout(t, app(), c.Name, "--help")
		if !strings.HasSuffix(text, app().Examples) {
			t.Errorf("%s --help does not end with the examples", c.Name)
		}
		for _, m := range regexp.MustCompile(`(?m)^ +(?:-\w, +)?--([a-z-]+)`).FindAllStringSubmatch(text, -1) {
			used[m[1]] = true
			if m[1] != "help" && m[1] != "version" && !strings.Contains(app().Flags, "\n"+m[1]+" ") {
				t.Errorf("%s --help does not explain --%s", c.Name, m[1])
			}
		}
	}
	for line := range strings.Lines(strings.TrimSpace(app().Flags)) {
		if flag, _, _ := strings.Cut(line, " "); !used[flag] {
			t.Errorf("help.go explains --%s, but no command has it", flag)
		}
	}
}

package events

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"observability-hub/e2e/workspace"
)

// The sections of docs/operations.md that hold tables of events.
const (
	everyTool = "Every tool"
	warnings  = "Warnings that ask for an action"
)

// toolSections are the sections that are about one program, with the beginning of the paths of its sources.
var toolSections = map[string]string{
	"sysmetrics": "sysmetrics/", "gitsync": "gitsync/", "readsync": "readsync/", "volbackup": "volbackup/",
	"manage_volume.sh": "scripts/manage_volume.sh", "hub-failure": "scripts/hub-failure",
}

// readOperations returns docs/operations.md and the events that have a row in it, by section. A row has three cells; the
// first names the events.
func readOperations(t *testing.T) (page string, rows map[string][]string) {
	t.Helper()
	root, err := workspace.Root()
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(root, "docs", "operations.md"))
	if err != nil {
		t.Fatal(err)
	}
	page, rows = string(b), map[string][]string{}
	cellEnd := regexp.MustCompile(`[^\\]\|`)
	for _, part := range strings.Split(page, "\n## ")[1:] {
		section, text, _ := strings.Cut(part, "\n")
		if toolSections[section] == "" && section != everyTool && section != warnings {
			continue
		}
		for line := range strings.Lines(text) {
			if !strings.HasPrefix(line, "| `") {
				continue
			}
			cells := cellEnd.Split(strings.TrimSpace(line), -1)
			if len(cells) != 4 || len(strings.TrimSpace(cells[1])) < 20 || len(strings.TrimSpace(cells[2])) < 20 {
				t.Errorf("%s: not a row of event, meaning and action: %s", section, line)
			}
			for _, m := range regexp.MustCompile("`([a-z_]+)`").FindAllStringSubmatch(cells[0], -1) {
				rows[section] = append(rows[section], m[1])
			}
		}
	}
	return page, rows
}

// Every event of level ERROR has a row in docs/operations.md in the section of each tool that prints it, and every row is
// of an event that the tool of its section prints with that level.
func TestErrorsHaveARowInOperations(t *testing.T) {
	_, rows := readOperations(t)
	schema, found := Read(t).events(), sources(t)
	printed := func(event, path string) bool {
		return slices.ContainsFunc(found[event], func(place string) bool { return strings.HasPrefix(place, path) })
	}
	for event, defs := range schema {
		if !slices.Contains(levels(defs), "ERROR") || slices.Contains(rows[everyTool], event) {
			continue
		}
		if printed(event, "lib/") {
			t.Errorf("%s: in %s, but there is no row for it in docs/operations.md, %s", event, found[event], everyTool)
		}
		for section, path := range toolSections {
			if printed(event, path) && !slices.Contains(rows[section], event) {
				t.Errorf("%s: in %s, but there is no row for it in docs/operations.md, %s", event, found[event], section)
			}
		}
	}
	for section, events := range rows {
		level := "ERROR"
		if section == warnings {
			level = "WARN"
		}
		for i, event := range events {
			switch path := toolSections[section]; {
			case !slices.Contains(levels(schema[event]), level):
				t.Errorf("docs/operations.md, %s: there is no event %s of level %s", section, event, level)
			case path != "" && !printed(event, path):
				t.Errorf("docs/operations.md: %s does not print %s", section, event)
			case slices.Contains(events[:i], event):
				t.Errorf("docs/operations.md, %s: two rows for %s", section, event)
			}
		}
	}
}

// The units, files of units and flags in the commands of docs/operations.md exist.
func TestOperationsNamesWhatExists(t *testing.T) {
	page, _ := readOperations(t)
	root, err := workspace.Root()
	if err != nil {
		t.Fatal(err)
	}
	families := `(?:system-metrics|gitops-|reading-sync|volume-backup|hub-failure|hub-status)`
	for _, m := range regexp.MustCompile(families+`[a-z-]*@?[*a-z]*\.(?:service|timer|socket)`).FindAllString(page, -1) {
		name := regexp.MustCompile(`@[*a-z]*`).ReplaceAllString(m, "@")
		if _, err := os.Stat(filepath.Join(root, "systemd", name)); err != nil {
			t.Errorf("docs/operations.md names %s: %v", m, err)
		}
	}
	var units strings.Builder
	all, err := filepath.Glob(filepath.Join(root, "systemd", "*.service"))
	if err != nil || len(all) == 0 {
		t.Fatalf("no units: %v", err)
	}
	for _, path := range all {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		units.Write(b)
	}
	for _, m := range regexp.MustCompile(`/etc/observability-hub/([a-z-]+\.env)|/etc/credstore/([a-z_]+)`).FindAllStringSubmatch(page, -1) {
		if line := m[1] + m[2]; !regexp.MustCompile(`(?m)^(?:EnvironmentFile=-/etc/observability-hub/|LoadCredential=)` + regexp.QuoteMeta(line) + `$`).MatchString(units.String()) {
			t.Errorf("docs/operations.md names %s, which no unit reads", m[0])
		}
	}
	pages := map[string]string{
		"sysmetrics": "sysmetrics/sysmetrics.1.scd", "gitsync": "gitsync/gitsync.1.scd", "readsync": "readsync/readsync.1.scd",
		"volbackup": "volbackup/volbackup.1.scd", "manage_volume.sh": "volbackup/manage_volume.sh.1.scd",
	}
	for tool, path := range pages {
		b, err := os.ReadFile(filepath.Join(root, path))
		if err != nil {
			t.Fatal(err)
		}
		typed := regexp.MustCompile(fmt.Sprintf("(?:^|[ `(;&])%s ([a-z]+)((?: +[^ `;&|]+)*)", regexp.QuoteMeta(tool)))
		for _, code := range regexp.MustCompile("(?m)`[^`]+`|^    .*$").FindAllString(page, -1) {
			if strings.HasPrefix(code, "`command -v") { // a list of programs
				continue
			}
			for _, m := range typed.FindAllStringSubmatch(strings.Trim(code, "`"), -1) {
				if !strings.Contains(string(b), "*"+tool+"* *"+m[1]+"*") && !strings.Contains(string(b), "["+m[1]+"]") && !strings.Contains(string(b), "\n*"+m[1]+"*") {
					t.Errorf("docs/operations.md: %s has no command %s: %s", tool, m[1], code)
				}
				for _, flag := range regexp.MustCompile(`--[a-z][a-z-]+`).FindAllString(m[2], -1) {
					if !strings.Contains(string(b), "*"+flag+"*") {
						t.Errorf("docs/operations.md: %s has no flag %s: %s", tool, flag, code)
					}
				}
			}
		}
	}
}

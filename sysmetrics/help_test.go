package main

import (
	"regexp"
	"strings"
	"testing"
)

// --help explains each flag and names its environment variable. flagHelp has no
// flag that does not exist.
func TestHelp(t *testing.T) {
	flag := regexp.MustCompile(`(?m)^ +(?:-\w, +)?--([a-z-]+)`)
	explained := make(map[string]bool)
	for line := range strings.Lines(strings.TrimSpace(app().Flags)) {
		name, text, _ := strings.Cut(strings.TrimSpace(line), " ")
		explained[name] = strings.TrimSpace(text) != ""
	}
	used := make(map[string]bool)
	for _, command := range []string{"collect", "flush", "schema", "rollup", "prune"} {
		r := run(t, nil, "", command, "--help")
		if r.status != 0 || r.stderr != "" || !strings.HasSuffix(r.stdout, app().Examples) {
			t.Fatalf("%s --help = %d, stderr %q; want it to end in the examples:\n%s", command, r.status, r.stderr, r.stdout)
		}
		for _, m := range flag.FindAllStringSubmatch(r.stdout, -1) {
			name := m[1]
			if name == "help" || name == "version" {
				continue
			}
			used[name] = true
			if !explained[name] {
				t.Errorf("%s --help does not say what --%s is for", command, name)
			}
			// Long texts are wrapped, also within a variable's name.
			if !strings.Contains(strings.Join(strings.Fields(r.stdout), ""), "($SYSMETRICS_"+strings.ToUpper(strings.ReplaceAll(name, "-", "_"))+")") {
				t.Errorf("%s --help does not name the variable of --%s", command, name)
			}
		}
	}
	for _, name := range sortedKeys(explained) {
		if used[name] {
			continue
		}
		t.Errorf("--%s is explained, but no command has it", name)
	}
	if len(used) < 10 {
		t.Errorf("flags found: %v", used)
	}
}

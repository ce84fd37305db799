package main

import (
	"regexp"
	"strings"
	"testing"

	"observability-hub/lib/cli"
)

// A flag without a text would be listed with the name of its variable alone.
func TestEveryFlagHasHelp(t *testing.T) {
	flag := regexp.MustCompile(`(?m)^ +--([a-z-]+)`)
	for _, command := range []string{"collect", "flush", "prune"} {
		stdout, stderr := tempFile(t), tempFile(t)
		if status := cli.Main(app(), []string{command, "--help"}, strings.NewReader(""), stdout, stderr); status != 0 {
			t.Fatalf("%s --help: status %d, %s", command, status, content(t, stderr))
		}
		flags := flag.FindAllStringSubmatch(content(t, stdout), -1)
		if len(flags) < 2 {
			t.Errorf("%s --help lists %d flags", command, len(flags))
		}
		for _, f := range flags {
			if f[1] != "version" && !strings.Contains(flagHelp, "\n"+f[1]+" ") {
				t.Errorf("%s --%s has no help", command, f[1])
			}
		}
	}
}

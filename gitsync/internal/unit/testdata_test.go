package unit

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// The files of testdata use syntax that occurs in real repositories and that the
// manual hardly mentions. systemd 252 reads the same commands from them.
func TestFixtures(t *testing.T) {
	read := func(name string) []byte {
		t.Helper()
		content, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		return content
	}
	for name, want := range map[string][]string{
		"windows.service":   {"/usr/local/bin/copy"},
		"bom-line.service":  {"/bin/true"},
		"commented.service": {"/usr/bin/docker"}, // the empty line ends the command
		"shell.service":     {"/bin/sh", "/bin/bash", "/usr/bin/date", "/usr/bin/find", "/usr/bin/env", "/bin/sync", "/usr/bin/awk", "/opt/my tool/run", "/bin/case"},
		"resets@.service":   {"/usr/bin/two"},
	} {
		u := Parse(name, read(name))
		if got := u.Programs(); u.Err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %q, %v; want %q", name, got, u.Err, want)
		}
		if !u.Oneshot() && name != "resets@.service" {
			t.Errorf("%s is not a oneshot", name)
		}
	}
	if !Parse("windows.service", read("windows.service")).Installable() {
		t.Error("[Install] in a file with CR LF is not found")
	}
	u := Parse("resets@x.service", read("resets@.service"))
	if got := u.Words("Service", "Environment"); !slices.Equal(got, []string{"C=4"}) {
		t.Errorf("Environment = %q", got)
	}
	if got := u.Last("Unit", "Description"); got != "Two" {
		t.Errorf("Description = %q", got)
	}
}

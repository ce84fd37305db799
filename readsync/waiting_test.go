package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"observability-hub/lib/cli"
	"observability-hub/lib/mantest"
	"observability-hub/lib/sysexits"
)

func TestStatusCountsDeadLetters(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct{ content, want string }{
		{"", `"dead_letters":0,"bytes":0}`},
		{"{}\n{}\n", `"dead_letters":2,"bytes":6}`},
		// A killed run left half a letter. Its document is still ingested.
		{"{}\n{", `"dead_letters":1,"bytes":4}`},
	} {
		if c.content != "" {
			if err := os.WriteFile(filepath.Join(dir, lettersFile), []byte(c.content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		got := mantest.Stdout(t, app(), "status", "--state-dir", dir)
		if !strings.Contains(got, `"msg":"dead_letter_status"`) || !strings.HasSuffix(got, c.want+"\n") {
			t.Errorf("%q: status printed %s; want %s", c.content, got, c.want)
		}
	}
	if got := mantest.Stdout(t, app(), "status", "--dead-letters", filepath.Join(dir, lettersFile)); !strings.Contains(got, `"dead_letters":1`) {
		t.Errorf("--dead-letters: %s", got)
	}
	// The state of no run at all is an error, not an empty file.
	err := (&statusCmd{StateDir: filepath.Join(dir, "missing")}).Run(t.Context(), &cli.Env{App: app()})
	if e, ok := errors.AsType[*sysexits.Error](err); !ok || e.Event != "no_state_directory" {
		t.Errorf("status of a missing directory: %v", err)
	}
}

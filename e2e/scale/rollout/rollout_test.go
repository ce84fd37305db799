package main

import (
	"os"
	"testing"
	"time"

	"observability-hub/e2e/workspace"
)

func TestMain(m *testing.M) {
	os.Exit(workspace.Run(m))
}

// A bad commit reaches all hosts without verdicts, and only the canary with them.
func TestRollOut(t *testing.T) {
	const hosts = 12
	f, err := newFleet(t.TempDir(), hosts)
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		scenario
		took int
	}{
		{scenario{name: "at once", jitter: 2 * time.Minute}, hosts},
		{scenario{name: "a canary", jitter: interval, stagger: 30 * time.Minute, stopAfter: 1, canaries: 1}, 1},
	} {
		r, err := f.rollOut(tc.scenario)
		if err != nil {
			t.Fatalf("%s: %v", tc.name, err)
		}
		if r.took != tc.took || r.stopped != hosts-tc.took {
			t.Errorf("%s: %+v; want %d hosts that take the bad commit", tc.name, r, tc.took)
		}
	}
	if refs, err := f.server.git("for-each-ref", "--format=%(objectname) %(refname)"); err != nil || refs != f.bad+" refs/heads/main\n"+f.bad+" refs/hosts/web0.example.org/bad" {
		t.Errorf("refs of the server: %s, %v", refs, err)
	}
	if used, err := f.server.used(); err != nil || used <= 0 {
		t.Errorf("CPU time of the server: %v, %v", used, err)
	}
}

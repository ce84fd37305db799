package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"observability-hub/e2e/workspace"
)

// TestLimitsOfUnits checks the arithmetic of the units' settings: all tries of a job end before systemd stops it, and a job that
// hangs ends before the timer's next start.
func TestLimitsOfUnits(t *testing.T) {
	for _, c := range []struct {
		unit    string
		command string        // whose flag limits one try
		flag    string        //
		retried bool          // whether a try that has used up this limit is retried
		beside  time.Duration // what a try takes beside that
		period  time.Duration // of the timer
		within  time.Duration // when the failure of a peer that hangs is reported at the latest
		outage  time.Duration // of a peer that refuses connections, which is not reported
	}{
		{"gitops-sync.service", "gitsync pull", "timeout", true, 30 * time.Second, 15 * time.Minute, 15 * time.Minute, 30 * time.Second},
		{"gitops-sync@.service", "gitsync pull", "timeout", true, 30 * time.Second, 15 * time.Minute, 15 * time.Minute, 30 * time.Second},
		{"gitops-apply.service", "gitsync apply", "on-change-timeout", true, time.Minute, time.Hour, time.Hour, 0},
		{"gitops-apply@.service", "gitsync apply", "on-change-timeout", true, time.Minute, time.Hour, time.Hour, 0},
		{"reading-sync.service", "readsync trigger", "deadline", true, 0, 24 * time.Hour, time.Hour, 10 * time.Minute},
		{"system-metrics.service", "sysmetrics collect", "timeout", true, 2 * time.Second, time.Minute, time.Minute, 0},
		// A volume that has used up its time fails alone (exit status 11), which is not retried.
		{"volume-backup.service", "volbackup run", "timeout", false, time.Hour, 24 * time.Hour, 12 * time.Hour, 4 * time.Minute},
	} {
		t.Run(c.unit, func(t *testing.T) {
			settings := unitSettings(t, c.unit)
			stop := span(t, settings["TimeoutStartSec"])
			tries, after := 1, time.Duration(0)
			if settings["HUB_TRIES"] != "" {
				var err error
				if tries, err = strconv.Atoi(settings["HUB_TRIES"]); err != nil {
					t.Fatal(err)
				}
				after = span(t, settings["HUB_RETRY_AFTER"])
			}
			try := flagLimit(t, c.command, c.flag, settings)
			waits := time.Duration(tries-1) * after
			longest := try + c.beside + waits
			if c.retried {
				longest = time.Duration(tries)*(try+c.beside) + waits
			}
			t.Logf("%d tries of %v, %v apart: %v at most; systemd stops it after %v", tries, try, after, longest, stop)
			if longest >= stop {
				t.Errorf("all tries take up to %v, but TimeoutStartSec=%v", longest, stop)
			}
			if longest > c.within {
				t.Errorf("a peer that hangs is reported after %v; want %v", longest, c.within)
			}
			if stop >= c.period {
				t.Errorf("a job that hangs ends after %v, and the timer's next start is after %v", stop, c.period)
			}
			if waits < c.outage {
				t.Errorf("the job tries for %v; want it to survive %v without its peer", waits, c.outage)
			}
		})
	}
}

// unitSettings returns the settings of a unit in systemd/, and the variables of its Environment= lines. The last value counts.
func unitSettings(t *testing.T, unit string) map[string]string {
	t.Helper()
	root, err := workspace.Root()
	if err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(filepath.Join(root, "systemd", unit))
	if err != nil {
		t.Fatal(err)
	}
	settings := map[string]string{}
	for line := range strings.Lines(string(content)) {
		key, value, found := strings.Cut(strings.TrimSpace(line), "=")
		if !found || strings.HasPrefix(key, "#") {
			continue
		}
		settings[key] = value
		if key == "Environment" {
			for _, assignment := range strings.Fields(value) {
				name, value, _ := strings.Cut(assignment, "=")
				settings[name] = value
			}
		}
	}
	return settings
}

// flagLimit returns the value of a flag in a unit: that of the flag's variable, if the unit sets it, or the default. The help of
// the command names both.
func flagLimit(t *testing.T, command, flag string, settings map[string]string) time.Duration {
	t.Helper()
	words := strings.Fields(command)
	binary, err := workspace.Binary(words[0])
	if err != nil {
		t.Fatal(err)
	}
	help, err := exec.Command(binary, words[1], "--help").Output()
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`(?s)--` + flag + `=\S+ [^$]*?\((\d+\w+)\)\.\s+\(\$(\w+)\)`).FindSubmatch(help)
	if found == nil {
		t.Fatalf("%s --help does not have --%s with its default and variable:\n%s", command, flag, help)
	}
	if set := settings[string(found[2])]; set != "" {
		return span(t, set)
	}
	return span(t, string(found[1]))
}

// span reads a time span of systemd or of Go.
func span(t *testing.T, text string) time.Duration {
	t.Helper()
	d, err := time.ParseDuration(strings.ReplaceAll(text, "min", "m"))
	if err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	return d
}

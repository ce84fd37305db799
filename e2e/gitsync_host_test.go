package e2e

import (
	"embed"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"observability-hub/e2e/nspawn"
)

//go:embed testdata/gitsync-machine/host*.sh
var gitsyncHost embed.FS

// casesEnv selects cases of TestGitsyncHost by a regular expression, for example '^A1_'.
const casesEnv = "HUB_CASES"

// sample selects the cases that a run without HUB_TORTURE runs on the second suite: one of each kind where newer versions of
// systemd behave differently.
const sample = `^(A2|D2|E2|F5|F15|G1|H3)_`

// shards distribute the cases over several machines that run side by side, because most of a case is waiting.
var shards = []string{`^[AB]`, `^[CD]`, `^[EG]`, `^[FH]`}

// TestGitsyncHost runs gitsync by hand on booted hosts, one case after the other. The cases are what real units, vendors and
// administrators do. Each case is a subtest. If it fails, its output is printed.
func TestGitsyncHost(t *testing.T) {
	t.Parallel()
	examples, err := filepath.Abs("../examples")
	if err != nil {
		t.Fatal(err)
	}
	for _, suite := range []string{nspawn.Bookworm, nspawn.Trixie} {
		t.Run(suite, func(t *testing.T) {
			cases := shards
			if given := os.Getenv(casesEnv); given != "" {
				cases = []string{given}
			} else if suite == nspawn.Trixie && os.Getenv("HUB_TORTURE") == "" {
				cases = []string{sample}
			}
			began := time.Now()
			var machines []*nspawn.Machine
			for _, some := range cases {
				config := nspawn.Config{
					Suite:    suite,
					Packages: []string{"git", "jq"},
					Tools:    []string{"gitsync"},
					Script:   hostScript(t, some),
					Timeout:  30 * time.Minute,
					Binds:    []nspawn.Bind{{From: examples, To: "/examples"}},
				}
				if dir := os.Getenv("GOCOVERDIR"); dir != "" { // see make cover
					config.Binds = append(config.Binds, nspawn.Bind{From: dir, To: "/cover"})
				}
				machines = append(machines, nspawn.Start(t, config))
			}
			n := 0
			for _, machine := range machines {
				n += verdicts(t, machine.Wait())
			}
			t.Logf("%d cases in %v", n, time.Since(began).Round(time.Second))
		})
	}
}

// verdicts makes a subtest of each case that a machine has run, and returns the number of cases.
func verdicts(t *testing.T, result *nspawn.Result) int {
	if result.Status != 0 {
		t.Errorf("exit status %d\nstdout: %s\nstderr: %s", result.Status, result.Stdout, result.Stderr)
	}
	lines := strings.Split(strings.TrimSpace(result.Stdout), "\n")
	for _, line := range lines {
		var verdict, name string
		var ms int
		if _, err := fmt.Sscan(line, &verdict, &name, &ms); err != nil {
			t.Fatalf("%v in %q", err, line)
		}
		t.Run(name, func(t *testing.T) {
			log, err := os.ReadFile(filepath.Join(result.Dir, name+".log"))
			if err != nil {
				t.Fatal(err)
			}
			if verdict != "ok" {
				t.Errorf("after %d ms:\n%s", ms, log)
			}
		})
	}
	return len(lines)
}

// hostScript returns the script: first the functions, then the call.
func hostScript(t *testing.T, cases string) string {
	t.Helper()
	const dir = "testdata/gitsync-machine"
	all, err := gitsyncHost.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var script strings.Builder
	// host.sh sets the shell's options.
	slices.SortFunc(all, func(a, b os.DirEntry) int {
		return strings.Compare(strings.TrimSuffix(a.Name(), ".sh"), strings.TrimSuffix(b.Name(), ".sh"))
	})
	for _, file := range all {
		content, err := gitsyncHost.ReadFile(dir + "/" + file.Name())
		if err != nil {
			t.Fatal(err)
		}
		script.Write(content)
	}
	fmt.Fprintf(&script, "\ntorture=%q\nif [[ ${1:-} == one ]]; then one \"$2\"; else main '%s'; fi\n", os.Getenv("HUB_TORTURE"), cases)
	return script.String()
}

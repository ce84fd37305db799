// Package fleet simulates many hosts that send their samples to one database. All hosts are in one process, with sysmetrics' own
// code: its test binary acts as a fleet if a variable says so. Each host has a state directory with a spool, opens a session for
// each flush, and closes it.
package fleet

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"observability-hub/e2e/workspace"
)

// Order says what the fleet does. sysmetrics/fleet_test.go describes the fields.
type Order struct {
	Name    string
	Hosts   int
	Seconds float64
	Samples int
	Seed    uint64
	Replay  bool
}

// Report is what the fleet did.
type Report struct {
	Flushes, Failed            int
	P50, P99, Max              float64
	Began, Ended               time.Time
	Inserted, Duplicates, Lost int64
	Waiting                    int64
	Retries                    int
	Errors                     map[string]int
	CPU                        float64
}

// Binary is a fleet that can be run.
type Binary struct {
	path    string
	records []string
}

// Build compiles the fleet into a directory.
func Build(dir string) (*Binary, error) {
	root, err := workspace.Root()
	if err != nil {
		return nil, err
	}
	b := &Binary{path: filepath.Join(dir, "fleet")}
	cmd := exec.Command("go", "test", "-c", "-o", b.path, ".")
	cmd.Dir = filepath.Join(root, "sysmetrics")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("go test -c: %w\n%s", err, out)
	}
	// A sample of a virtual machine with two CPUs, one disk and one interface.
	sample, err := os.ReadFile(filepath.Join(root, "sysmetrics", "testdata", "vm", "want.2.jsonl"))
	if err != nil {
		return nil, err
	}
	at, host := regexp.MustCompile(`^\{"time":"[^"]*"`), regexp.MustCompile(`"host":"[^"]*"`)
	for line := range strings.Lines(string(sample)) {
		line = at.ReplaceAllString(strings.TrimSpace(line), `{"time":"TIME"`)
		b.records = append(b.records, host.ReplaceAllString(line, `"host":"HOST"`))
	}
	return b, nil
}

// Records is the number of records of a sample.
func (b *Binary) Records() int { return len(b.records) }

// Run runs a fleet against a database, to its end. dir is for the states of the hosts, which Run removes.
func (b *Binary) Run(dir, databaseURL string, order Order) (Report, error) {
	var report Report
	states, err := os.MkdirTemp(dir, "hosts")
	if err != nil {
		return report, err
	}
	defer os.RemoveAll(states)
	input, err := json.Marshal(struct {
		Order
		Dir     string
		Records []string
	}{order, states, b.records})
	if err != nil {
		return report, err
	}
	cmd := exec.Command(b.path)
	cmd.Dir = dir
	cmd.Env = []string{"PATH=/usr/bin:/bin", "HOME=" + dir, "SYSMETRICS_TEST_FLEET=1", "DATABASE_URL=" + databaseURL}
	cmd.Stdin = bytes.NewReader(input)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return report, fmt.Errorf("fleet: %w\n%.2000s", err, &stderr)
	}
	return report, json.Unmarshal(stdout.Bytes(), &report)
}

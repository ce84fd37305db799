// Progress runs go test and prints its progress: a line for each test that has
// ended, and for each subtest that failed or took a second. Once a minute it
// prints which tests are running.
//
// Synopsis:
//
//	progress [go test's arguments]
//
// It prints the whole output of a test that failed, and the lines of every test
// that name its seed. The exit status is that of go test.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"
)

// event is a line of go test -json (go doc test2json; build-output is in go help buildjson).
type event struct {
	Action, Package, Test, Output, ImportPath string
	Elapsed                                   float64 // seconds
}

func main() {
	cmd := exec.Command("go", append([]string{"test", "-json"}, os.Args[1:]...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "progress:", err)
		os.Exit(1)
	}
	newReport(os.Stdout).follow(out, time.Tick(time.Minute))
	err = cmd.Wait()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.ExitCode() > 0 {
		os.Exit(exit.ExitCode())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "progress: go test:", err)
		os.Exit(1)
	}
}

// report keeps the state of the tests that have not ended.
type report struct {
	w       io.Writer
	started map[string]time.Time
	output  map[string][]string
	ended   map[string]int // tests by their last action
	failed  []string
}

func newReport(w io.Writer) *report {
	return &report{w: w, started: map[string]time.Time{}, output: map[string][]string{}, ended: map[string]int{}}
}

// follow reports the events until the last one.
func (r *report) follow(events io.Reader, minute <-chan time.Time) {
	lines := make(chan []byte)
	go func() {
		defer close(lines)
		b := bufio.NewReader(events)
		for {
			line, err := b.ReadBytes('\n')
			if len(line) > 0 {
				lines <- line
			}
			if err != nil {
				return
			}
		}
	}()
	for {
		select {
		case line, ok := <-lines:
			if !ok {
				fmt.Fprintf(r.w, "%d tests passed, %d failed, %d skipped\n", r.ended["pass"], r.ended["fail"], r.ended["skip"])
				for _, name := range r.failed {
					fmt.Fprintf(r.w, "failed: %s\n", name)
				}
				return
			}
			var e event
			if json.Unmarshal(line, &e) != nil {
				fmt.Fprintf(r.w, "%s", line) // not from a test
				continue
			}
			r.add(e)
		case now := <-minute:
			r.running(now)
		}
	}
}

// add reports one event.
func (r *report) add(e event) {
	name := strings.TrimPrefix(e.Package, "observability-hub/")
	if e.Test != "" {
		name += " " + e.Test
	}
	switch e.Action {
	case "run", "cont":
		r.started[name] = time.Now()
	case "pause": // until the tests that are not parallel have ended
		delete(r.started, name)
	case "build-output":
		fmt.Fprint(r.w, e.Output)
	case "output":
		r.output[name] = append(r.output[name], e.Output)
		if strings.Contains(e.Output, "HUB_SEED=") {
			fmt.Fprintf(r.w, "    %s: %s\n", name, strings.TrimSpace(e.Output))
		}
	case "pass", "fail", "skip":
		if e.Action == "fail" {
			fmt.Fprint(r.w, strings.Join(r.output[name], ""))
			r.failed = append(r.failed, name)
		}
		if e.Test != "" {
			r.ended[e.Action]++
		}
		// Hundreds of subtests take no time.
		if e.Test != "" && (e.Action != "pass" || !strings.Contains(e.Test, "/") || e.Elapsed >= 1) {
			fmt.Fprintf(r.w, "--- %s: %s (%.2fs)\n", strings.ToUpper(e.Action), name, e.Elapsed)
		}
		if e.Test == "" && e.Action == "pass" {
			fmt.Fprintf(r.w, "ok  \t%s\t%.3fs\n", e.Package, e.Elapsed)
		}
		delete(r.started, name)
		delete(r.output, name)
	}
}

// running returns which tests have been running for how long. It leaves out a
// test that waits for its subtests.
func (r *report) running(now time.Time) {
	var names []string
	for name, since := range r.started {
		parent := false
		for other := range r.started {
			parent = parent || strings.HasPrefix(other, name+"/")
		}
		if !parent {
			names = append(names, fmt.Sprintf("%s (%.0f s)", name, now.Sub(since).Seconds()))
		}
	}
	slices.Sort(names)
	const most = 8
	if more := len(names) - most; more > 0 {
		names = append(names[:most], fmt.Sprintf("and %d more", more))
	}
	if len(names) > 0 {
		fmt.Fprintf(r.w, "    running: %s\n", strings.Join(names, ", "))
	}
}

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"

	"observability-hub/lib/sysexits"
)

// selection has the lines of a plan that were read from stdin.
type selection struct{ lines []action }

// maxPlan is the maximum size of a plan on stdin, in bytes.
const maxPlan = 64 << 20

// readSelection reads the lines of a plan. A filter may have added fields to a line
// or removed some, as long as the line still identifies its step.
func readSelection(r io.Reader) (*selection, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxPlan+1))
	if err != nil {
		return nil, fmt.Errorf("read stdin: %w", err)
	}
	if len(b) > maxPlan {
		return nil, planRefused(errors.New("the plan is longer than 64 MiB"))
	}
	return parseSelection(b)
}

func planRefused(err error) error {
	return sysexits.New(sysexits.DataErr, "plan_refused", fmt.Errorf("stdin: %w", err)).
		WithHint("make a new plan: gitsync plan | gitsync apply -; nothing was changed")
}

// parseSelection parses one action a line.
func parseSelection(b []byte) (*selection, error) {
	s := &selection{}
	number := 0
	for line := range bytes.Lines(b) {
		number++
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		var a action
		if err := json.Unmarshal(line, &a); err != nil {
			return nil, planRefused(fmt.Errorf("line %d: %w", number, err))
		}
		if a.Action == "" || a.Commit == "" {
			return nil, planRefused(fmt.Errorf("line %d is not a line of a plan: it has no action or no commit", number))
		}
		s.lines = append(s.lines, a)
	}
	return s, nil
}

// of returns the selected actions in the order of the plan. It refuses a line that
// is not in the present plan: the commit or the host has changed since, or the line
// was never part of a plan.
func (s *selection) of(plan []action, commit string) ([]action, error) {
	for i, line := range s.lines {
		if line.Commit != commit {
			return nil, planRefused(fmt.Errorf("line %d is of commit %s, not of %s", i+1, line.Commit, commit))
		}
		if !slices.ContainsFunc(plan, line.same) {
			return nil, planRefused(fmt.Errorf("line %d: %s %s%s is not in the plan of this host", i+1, line.Action, line.Unit, line.Path))
		}
	}
	var selected []action
	for _, a := range plan {
		if slices.ContainsFunc(s.lines, a.same) {
			selected = append(selected, a)
		}
	}
	// A unit whose file is not installed cannot be enabled.
	for _, a := range plan {
		if a.Action != doInstall || !a.isMain() || slices.ContainsFunc(selected, a.same) {
			continue
		}
		for _, b := range selected {
			if b.Action == doEnable && (b.Unit == a.Unit || b.Path == a.Path) {
				return nil, planRefused(fmt.Errorf("the lines enable %s but do not install %s", b.Unit, path.Base(a.Path)))
			}
		}
	}
	return selected, nil
}

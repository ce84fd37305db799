package main

import (
	"path"
	"time"

	"observability-hub/lib/record"
)

// The kinds of action in a plan.
const (
	doInstall = "install"
	doUpdate  = "update"
	doRemove  = "remove"
	doEnable  = "enable"
	doDisable = "disable"
	doRestart = "restart"
	doRun     = "run"
	doSkip    = "skip"
)

// action is one line of a plan: one difference between the commit and the host.
type action struct {
	Action string `json:"action"`
	Unit   string `json:"unit,omitempty"`
	Path   string `json:"path,omitempty"`
	Reason string `json:"reason"`
	Commit string `json:"commit"`

	add, drop enablement // links that the action makes and removes
	stop      bool       // stop the unit, and the instances of a template, before the action
	service   string     // for the removal of a quadlet: the service that podman's generator made of it
	start     []string   // units that the action starts
	healing   bool       // a restart that repairs something this commit did not cause
}

// same reports whether two lines mean the same step. It ignores the reason,
// which only informs the reader.
func (a action) same(b action) bool {
	return a.Action == b.Action && a.Unit == b.Unit && a.Path == b.Path && a.Commit == b.Commit
}

// isFile reports whether the action changes a file on the host.
func (a action) isFile() bool {
	return a.Action == doInstall || a.Action == doUpdate || a.Action == doRemove
}

// isMain reports whether the action concerns the main file of its unit.
func (a action) isMain() bool { return a.Unit != "" && path.Base(a.Path) == a.Unit }

// planned returns the record of an action in a plan.
func (a action) planned(now time.Time, service string) []byte {
	return a.fill(record.New(now, record.Info, "planned", service))
}

// done returns the record of an action that was done.
func (a action) done(now time.Time, level, service string) []byte {
	return a.fill(record.New(now, level, "action", service))
}

func (a action) fill(l *record.Line) []byte {
	l.String("action", a.Action)
	if a.Unit != "" {
		l.String("unit", a.Unit)
	}
	if a.Path != "" {
		l.String("path", a.Path)
	}
	l.String("reason", a.Reason)
	l.String("commit", a.Commit)
	return l.End()
}

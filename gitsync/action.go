package main

import (
	"path"
	"time"

	"observability-hub/lib/record"
)

// Actions of a plan.
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

// action is one difference between what the commit wants and what the host
// has: one line of a plan.
type action struct {
	Action string `json:"action"`
	Unit   string `json:"unit,omitempty"`
	Path   string `json:"path,omitempty"`
	Reason string `json:"reason"`
	Commit string `json:"commit"`

	add, drop enablement // links that it makes and removes
	stop      bool       // the unit, and the instances of a template, stop first
	service   string     // what a quadlet that is removed was for systemd
	start     []string   // units that it starts
	healing   bool       // a restart for what is wrong without this commit
}

// same reports whether two lines mean the same step. The reason is for people.
func (a action) same(b action) bool {
	return a.Action == b.Action && a.Unit == b.Unit && a.Path == b.Path && a.Commit == b.Commit
}

// isFile reports whether the action changes a file on the host.
func (a action) isFile() bool {
	return a.Action == doInstall || a.Action == doUpdate || a.Action == doRemove
}

// isMain reports whether the action is on the main file of its unit.
func (a action) isMain() bool { return a.Unit != "" && path.Base(a.Path) == a.Unit }

// planned is the line of a plan.
func (a action) planned(now time.Time, service string) []byte {
	return a.fill(record.New(now, record.Info, "planned", service))
}

// done is the line that says that it was done.
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

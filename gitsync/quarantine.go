package main

import (
	"time"

	"observability-hub/lib/statedir"
)

// quarantine is a commit that broke the host. It is not applied again until the
// branch moves, because it would break the host at every run of the timer.
type quarantine struct {
	Commit string    `json:"commit"`
	Reason string    `json:"reason"`
	Since  time.Time `json:"since"`
}

const quarantineFile = "quarantine.json"

func readQuarantine(state string) (quarantine, error) {
	var q quarantine
	return q, readState(state, quarantineFile, &q)
}

func writeQuarantine(dir *statedir.Dir, commit, reason string) error {
	return writeState(dir, quarantineFile, quarantine{commit, reason, time.Now().UTC()})
}

package main

import (
	"time"

	"observability-hub/lib/statedir"
)

// quarantine is the commit that turned out bad. It is not applied again until
// the branch moves: a commit that breaks the host would do so every 15 minutes.
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

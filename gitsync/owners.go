package main

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"

	"observability-hub/lib/diag"
	"observability-hub/lib/durable"
)

// ownersDir lists, on the host, the state directories of all gitsyncs that
// deploy there: a file for each, which holds its path. systemd does not read
// directories whose names begin with a dot.
const ownersDir = unitDir + "/.gitsync"

// register notes on the host that the state directory owns files there.
func register(h host, state string) error {
	state = realState(state)
	dir, err := h.resolve(ownersDir)
	if err != nil {
		return err
	}
	name := filepath.Join(dir, ownerName(state))
	if b, err := os.ReadFile(name); err == nil && string(b) == state+"\n" {
		return nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	fresh := filepath.Join(dir, newPrefix+ownerName(state)+suffix)
	if err := writeNew(fresh, []byte(state+"\n"), 0o644, 0, 0); err != nil {
		return err
	}
	return durable.Rename(fresh, name)
}

// realState returns one name for a state directory that has several.
func realState(state string) string {
	if real, err := filepath.EvalSymlinks(state); err == nil {
		return real
	}
	return state
}

func ownerName(state string) string { return sum([]byte(state))[:16] }

// readOwners returns the paths on the host that other gitsyncs own, and whose
// state directories those are. Where two own one path, from a time when that
// was possible, the state directory that is first in the alphabet has it.
func readOwners(h host, state string, ours map[string]owned, d *diag.Logger) (map[string]string, error) {
	state = realState(state)
	dir, err := h.resolve(ownersDir)
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(dir)
	if err != nil && !notThere(err) {
		return nil, fmt.Errorf("read the other owners: %w", err)
	}
	all := map[string]string{}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") || e.Name() == ownerName(state) {
			continue
		}
		b, err := readRegular(filepath.Join(dir, e.Name()), 1<<12)
		if err != nil {
			return nil, err
		}
		other := strings.TrimSuffix(string(b), "\n")
		if !path.IsAbs(other) || other == state {
			continue
		}
		l, err := readLedger(other)
		if err != nil {
			d.Warn("state_unreadable", fmt.Sprintf("what %s owns on this host is not known: %v", other, err))
			continue
		}
		if l.Root != "" && l.Root != h.root {
			continue
		}
		for p := range l.Files {
			if _, both := ours[p]; !both || other < state {
				all[p] = other
			}
		}
	}
	return all, nil
}

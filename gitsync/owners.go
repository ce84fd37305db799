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

// ownersDir is a directory on the host with one file for each state directory of
// gitsync that deploys to the host. The file contains the path of the state
// directory. systemd does not read directories whose names begin with a dot.
const ownersDir = unitDir + "/.gitsync"

// register records on the host that a state directory owns files there.
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

// realState resolves the symbolic links in the path of a state directory, because
// the directory must have one name.
func realState(state string) string {
	if real, err := filepath.EvalSymlinks(state); err == nil {
		return real
	}
	return state
}

func ownerName(state string) string { return sum([]byte(state))[:16] }

// readOwners returns the paths on the host that other gitsyncs own, and the state
// directories of those. Older versions allowed two owners of one path. Such a path
// belongs to the state directory that sorts first.
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
			d.Warn("state_unreadable", fmt.Sprintf("cannot read which files of this host %s owns: %v", other, err))
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

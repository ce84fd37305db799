package main

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"observability-hub/lib/statedir"
)

// stateFlags say where the tool keeps its state.
type stateFlags struct {
	StateDir string `placeholder:"DIR"`
}

// Names of the units' state directories. pull and apply have one each. Instances
// add a dash and their name.
const (
	varLib     = "/var/lib"
	pullState  = family         // of gitops-sync.service
	applyState = "gitops-apply" // of gitops-apply.service
)

// path returns the state directory of apply and of the commands that use it.
func (s stateFlags) path() (string, error) {
	p, err := statedir.ResolveUnit(s.StateDir, applyState, family)
	if err != nil {
		return "", err
	}
	return filepath.Abs(p)
}

// existing returns the state directory of apply for a command that reports it.
func (s stateFlags) existing() (string, error) {
	p, err := statedir.Existing(s.StateDir, applyState, family)
	if err != nil {
		return "", err
	}
	return filepath.Abs(p)
}

// openSource locks the state directory of pull.
func (s stateFlags) openSource(ctx context.Context, wait time.Duration) (*statedir.Dir, error) {
	path, err := statedir.Resolve(s.StateDir, pullState)
	if err != nil {
		return nil, err
	}
	if path, err = filepath.Abs(path); err != nil {
		return nil, err
	}
	return statedir.Open(ctx, path, wait)
}

// openExisting locks the state directory of apply, which must exist. A new, empty
// directory would not be the one that the user means.
func (s stateFlags) openExisting(ctx context.Context, wait time.Duration) (*statedir.Dir, error) {
	path, err := s.existing()
	if err != nil {
		return nil, err
	}
	return statedir.Open(ctx, path, wait)
}

// openWith locks the state directory of apply. It creates a missing directory
// only if source is given: without source, a missing directory means that nothing
// was pulled.
func (s stateFlags) openWith(ctx context.Context, source string, wait time.Duration) (*statedir.Dir, error) {
	path, err := s.path()
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(path); source == "" && errors.Is(err, fs.ErrNotExist) {
		return nil, nothingPulled(path)
	}
	return statedir.Open(ctx, path, wait)
}

// defaultSource returns the state directory of pull that belongs to a state
// directory of apply: the one of gitops-sync.service if state is the one of
// gitops-apply.service, and otherwise state itself.
func defaultSource(state string) string {
	dir, name := filepath.Split(state)
	if rest, ok := strings.CutPrefix(name, applyState); ok && filepath.Clean(dir) == varLib && (rest == "" || rest[0] == '-') {
		return filepath.Join(varLib, pullState+rest)
	}
	return state
}

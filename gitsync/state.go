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

// stateFlags say where the tool keeps what it must remember.
type stateFlags struct {
	StateDir string `placeholder:"DIR"`
}

// The state directories of the units, which keep the halves apart. Instances
// add a dash and their name.
const (
	varLib     = "/var/lib"
	pullState  = family // of gitops-sync.service
	applyState = "gitops-apply"
)

// path returns the state directory of apply and of the commands that act on it.
func (s stateFlags) path() (string, error) {
	p, err := statedir.ResolveUnit(s.StateDir, applyState, family)
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

// openExisting locks the state directory of apply. It makes none: an answer
// about a new, empty state would be about another one than the user means.
func (s stateFlags) openExisting(ctx context.Context, wait time.Duration) (*statedir.Dir, error) {
	path, err := s.path()
	if err != nil {
		return nil, err
	}
	if err := statedir.Require(path); err != nil {
		return nil, err
	}
	return statedir.Open(ctx, path, wait)
}

// openWith locks the state directory of apply. Only with another source can a
// first apply begin without one.
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

// defaultSource returns the state directory of pull that belongs to one of
// apply: that of the other unit, or the same.
func defaultSource(state string) string {
	dir, name := filepath.Split(state)
	if rest, ok := strings.CutPrefix(name, applyState); ok && filepath.Clean(dir) == varLib && (rest == "" || rest[0] == '-') {
		return filepath.Join(varLib, pullState+rest)
	}
	return state
}

package main

import (
	"context"
	"errors"
	"path/filepath"

	"observability-hub/lib/cli"
	"observability-hub/lib/statedir"
)

// syncCmd is the default command: pull, then apply.
type syncCmd struct {
	stateFlags
	originFlags
	pullFlags
	rolloutFlags
	hostFlags
	applyFlags
}

func (c *syncCmd) Validate() error {
	return validate(c.originFlags, c.pullFlags, c.rolloutFlags, c.hostFlags, c.applyFlags)
}

// Run pulls into the source directory and applies in the state directory. If the
// pull fails, it applies what an earlier pull found, because the host can have
// drifted. The exit status is then that of the pull.
func (c *syncCmd) Run(ctx context.Context, env *cli.Env) error {
	state, err := c.path()
	if err != nil {
		return err
	}
	if c.Source == "" {
		c.Source = defaultSource(state)
	}
	if c.Source, err = filepath.Abs(c.Source); err != nil {
		return err
	}
	dir, err := statedir.Open(ctx, c.Source, timerWait)
	if err != nil {
		return err
	}
	defer func() { dir.Close() }() // the directory that is locked at that time
	pullErr := (&pull{env, dir, c.originFlags, c.pullFlags, c.rolloutFlags}).run(ctx)
	if pullErr != nil && (ctx.Err() != nil || !c.pulledBefore()) {
		return pullErr
	}
	if c.Source != state {
		own, err := statedir.Open(ctx, state, timerWait)
		if err != nil {
			return errors.Join(pullErr, err)
		}
		dir.Close()
		dir = own
	}
	a := &apply{env: env, dir: dir, originFlags: c.originFlags, hostFlags: c.hostFlags, applyFlags: c.applyFlags}
	err = a.run(ctx, nil)
	if pullErr == nil || ctx.Err() != nil {
		return err
	}
	if err != nil {
		env.Diag.Error(err)
	}
	return pullErr
}

// pulledBefore reports whether an earlier run pulled what the flags ask for.
func (c *syncCmd) pulledBefore() bool {
	p, err := readPulled(c.Source)
	return err == nil && p.Commit != "" && c.Repo != "" && p.agree(c.originFlags) == nil && p.Ref == c.Ref && p.Path == c.part()
}

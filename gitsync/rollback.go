package main

import (
	"context"
	"errors"

	"observability-hub/lib/cli"
	"observability-hub/lib/sysexits"
)

type rollbackCmd struct {
	stateFlags
	originFlags
	hostFlags
	applyFlags
}

func (c *rollbackCmd) Validate() error { return validate(c.originFlags, c.hostFlags, c.applyFlags) }

// Run applies the commit before the applied one. It quarantines the pulled
// commit, because the next run would otherwise apply that again.
func (c *rollbackCmd) Run(ctx context.Context, env *cli.Env) error {
	dir, err := c.openExisting(ctx, lockWait)
	if err != nil {
		return err
	}
	defer dir.Close()
	a := &apply{env: env, dir: dir, originFlags: c.originFlags, hostFlags: c.hostFlags, applyFlags: c.applyFlags}
	if err := a.prepare(); err != nil {
		return err
	}
	if len(a.ledger.Previous) == 0 {
		return sysexits.New(sysexits.Failed, "nothing_before", errors.New("there is no earlier commit to roll back to")).
			WithHint("gitsync status shows the applied commit; to undo it, revert it in Git and push")
	}
	leave, err := readPulled(a.Source)
	if err != nil {
		return err
	}
	if leave.Commit == "" {
		leave.Commit = a.ledger.Commit
	}
	if err := writeQuarantine(dir, leave.Commit, "rolled back by hand"); err != nil {
		return err
	}
	a.target, a.AllowPrune = a.ledger.Previous[0], true
	return a.run(ctx, nil)
}

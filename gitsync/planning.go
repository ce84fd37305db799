package main

import (
	"context"
	"time"

	"observability-hub/lib/cli"
	"observability-hub/lib/record"
)

type planCmd struct {
	stateFlags
	originFlags
	hostFlags
}

// Validate is kong's check after parsing.
func (c *planCmd) Validate() error { return validate(c.originFlags, c.hostFlags) }

func (c *planCmd) Run(ctx context.Context, env *cli.Env) error {
	return cli.Interruptible(ctx, func(ctx context.Context) error {
		dir, err := c.openWith(ctx, c.Source, lockWait)
		if err != nil {
			return err
		}
		defer dir.Close()
		a := &apply{env: env, dir: dir, originFlags: c.originFlags, hostFlags: c.hostFlags}
		if err := a.prepare(); err != nil {
			return err
		}
		if j, err := readJournal(dir.Path); err != nil || j != nil {
			env.Diag.Warn("apply_interrupted", "an apply was interrupted: the next one undoes it first; this plan is of the host as it is")
		}
		w, err := a.wish(ctx)
		if err != nil || w == nil {
			return err
		}
		if err := guard(a.ledger, w.d, false); err != nil {
			env.Diag.Warn("prune_ahead", err.Error()+": apply refuses that")
		}
		for _, act := range w.plan.actions {
			if err := env.Stdout.Record(record.Info, act.planned(time.Now(), env.Service)); err != nil {
				return err
			}
		}
		return nil
	})
}

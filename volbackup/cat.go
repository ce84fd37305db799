package main

import (
	"context"
	"io"

	"observability-hub/lib/cli"
)

type catCmd struct {
	repositoryFlags
	identityFlags
	engineFlags
	stagingFlags
	Archive string `arg:"" name:"volume[@id]" help:"The volume; without an id, its newest archive."`
}

// Immediate is cli's question whether a signal may end the run anywhere.
func (c *catCmd) Immediate() bool { return !c.isRestic() }

// Run checks all stored bytes before it writes the first one.
func (c *catCmd) Run(ctx context.Context, env *cli.Env) error {
	volume, id, err := parseArchive(c.Archive)
	if err != nil {
		return err
	}
	if c.isRestic() {
		return cli.Interruptible(ctx, func(ctx context.Context) error {
			return c.withSnapshot(ctx, volume, id, func(_ snapshot, in io.Reader) error {
				_, err := io.Copy(env.Stdout, in)
				return err
			})
		})
	}
	f, m, identities, err := c.take(ctx, c.identityFlags, volume, id)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := pour(ctx, f, m, identities, env.Stdout); err != nil {
		return damaged(volume, m.ID, err)
	}
	return nil
}

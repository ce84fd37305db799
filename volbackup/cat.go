package main

import (
	"context"

	"observability-hub/lib/cli"
	"observability-hub/volbackup/internal/repository"
)

type catCmd struct {
	repositoryFlags
	identityFlags
	scriptFlags
	engineFlags
	stagingFlags
	Archive string `arg:"" name:"volume[@id]" help:"The volume; without an id, its newest archive."`
}

// Immediate implements [cli.Immediate].
func (c *catCmd) Immediate() bool { return !c.isRestic() }

// Run verifies all stored bytes before it writes the first byte of the stream.
func (c *catCmd) Run(ctx context.Context, env *cli.Env) error {
	volume, id, err := repository.ParseArchive(c.Archive)
	if err != nil {
		return err
	}
	e, err := c.engine(env, c.repositoryFlags, c.identityFlags, c.stagingFlags, c.scriptFlags)
	if err != nil {
		return err
	}
	m, pour, done, err := e.find(ctx, volume, id)
	if err != nil {
		return err
	}
	defer done()
	if _, err := pour(ctx, env.Stdout); err != nil {
		return repository.DamagedError(volume, m.ID, err)
	}
	return nil
}

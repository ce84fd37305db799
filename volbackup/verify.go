package main

import (
	"context"

	"observability-hub/lib/cli"
)

type verifyCmd struct {
	repositoryFlags
	identityFlags
	engineFlags
	Deep     bool
	Archives []string `arg:"" optional:"" name:"volume[@id]" help:"Only these volumes or archives."`
}

// Run checks archives and keeps the result in their manifests.
func (c *verifyCmd) Run(ctx context.Context, env *cli.Env) error {
	e, err := c.engine(env, c.repositoryFlags, c.identityFlags, stagingFlags{}, scriptFlags{})
	if err != nil {
		return err
	}
	return e.verify(ctx, c.Archives, c.Deep)
}

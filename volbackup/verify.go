package main

import (
	"context"

	"io"
	"observability-hub/lib/cli"
	"observability-hub/lib/table"
)

type verifyCmd struct {
	repositoryFlags
	identityFlags
	engineFlags
	table.Flag
	Deep     bool
	Archives []string `arg:"" optional:"" name:"volume[@id]" help:"Only these volumes or archives."`
}

// Viewer implements [cli.Viewable].
func (c *verifyCmd) Viewer(w io.Writer) cli.Viewer {
	columns := []string{"volume", "id", "ok", "deep", "error"}
	return c.Show(w, table.Columns{"archive_verified": columns, "archive_verify_failed": columns})
}

// Run verifies archives and records the result in their manifests.
func (c *verifyCmd) Run(ctx context.Context, env *cli.Env) error {
	e, err := c.engine(env, c.repositoryFlags, c.identityFlags, stagingFlags{}, scriptFlags{})
	if err != nil {
		return err
	}
	return e.verify(ctx, c.Archives, c.Deep)
}

package main

import (
	"context"
	"errors"
	"fmt"

	"io"
	"observability-hub/lib/cli"
	"observability-hub/lib/record"
	"observability-hub/lib/sysexits"
	"observability-hub/lib/table"
	"observability-hub/volbackup/internal/repository"
)

type listCmd struct {
	repositoryFlags
	engineFlags
	table.Flag
	Volumes []string `arg:"" optional:"" name:"volume" help:"Only these volumes."`
}

// Immediate implements [cli.Immediate].
func (c *listCmd) Immediate() bool { return !c.isRestic() }

// Viewer implements [cli.Viewable].
func (c *listCmd) Viewer(w io.Writer) cli.Viewer {
	return c.Show(w, table.Columns{
		"archive":  {"volume", "id", "stored_bytes", "consistency", "verified", "damaged"},
		"snapshot": {"volume", "id", "made", "host"},
	})
}

// Run prints the manifests. It reads no archive.
func (c *listCmd) Run(ctx context.Context, env *cli.Env) error {
	if err := checkVolumes(c.Volumes); err != nil {
		return err
	}
	e, err := c.engine(env, c.repositoryFlags, identityFlags{}, stagingFlags{}, scriptFlags{})
	if err != nil {
		return err
	}
	found, err := e.archives(ctx, c.Volumes, true)
	if err != nil {
		return err
	}
	for _, v := range sortedKeys(found) {
		for _, a := range found[v] {
			if err := env.Stdout.Record(record.Info, e.record(v, a)); err != nil {
				return err
			}
		}
	}
	var none []error
	for _, v := range c.Volumes {
		if len(found[v]) == 0 {
			none = append(none, noBackup(v, e.where()))
		}
	}
	return errors.Join(none...)
}

func checkVolumes(names []string) error {
	for _, v := range names {
		if err := repository.CheckVolume(v); err != nil {
			return err
		}
	}
	return nil
}

// noBackup returns the error for a volume without a backup.
func noBackup(volume, where string) error {
	return sysexits.New(sysexits.Failed, "no_backups", fmt.Errorf("%s: no backup in %s", volume, where)).
		WithHint("volbackup list shows all backups; volbackup verify shows which are damaged")
}

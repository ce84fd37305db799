package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"observability-hub/lib/cli"
	"observability-hub/lib/record"
	"observability-hub/lib/statedir"
	"observability-hub/lib/sysexits"
	"observability-hub/volbackup/internal/repository"
)

type pruneCmd struct {
	repositoryFlags
	repository.Retention
	Retired time.Duration `placeholder:"D"`
	DryRun  bool
	Volumes []string `arg:"" optional:"" name:"volume" help:"Only these volumes."`
}

func (c *pruneCmd) Validate() error {
	if c.Retired < 0 {
		return fmt.Errorf("--retired must not be negative, got %v", c.Retired)
	}
	return c.Retention.Validate()
}

// pruning is one run of the command.
type pruning struct {
	*pruneCmd
	*repository.Repository
	env       *cli.Env
	inventory *repository.Inventory
}

// Run removes the expired archives of each volume whose newest archive is good. With
// --retired it removes all archives of volumes that no longer exist.
func (c *pruneCmd) Run(ctx context.Context, env *cli.Env) error {
	if err := checkVolumes(c.Volumes); err != nil {
		return err
	}
	r, err := c.open(true)
	if err != nil {
		return err
	}
	if err := repair(ctx, env, r, r.ClaimExisting); err != nil {
		return err
	}
	defer r.Release()
	inventory, err := repository.ReadInventory(r.Root)
	if err != nil && c.Retired > 0 {
		return err
	}
	p := &pruning{c, r, env, inventory}
	volumes := c.Volumes
	if len(volumes) == 0 {
		if volumes, err = r.Volumes(); err != nil {
			return err
		}
	}
	var failed []error
	for _, v := range volumes {
		if err := p.prune(ctx, v); err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			failed = append(failed, err)
		}
	}
	return partly(failed, len(volumes))
}

func (p *pruning) prune(ctx context.Context, volume string) error {
	all, err := p.Archives(volume)
	if err != nil {
		return err
	}
	if len(p.pruneCmd.Volumes) > 0 && len(all) == 0 {
		return noBackup(volume, p.Root)
	}
	if p.Retired > 0 {
		return p.retire(volume, all)
	}
	now := time.Now()
	expired := p.Expired(all, now)
	if len(expired) == 0 {
		return nil
	}
	if last := repository.Newest(all, now); last != nil {
		if err := p.Check(ctx, last); err != nil {
			if errors.Is(err, fs.ErrPermission) {
				return statedir.Unreadable(err)
			}
			if ctx.Err() == nil {
				last.Damaged = err.Error()
				err = errors.Join(repository.DamagedError(volume, last.ID, err), p.Update(last))
			}
			return err
		}
	}
	return p.remove(expired)
}

// retire removes all archives of a volume that has not existed for long enough. It
// keeps an archive whose manifest cannot be read, for an administrator to examine.
func (p *pruning) retire(volume string, all []repository.Archive) error {
	var manifests []*repository.Manifest
	var last time.Time
	for _, a := range all {
		if a.Manifest != nil {
			manifests = append(manifests, a.Manifest)
			if a.Time.After(last) {
				last = a.Time
			}
		}
	}
	if p.inventory.GoneFor(volume, last, time.Now()) < p.Retired {
		return nil
	}
	if err := p.remove(manifests); err != nil || p.DryRun || len(manifests) < len(all) {
		return err
	}
	p.inventory.Miss(volume, time.Time{})
	return errors.Join(p.RemoveVolume(volume), p.inventory.Write(p.Root))
}

// remove removes archives and prints a record for each.
func (p *pruning) remove(manifests []*repository.Manifest) error {
	for _, m := range manifests {
		if !p.DryRun {
			if err := p.Repository.Remove(m); err != nil {
				return err
			}
		}
		l := record.New(time.Now(), record.Info, "archive_removed", p.env.Service)
		l.String("volume", m.Volume)
		l.String("id", m.ID)
		l.String("made", m.Time.Format(record.TimeFormat))
		l.Int("stored_bytes", m.StoredBytes)
		l.Bool("dry_run", p.DryRun)
		if err := p.env.Stdout.Record(record.Info, l.End()); err != nil {
			return err
		}
	}
	return nil
}

// partly returns the error of a command for which some items failed. If all items
// failed with the same exit status, such as that of a full disk, the command exits
// with it.
func partly(failed []error, items int) error {
	if len(failed) == 0 {
		return nil
	}
	alike := len(failed) == items
	for _, err := range failed {
		alike = alike && sysexits.Code(err) == sysexits.Code(failed[0])
	}
	if !alike {
		partial := sysexits.New(sysexits.Partial, "partly_failed", fmt.Errorf("%d of %d volumes failed; the others succeeded", len(failed), items))
		failed = append([]error{partial}, failed...)
	}
	return errors.Join(failed...)
}

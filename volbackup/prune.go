package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"observability-hub/lib/cli"
	"observability-hub/lib/record"
	"observability-hub/lib/sysexits"
)

type pruneCmd struct {
	repositoryFlags
	retention
	DryRun  bool
	Volumes []string `arg:"" optional:"" name:"volume" help:"Only these volumes."`
}

// Run removes what is expired, of each volume whose newest archive proves good.
func (c *pruneCmd) Run(ctx context.Context, env *cli.Env) error {
	r, err := c.open()
	if err != nil {
		return err
	}
	if err := r.claimExisting(ctx); err != nil {
		return err
	}
	defer r.release()
	if err := r.mend(); err != nil {
		env.Diag.Warn("mark_failed", err.Error())
	}
	volumes, err := r.chosen(c.Volumes)
	if err != nil {
		return err
	}
	var failed []error
	for _, v := range volumes {
		if err := c.prune(ctx, env, r, v, len(c.Volumes) > 0); err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			failed = append(failed, err)
		}
	}
	return partly(failed, len(volumes))
}

func (c *pruneCmd) prune(ctx context.Context, env *cli.Env, r *repository, volume string, named bool) error {
	all, err := r.archives(volume)
	if err != nil {
		return err
	}
	if named && len(all) == 0 {
		return r.none(volume)
	}
	expired := c.expired(all, time.Now())
	if len(expired) == 0 {
		return nil
	}
	if last := newest(all, time.Now()); last != nil {
		if err := r.check(ctx, last); err != nil {
			if ctx.Err() == nil {
				last.Damaged = err.Error()
				err = errors.Join(damaged(volume, last.ID, err), r.update(last))
			}
			return err
		}
	}
	for _, m := range expired {
		if !c.DryRun {
			if err := r.remove(m); err != nil {
				return err
			}
		}
		l := record.New(time.Now(), record.Info, "archive_removed", env.Service)
		l.String("volume", volume)
		l.String("id", m.ID)
		l.String("made", m.Time.Format(record.TimeFormat))
		l.Int("stored_bytes", m.StoredBytes)
		l.Bool("dry_run", c.DryRun)
		if err := env.Stdout.Record(record.Info, l.End()); err != nil {
			return err
		}
	}
	return nil
}

// goneExt marks the manifest of an archive that is being removed.
const goneExt = ".gone"

// remove takes an archive out of the repository: first its manifest gets a
// temporary name, by which the next run knows to finish the rest.
func (r *repository) remove(m *manifest) error {
	dir := r.folder(m.Volume)
	gone := filepath.Join(dir, tempPrefix+m.ID+manifestExt+goneExt)
	if err := os.Rename(filepath.Join(dir, m.ID+manifestExt), gone); err != nil {
		return unwritable(err)
	}
	if err := syncFolder(dir); err != nil {
		return unwritable(err)
	}
	if err := finishRemoval(dir, m.ID, gone); err != nil {
		return unwritable(err)
	}
	return nil
}

// finishRemoval removes the archive whose manifest has the name gone.
func finishRemoval(dir, id, gone string) error {
	for _, name := range []string{id + archiveExt, id + archiveExt + ageExt} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if err := os.Remove(gone); err != nil {
		return err
	}
	return syncFolder(dir)
}

// removing returns the id of the archive that a temporary name says to remove.
func removing(temp string) (id string, ok bool) {
	return strings.CutSuffix(temp, manifestExt+goneExt)
}

// partly returns the error of a command of which some items failed. If all
// failed for one reason, such as a full disk, that decides the exit status.
func partly(failed []error, items int) error {
	if len(failed) == 0 {
		return nil
	}
	alike := len(failed) == items
	for _, err := range failed {
		alike = alike && sysexits.Code(err) == sysexits.Code(failed[0])
	}
	if !alike {
		partial := sysexits.New(sysexits.Partial, "partly_failed", fmt.Errorf("%d of %d volumes failed; the others are safe", len(failed), items))
		failed = append([]error{partial}, failed...)
	}
	return errors.Join(failed...)
}

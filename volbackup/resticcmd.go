package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"observability-hub/lib/cli"
	"observability-hub/lib/record"
	"observability-hub/lib/sysexits"
)

// What the commands do with --engine restic.

func (c *runCmd) runRestic(ctx context.Context, env *cli.Env, names []string) error {
	r, err := newRestic()
	if err != nil {
		return err
	}
	all, err := c.list(ctx)
	if err != nil {
		return err
	}
	// Locks whose owner is dead; restic leaves those of the living alone.
	if err := c.within(ctx, func(ctx context.Context) error {
		_, err := r.call(ctx, "unlock")
		return err
	}); err != nil {
		return err
	}
	volumes, begun := pick(all, names), time.Now()
	outcomes := make([]outcome, len(volumes))
	var failed []error
	fail := func(i int, err error) {
		outcomes[i].err = err
		failed = append(failed, fmt.Errorf("%s: %w", volumes[i].Volume, err))
	}
	for i, v := range volumes {
		o := &outcomes[i]
		o.started = time.Now()
		o.m = &manifest{Consistency: consistent}
		err := c.within(ctx, func(ctx context.Context) (err error) {
			o.m.ID, o.m.Bytes, o.m.StoredBytes, err = r.backUp(ctx, c.ManageVolume, v.Volume, &said{Diag: env.Diag})
			return err
		})
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			fail(i, err)
		}
	}
	if len(failed) < len(volumes) {
		checked := c.within(ctx, func(ctx context.Context) error { return r.check(ctx, false) })
		for i, v := range volumes {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			o := &outcomes[i]
			if o.err != nil {
				continue
			}
			if checked != nil {
				fail(i, checked)
			} else if err := c.within(ctx, func(ctx context.Context) (err error) {
				o.pruned, err = r.forget(ctx, v.Volume, c.retention)
				return err
			}); err != nil {
				fail(i, err)
			}
		}
	}
	pruned := 0
	for i, v := range volumes {
		pruned += outcomes[i].pruned
		outcomes[i].report(env, v)
	}
	if pruned > 0 {
		if err := c.within(ctx, func(ctx context.Context) error {
			_, err := r.call(ctx, "prune")
			return err
		}); err != nil {
			failed = append(failed, err)
		}
	}
	c.report(env, begun, len(volumes), 0, len(failed), pruned)
	return partly(failed, len(volumes))
}

// within gives a step the time of --timeout: restic tries for a quarter of an
// hour to reach a repository that is gone.
func (c *runCmd) within(ctx context.Context, step func(context.Context) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, c.Timeout, sysexits.New(sysexits.Unavailable, "restic_failed", fmt.Errorf("not done within %v", c.Timeout)).
		WithHint("see whether the repository can be reached: restic snapshots"))
	defer cancel()
	return step(ctx)
}

func (c *listCmd) listRestic(ctx context.Context, env *cli.Env) error {
	r, err := newRestic()
	if err != nil {
		return err
	}
	all, err := r.snapshots(ctx, c.Volumes)
	if err != nil {
		return err
	}
	now := time.Now()
	slices.SortStableFunc(all, func(a, b snapshot) int { return strings.Compare(a.volume(), b.volume()) })
	for _, s := range all {
		l := record.New(now, record.Info, "snapshot", env.Service)
		l.String("volume", s.volume())
		l.String("id", s.ID)
		l.String("made", s.Time.UTC().Format(record.TimeFormat))
		l.String("host", s.Hostname)
		if err := env.Stdout.Record(record.Info, l.End()); err != nil {
			return err
		}
	}
	return nil
}

func (c *statusCmd) statusRestic(ctx context.Context, env *cli.Env) error {
	r, err := newRestic()
	if err != nil {
		return err
	}
	all, err := r.snapshots(ctx, c.Volumes)
	if err != nil {
		return err
	}
	volumes := slices.Clone(c.Volumes)
	found := map[string][]archive{}
	for _, s := range all {
		v := s.volume()
		if s.Hostname != r.host {
			continue
		}
		if !slices.Contains(volumes, v) {
			volumes = append(volumes, v)
		}
		found[v] = append(found[v], archive{id: s.ID, manifest: &manifest{ID: s.ID, Time: s.Time, Verified: s.Time}})
	}
	slices.Sort(volumes)
	return c.report(env, volumes, "the restic repository", func(v string) ([]archive, error) { return found[v], nil })
}

func (c *verifyCmd) verifyRestic(ctx context.Context, env *cli.Env) error {
	r, err := newRestic()
	if err != nil {
		return err
	}
	wrong := r.check(ctx, c.Deep)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	level := record.Info
	if wrong != nil {
		level = record.Error
	}
	l := record.New(time.Now(), level, "repository_verified", env.Service)
	l.Bool("ok", wrong == nil)
	l.Bool("deep", c.Deep)
	if wrong != nil {
		l.String("error", wrong.Error())
	}
	return errors.Join(env.Stdout.Record(level, l.End()), wrong)
}

// withSnapshot calls do with the tar stream of a snapshot, and says afterwards
// whether the stream was good.
func (f stagingFlags) withSnapshot(ctx context.Context, volume, id string, do func(snapshot, io.Reader) error) error {
	r, err := newRestic()
	if err != nil {
		return err
	}
	s, err := r.find(ctx, volume, id)
	if err != nil {
		return err
	}
	staging := f.Staging
	if staging == "" {
		staging = os.TempDir()
	}
	dir, remove, err := scratch(staging)
	if err != nil {
		return err
	}
	defer remove()
	p, err := r.stream(ctx, s, dir)
	if err != nil {
		return err
	}
	in, err := p.open(ctx, "")
	if err != nil {
		return err
	}
	done := do(s, in)
	p.out.Close()
	if _, err := p.finish(); err != nil && done == nil {
		return err
	}
	return done
}

package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"observability-hub/lib/cli"
	"observability-hub/lib/record"
	"observability-hub/lib/sysexits"
)

type statusCmd struct {
	repositoryFlags
	engineFlags
	MaxAge  time.Duration `placeholder:"D"`
	Volumes []string      `arg:"" optional:"" name:"volume" help:"Only these volumes."`
}

// Validate is kong's check after parsing.
func (c *statusCmd) Validate() error {
	if c.MaxAge < 0 {
		return fmt.Errorf("--max-age %v: less than 0", c.MaxAge)
	}
	return nil
}

// Immediate is cli's question whether a signal may end the run anywhere.
func (c *statusCmd) Immediate() bool { return !c.isRestic() }

// Run says how old the newest good backup of each volume is. It reads manifests
// alone and takes no lock.
func (c *statusCmd) Run(ctx context.Context, env *cli.Env) error {
	if c.isRestic() {
		return cli.Interruptible(ctx, func(ctx context.Context) error { return c.statusRestic(ctx, env) })
	}
	r, err := c.open()
	if err != nil {
		return err
	}
	volumes, err := r.chosen(c.Volumes)
	if err != nil {
		return err
	}
	return c.report(env, volumes, r.dir, r.archives)
}

// report prints a record for each volume and fails if one is too old.
func (c *statusCmd) report(env *cli.Env, volumes []string, where string, archives func(string) ([]archive, error)) error {
	now := time.Now()
	var stale []string
	for _, v := range volumes {
		all, err := archives(v)
		if err != nil {
			return err
		}
		old, line := c.status(v, all, now, env.Service)
		if old {
			stale = append(stale, v)
		}
		level := record.Info
		if old {
			level = record.Warn
		}
		if err := env.Stdout.Record(level, line); err != nil {
			return err
		}
	}
	switch {
	case len(volumes) == 0:
		return missing(errors.New(where + ": no backup of any volume"))
	case len(stale) > 0:
		return sysexits.New(sysexits.Failed, "backup_stale", fmt.Errorf("no verified backup that is new enough: %s", strings.Join(stale, ", "))).
			WithHint("journalctl -u volume-backup says what went wrong")
	}
	return nil
}

// status returns whether the newest verified archive is too old or missing, and the record.
func (c *statusCmd) status(v string, all []archive, now time.Time, service string) (stale bool, line []byte) {
	var good []archive
	bad := 0
	for _, a := range all {
		if a.manifest == nil || a.Damaged != "" {
			bad++
		} else if !a.Verified.IsZero() {
			good = append(good, a)
		}
	}
	last := newest(good, now)
	stale = last == nil || c.MaxAge > 0 && now.Sub(last.Time) > c.MaxAge
	level := record.Info
	if stale {
		level = record.Warn
	}
	l := record.New(now, level, "backup_status", service)
	l.String("volume", v)
	l.Int("archives", int64(len(all)))
	l.Int("damaged", int64(bad))
	if last == nil {
		l.Null("newest")
		l.Null("age_s")
	} else {
		l.String("newest", last.ID)
		l.Float("age_s", now.Sub(last.Time).Seconds())
	}
	l.Bool("stale", stale)
	return stale, l.End()
}

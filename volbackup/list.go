package main

import (
	"context"
	"errors"
	"time"

	"observability-hub/lib/cli"
	"observability-hub/lib/record"
)

type listCmd struct {
	repositoryFlags
	engineFlags
	Volumes []string `arg:"" optional:"" name:"volume" help:"Only these volumes."`
}

// Immediate is cli's question whether a signal may end the run anywhere.
func (c *listCmd) Immediate() bool { return !c.isRestic() }

// Run prints what the manifests say; it reads no archive.
func (c *listCmd) Run(ctx context.Context, env *cli.Env) error {
	if c.isRestic() {
		return cli.Interruptible(ctx, func(ctx context.Context) error { return c.listRestic(ctx, env) })
	}
	r, err := c.open()
	if err != nil {
		return err
	}
	volumes, err := r.chosen(c.Volumes)
	if err != nil {
		return err
	}
	now := time.Now()
	var none []error
	for _, v := range volumes {
		all, err := r.archives(v)
		if err != nil {
			return err
		}
		if len(all) == 0 && len(c.Volumes) > 0 {
			none = append(none, r.none(v))
		}
		for _, a := range all {
			l := record.New(now, record.Info, "archive", env.Service)
			if a.err != nil {
				l.String("volume", v)
				l.String("id", a.id)
				l.String("damaged", a.err.Error())
			} else {
				a.fields(l)
			}
			if err := env.Stdout.Record(record.Info, l.End()); err != nil {
				return err
			}
		}
	}
	return errors.Join(none...)
}

// chosen returns the volumes that were named or, if none was, all.
func (r *repository) chosen(named []string) ([]string, error) {
	for _, v := range named {
		if err := checkVolume(v); err != nil {
			return nil, err
		}
	}
	if len(named) > 0 {
		return named, nil
	}
	return r.volumes()
}

// fields adds what a manifest says to a record.
func (m *manifest) fields(l *record.Line) {
	l.String("volume", m.Volume)
	l.String("id", m.ID)
	l.String("file", m.File)
	l.String("made", m.Time.Format(record.TimeFormat))
	l.Int("bytes", m.Bytes)
	l.Int("stored_bytes", m.StoredBytes)
	l.Int("entries", m.Entries)
	l.String("sha256", m.SHA256)
	l.String("content_sha256", m.Content)
	l.String("consistency", m.Consistency)
	l.Bool("encrypted", len(m.Recipients) > 0)
	if m.LinkOf == "" {
		l.Null("link_of")
	} else {
		l.String("link_of", m.LinkOf)
	}
	if m.Verified.IsZero() {
		l.Null("verified")
	} else {
		l.String("verified", m.Verified.Format(record.TimeFormat))
	}
	if m.Damaged == "" {
		l.Null("damaged")
	} else {
		l.String("damaged", m.Damaged)
	}
}

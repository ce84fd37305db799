package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"observability-hub/lib/cli"
	"observability-hub/lib/record"
	"observability-hub/volbackup/internal/repository"
)

type putCmd struct {
	repositoryFlags
	storeFlags
	Made    moment   `placeholder:"TIME"`
	Volume  string   `arg:"" help:"Name of the volume."`
	Command []string `arg:"" optional:"" passthrough:"" help:"Program that writes the stream, and its arguments, after --."`
}

// Run stores one stream.
func (c *putCmd) Run(ctx context.Context, env *cli.Env) error {
	if err := repository.CheckVolume(c.Volume); err != nil {
		return err
	}
	r, err := c.open(false)
	if err != nil {
		return err
	}
	s, err := c.store(ctx, env, r)
	if err != nil {
		return err
	}
	defer s.Release()
	var src source = standard{env.Stdin}
	if len(c.Command) > 0 && c.Command[0] == "--" {
		c.Command = c.Command[1:]
	}
	if len(c.Command) > 0 {
		src = &producer{args: c.Command, holds: true, said: said{Diag: env.Diag}}
	}
	m := &repository.Manifest{Volume: c.Volume, Time: c.Made.Time}
	unchanged, err := s.put(ctx, m, src)
	if err != nil {
		return err
	}
	return env.Stdout.Record(record.Info, stored(m, env.Service, unchanged))
}

// store locks and repairs the repository, and returns a store for it.
func (f storeFlags) store(ctx context.Context, env *cli.Env, r *repository.Repository) (*store, error) {
	s := &store{Repository: r, staging: cmp.Or(f.Staging, r.Root), always: f.Staging != ""}
	var err error
	if s.recipients, s.names, err = f.recipients(); err != nil {
		return nil, err
	}
	if err := repair(ctx, env, r, r.Claim); err != nil {
		return nil, err
	}
	if _, err := os.Stat(s.staging); err != nil {
		return nil, errors.Join(stagingError(err), r.Release())
	}
	return s, nil
}

// stored returns the record of an archive that put has stored.
func stored(m *repository.Manifest, service string, unchanged bool) []byte {
	l := record.New(m.Finished, record.Info, "stored", service)
	fields(m, l)
	l.Bool("unchanged", unchanged)
	return l.End()
}

// moment is a time on the command line: a day, or a time with its zone.
type moment struct{ time.Time }

// UnmarshalText parses a day or a time in RFC 3339. It rejects times in the future.
func (m *moment) UnmarshalText(text []byte) error {
	for _, layout := range []string{time.RFC3339, time.DateOnly} {
		if t, err := time.Parse(layout, string(text)); err == nil {
			if t.After(time.Now().Add(repository.ClockError)) {
				return fmt.Errorf("%s is in the future", text)
			}
			m.Time = t
			return nil
		}
	}
	return fmt.Errorf("%q is not a time such as 2024-05-31 or 2024-05-31T01:00:00Z; date -u -r FILE +%%FT%%TZ prints the time of a file", text)
}

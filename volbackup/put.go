package main

import (
	"context"
	"os"

	"observability-hub/lib/cli"
	"observability-hub/lib/record"
)

type putCmd struct {
	repositoryFlags
	storeFlags
	Volume  string   `arg:"" help:"Name of the volume."`
	Command []string `arg:"" optional:"" passthrough:"" help:"Program that makes the stream, and its arguments, after --."`
}

// Run stores one stream.
func (c *putCmd) Run(ctx context.Context, env *cli.Env) error {
	if err := checkVolume(c.Volume); err != nil {
		return err
	}
	s, err := c.store(ctx, env, c.repositoryFlags)
	if err != nil {
		return err
	}
	defer s.release()
	var src source = standard{env.Stdin}
	if len(c.Command) > 0 && c.Command[0] == "--" {
		c.Command = c.Command[1:]
	}
	if len(c.Command) > 0 {
		src = &producer{args: c.Command, holds: true, said: said{Diag: env.Diag}}
	}
	m := &manifest{Volume: c.Volume}
	unchanged, err := s.put(ctx, m, src)
	if err != nil {
		return err
	}
	return env.Stdout.Record(record.Info, m.record(env.Service, unchanged))
}

// store opens the repository for writing.
func (f storeFlags) store(ctx context.Context, env *cli.Env, repo repositoryFlags) (*store, error) {
	r, err := repo.open()
	if err != nil {
		return nil, err
	}
	s := &store{repository: r, staging: f.Staging, always: f.Staging != ""}
	if s.staging == "" {
		s.staging = r.dir
	}
	if s.recipients, s.names, err = f.recipients(); err != nil {
		return nil, err
	}
	if err := r.claim(ctx); err != nil {
		return nil, err
	}
	if err := r.mend(); err != nil { // of one volume, whose own backup will fail for that
		env.Diag.Warn("mark_failed", err.Error())
	}
	if _, err := os.Stat(s.staging); err != nil {
		r.release()
		return nil, stagingError(err)
	}
	return s, nil
}

// record is the record of an archive.
func (m *manifest) record(service string, unchanged bool) []byte {
	l := record.New(m.Finished, record.Info, "stored", service)
	m.fields(l)
	l.Bool("unchanged", unchanged)
	return l.End()
}

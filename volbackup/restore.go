package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"observability-hub/lib/cli"
	"observability-hub/lib/record"
)

type restoreCmd struct {
	repositoryFlags
	identityFlags
	scriptFlags
	Stop    bool
	Archive string `arg:"" name:"volume[@id]" help:"The volume; without an id, its newest archive."`
}

// Run is cat | import: import unpacks beside the old volume and swaps when all
// is there, and it is ended before it can see the end of a stream that failed.
func (c *restoreCmd) Run(ctx context.Context, env *cli.Env) error {
	volume, id, err := parseArchive(c.Archive)
	if err != nil {
		return err
	}
	return cli.Interruptible(ctx, func(ctx context.Context) error {
		r, err := c.open()
		if err != nil {
			return err
		}
		m, err := r.find(volume, id)
		if err != nil {
			return err
		}
		identities, err := c.identitiesFor(m)
		if err != nil {
			return err
		}
		f, err := r.checked(ctx, m)
		if err != nil {
			return damaged(volume, m.ID, err)
		}
		defer f.Close()
		args := []string{c.ManageVolume, "import"}
		if c.Stop {
			args = append(args, "--stop")
		}
		p := &producer{args: append(args, volume), said: said{diag: env.Diag}}
		ctx, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		in, out, err := os.Pipe()
		if err != nil {
			return err
		}
		// Its own record is not ours: /dev/null.
		err = p.start(ctx, in, nil)
		in.Close() // the program has its own
		if err != nil {
			out.Close()
			return err
		}
		poured := pour(ctx, f, m, identities, out)
		if poured != nil {
			cancel(poured)
			ended := p.wait()
			out.Close()
			if errors.Is(poured, os.ErrClosed) || errors.Is(poured, errBrokenPipe) {
				return p.failed(ended)
			}
			return damaged(volume, m.ID, poured)
		}
		if err := out.Close(); err != nil {
			return fmt.Errorf("write to %s: %w", c.ManageVolume, err)
		}
		if err := p.wait(); err != nil {
			return p.failed(err)
		}
		l := record.New(time.Now(), record.Info, "restored", env.Service)
		l.String("volume", volume)
		l.String("id", m.ID)
		l.Int("bytes", m.Bytes)
		l.Int("entries", m.Entries)
		return env.Stdout.Record(record.Info, l.End())
	})
}

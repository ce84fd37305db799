package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"observability-hub/lib/cli"
	"observability-hub/lib/record"
)

type restoreCmd struct {
	repositoryFlags
	identityFlags
	scriptFlags
	engineFlags
	stagingFlags
	Stop    bool
	Archive string `arg:"" name:"volume[@id]" help:"The volume; without an id, its newest archive."`
}

// Run is cat | import, but import never sees the end of a stream that failed:
// it unpacks beside the old volume and swaps when all is there.
func (c *restoreCmd) Run(ctx context.Context, env *cli.Env) error {
	volume, id, err := parseArchive(c.Archive)
	if err != nil {
		return err
	}
	if c.isRestic() {
		return c.withSnapshot(ctx, volume, id, func(s snapshot, in io.Reader) error {
			m := &manifest{Volume: volume, ID: s.ID}
			return c.restore(ctx, env, m, func(ctx context.Context, w io.Writer) error {
				var tar tarCheck
				_, err := io.Copy(io.MultiWriter(w, &tar), interruptible{ctx, in})
				m.Bytes, m.Entries = tar.Bytes, tar.Entries
				return errors.Join(err, tar.Close())
			})
		})
	}
	f, m, identities, err := c.take(ctx, c.identityFlags, volume, id)
	if err != nil {
		return err
	}
	defer f.Close()
	return c.restore(ctx, env, m, func(ctx context.Context, w io.Writer) error {
		return pour(ctx, f, m, identities, w)
	})
}

// restore gives what pour writes to manage_volume.sh import.
func (c *restoreCmd) restore(ctx context.Context, env *cli.Env, m *manifest, pour func(context.Context, io.Writer) error) error {
	args := []string{c.ManageVolume, "import"}
	if c.Stop {
		args = append(args, "--stop")
	}
	p := &producer{args: append(args, m.Volume), said: said{Diag: env.Diag}}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	in, out, err := os.Pipe()
	if err != nil {
		return err
	}
	widen(out)
	err = p.start(ctx, in, nil) // its record is not ours
	in.Close()                  // it has its own
	if err != nil {
		out.Close()
		return err
	}
	if poured := pour(ctx, out); poured != nil {
		cancel(poured)
		ended := p.wait()
		out.Close()
		if errors.Is(poured, syscall.EPIPE) && ended != nil { // it had enough first
			return p.failed(ended)
		}
		if context.Cause(ctx) != poured {
			return context.Cause(ctx)
		}
		return damaged(m.Volume, m.ID, poured)
	}
	if err := out.Close(); err != nil {
		return fmt.Errorf("write to %s: %w", c.ManageVolume, err)
	}
	if err := p.wait(); err != nil {
		return p.failed(err)
	}
	p.said.passOn()
	l := record.New(time.Now(), record.Info, "restored", env.Service)
	l.String("volume", m.Volume)
	l.String("id", m.ID)
	l.Int("bytes", m.Bytes)
	l.Int("entries", m.Entries)
	return env.Stdout.Record(record.Info, l.End())
}

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
	"observability-hub/lib/sysexits"
	"observability-hub/volbackup/internal/repository"
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

// Run does the same as cat | import, except that import never sees the end of a
// stream that failed. import unpacks beside the old content, and exchanges the two
// only after the whole stream.
func (c *restoreCmd) Run(ctx context.Context, env *cli.Env) error {
	volume, id, err := repository.ParseArchive(c.Archive)
	if err != nil {
		return err
	}
	e, err := c.engine(env, c.repositoryFlags, c.identityFlags, c.stagingFlags, c.scriptFlags)
	if err != nil {
		return err
	}
	counted, read := repository.Counted(ctx)
	end := progress(env, "check "+c.Archive, 0, read.Load)
	m, pour, done, err := e.find(counted, volume, id)
	end()
	if err != nil {
		return err
	}
	defer done()
	return c.restore(ctx, env, m, pour)
}

// restore pipes the stream that pour writes to manage_volume.sh import.
func (c *restoreCmd) restore(ctx context.Context, env *cli.Env, m *repository.Manifest, pour func(context.Context, io.Writer) (string, error)) error {
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
	err = p.start(ctx, in, nil) // discard the record that import prints
	in.Close()                  // the program has its own copy
	if err != nil {
		out.Close()
		return err
	}
	counted, read := repository.Counted(ctx)
	end := progress(env, "restore "+m.Volume, m.StoredBytes, read.Load)
	outside, poured := pour(counted, out)
	end()
	if poured != nil {
		cancel(poured)
		ended := p.wait()
		out.Close()
		if errors.Is(poured, syscall.EPIPE) && ended != nil { // import failed first
			return c.failed(p, ended, m, outside)
		}
		if context.Cause(ctx) != poured {
			return context.Cause(ctx)
		}
		return repository.DamagedError(m.Volume, m.ID, poured)
	}
	if err := out.Close(); err != nil {
		return fmt.Errorf("write to %s: %w", c.ManageVolume, err)
	}
	if err := p.wait(); err != nil {
		return c.failed(p, err, m, outside)
	}
	p.said.passOn()
	l := record.New(time.Now(), record.Info, "restored", env.Service)
	l.String("volume", m.Volume)
	l.String("id", m.ID)
	l.Int("bytes", m.Bytes)
	l.Int("entries", m.Entries)
	return env.Stdout.Record(record.Info, l.End())
}

// failed returns the error of an import. Archives of earlier versions can contain
// names that tar does not restore unchanged.
func (c *restoreCmd) failed(p *producer, ended error, m *repository.Manifest, outside string) error {
	err := p.failed(ended)
	if outside == "" || sysexits.Code(err) != sysexits.DataErr {
		return err
	}
	return sysexits.New(sysexits.DataErr, "command_failed", fmt.Errorf("%s@%s has names that lead out of the volume, such as %.200q: %w", m.Volume, m.ID, outside, err)).
		WithHint(fmt.Sprintf("unpack it elsewhere, pack that directory, and import the result: volbackup cat %s@%s | tar -x -C D && tar -C D/PATH -c . | manage_volume.sh import %s", m.Volume, m.ID, m.Volume))
}

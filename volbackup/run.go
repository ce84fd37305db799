package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"observability-hub/lib/cli"
	"observability-hub/lib/record"
	"observability-hub/lib/sysexits"
)

type runCmd struct {
	repositoryFlags
	storeFlags
	scriptFlags
	engineFlags
	retention
	Timeout time.Duration `default:"6h" placeholder:"D"`
	Reread  bool
	Volumes []string `arg:"" optional:"" name:"volume" help:"Only these volumes; with -, those on stdin, one a line."`
}

func (c *runCmd) Validate() error {
	if c.Timeout <= 0 {
		return fmt.Errorf("--timeout %v: not more than 0", c.Timeout)
	}
	return c.retention.Validate()
}

// outcome is how the backup of one volume ended.
type outcome struct {
	m         *manifest
	unchanged bool
	pruned    int
	started   time.Time
	err       error
}

// Run backs up one volume after the other. What happens to one is nothing to
// the next.
func (c *runCmd) Run(ctx context.Context, env *cli.Env) error {
	names, err := c.names(env.Stdin)
	if err != nil {
		return err
	}
	if c.isRestic() {
		return c.runRestic(ctx, env, names)
	}
	s, err := c.store(ctx, env, c.repositoryFlags)
	if err != nil {
		return err
	}
	defer s.release()
	s.reread = c.Reread
	all, err := c.list(ctx)
	if err != nil {
		return err
	}
	volumes := pick(all, names)
	begun := time.Now()
	var failed []error
	unchanged, pruned := 0, 0
	for _, v := range volumes {
		end := s.progress(env, v.Volume)
		o := c.backUp(ctx, env, s, v)
		end()
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if o.err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", v.Volume, o.err))
		}
		if o.unchanged {
			unchanged++
		}
		pruned += o.pruned
		o.report(env, v)
	}
	c.report(env, begun, len(volumes), unchanged, len(failed), pruned)
	return partly(failed, len(volumes))
}

// names returns the volumes that were named.
func (c *runCmd) names(stdin io.Reader) ([]string, error) {
	names := c.Volumes
	if slices.Equal(names, []string{"-"}) {
		names = nil
		lines := bufio.NewScanner(stdin)
		for lines.Scan() {
			if name := strings.TrimSpace(lines.Text()); name != "" {
				names = append(names, name)
			}
		}
		if err := lines.Err(); err != nil {
			return nil, fmt.Errorf("read stdin: %w", err)
		}
		if len(names) == 0 {
			return nil, sysexits.New(sysexits.DataErr, "no_names", errors.New("no volume on stdin")).
				WithHint("manage_volume.sh list | jq -r .volume | volbackup run -")
		}
	}
	for _, name := range names {
		if err := checkVolume(name); err != nil {
			return nil, err
		}
	}
	return names, nil
}

// backUp stores one volume, reads back what was stored, and only then removes
// what is expired.
func (c *runCmd) backUp(ctx context.Context, env *cli.Env, s *store, v volume) (o outcome) {
	o.started = time.Now()
	ctx, cancel := context.WithTimeoutCause(ctx, c.Timeout, fmt.Errorf("not done within %v", c.Timeout))
	defer cancel()
	for again := true; again; again = errors.Is(o.err, errBaseDamaged) {
		o.m = &manifest{Volume: v.Volume, Labels: v.Labels, Driver: v.Driver}
		p := &producer{args: []string{c.ManageVolume, "export", v.Volume}, tar: true, trees: true, holds: v.held(), folder: v.Mountpoint, said: said{Diag: env.Diag}}
		o.unchanged, o.err = s.put(ctx, o.m, p)
	}
	if o.err != nil {
		return o
	}
	if !o.unchanged { // else the file was read before
		if o.err = s.check(ctx, o.m); o.err != nil {
			o.m.Damaged = o.err.Error()
			o.err = errors.Join(damaged(v.Volume, o.m.ID, o.err), s.update(o.m))
			return o
		}
	}
	o.pruned, o.err = s.retire(c.retention, o.m, time.Now())
	return o
}

// grace is how long run leaves alone what it made, also several of one day: the
// state of this morning may be what is wanted this afternoon.
const grace = 24 * time.Hour

// retire removes what is expired of a volume of which made, the newest archive,
// was just verified.
func (s *store) retire(keep retention, made *manifest, now time.Time) (removed int, err error) {
	all, err := s.archives(made.Volume)
	if err != nil {
		return 0, err
	}
	for _, m := range keep.expired(all, now) {
		if m.ID == made.ID || m.Time.After(now.Add(-grace)) {
			continue
		}
		if err := s.remove(m); err != nil {
			return removed, err
		}
		removed++
	}
	return removed, nil
}

// report prints the record. That stdout is full must not keep the next volume
// from its backup; it fails the run at its end.
func (o outcome) report(env *cli.Env, v volume) {
	level := record.Info
	if o.err != nil {
		level = record.Error
	}
	now := time.Now()
	l := record.New(now, level, "backed_up", env.Service)
	outcome := "stored"
	switch {
	case o.err != nil:
		outcome = "failed"
	case o.unchanged:
		outcome = "unchanged"
	}
	l.String("volume", v.Volume)
	l.String("outcome", outcome)
	if o.err != nil {
		l.String("error", o.err.Error())
	} else {
		l.String("id", o.m.ID)
		l.Int("bytes", o.m.Bytes)
		l.Int("stored_bytes", o.m.StoredBytes)
		l.Int("entries", o.m.Entries)
		l.String("consistency", o.m.Consistency)
	}
	l.Int("pruned", int64(o.pruned))
	l.Float("duration_s", now.Sub(o.started).Seconds())
	_ = env.Stdout.Record(level, l.End())
}

func (c *runCmd) report(env *cli.Env, begun time.Time, volumes, unchanged, failed, pruned int) {
	level := record.Info
	if failed > 0 {
		level = record.Error
	}
	now := time.Now()
	l := record.New(now, level, "backup_finished", env.Service)
	l.Int("volumes", int64(volumes))
	l.Int("stored", int64(volumes-unchanged-failed))
	l.Int("unchanged", int64(unchanged))
	l.Int("failed", int64(failed))
	l.Int("pruned", int64(pruned))
	l.Float("duration_s", now.Sub(begun).Seconds())
	_ = env.Stdout.Record(level, l.End())
}

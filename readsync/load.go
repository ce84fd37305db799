package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"observability-hub/lib/cli"
	"observability-hub/lib/diag"
	"observability-hub/lib/record"
	"observability-hub/lib/statedir"
	"observability-hub/lib/sysexits"
)

// loadCmd makes rows of records.
type loadCmd struct {
	peerFlags
	deadLetterFlags
}

func (l *loadCmd) Validate() error {
	return errors.Join(l.peerFlags.Validate(), l.deadLetterFlags.Validate())
}

// Run is what kong calls.
func (l *loadCmd) Run(ctx context.Context, env *cli.Env) error {
	return l.run(ctx, env)
}

// idle is how long an unfinished batch waits for more of a slow stream.
const idle = time.Second

// lockWait is how long the first dead letter waits for another run to end.
const lockWait = 10 * time.Second

// loading is the state of a load.
type loading struct {
	loadCmd
	writing
	dir     *statedir.Dir
	letters *deadLetters
	path    string // of the dead letters
	bad     int64
}

func (l *loadCmd) run(ctx context.Context, env *cli.Env) error {
	defer frugal()()
	t, err := openTarget(ctx, l.Timeout, false)
	if err != nil {
		return err
	}
	defer t.close()
	t.replace = l.replace()
	load := &loading{loadCmd: *l, writing: writing{env: env, target: t}}
	load.aside = func(rejects []*row) error {
		if err := load.open(ctx); err != nil {
			return err
		}
		return load.letters.append(rejects)
	}
	defer load.close()
	in := readStream(ctx, env.Stdin)
	var seen int64 // records, bad ones too
	err = nil
	stopped := false // behind too many rejects
	for more := true; more && err == nil && !stopped; {
		var batch []streamLine
		batch, more = in.batch(ctx)
		seen += int64(len(batch))
		err = load.batch(ctx, batch)
		stopped = load.account.rejected > l.MaxRejects
	}
	if err == nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	filtered := int64(0)
	if in.complete {
		filtered = max(in.n-seen, 0)
	}
	if !stopped {
		err = errors.Join(err, in.verdict(seen, "load", "extract"))
	}
	err = errors.Join(err, load.account.check())
	if load.bad > 0 {
		err = errors.Join(err, sysexits.New(sysexits.DataErr, "bad_input", fmt.Errorf("left out %s of stdin; the others are taken", plural(load.bad, "line"))).
			WithHint("load reads what readsync extract prints"))
	}
	err = errors.Join(err, load.account.verdict(load.path, l.MaxRejects))
	return load.finish(err, filtered, in.complete)
}

func (l *loading) finish(err error, filtered int64, complete bool) error {
	rec := record.New(time.Now(), l.account.level(err), "loaded", l.env.Service)
	l.account.fill(rec)
	rec.Int("filtered", filtered)
	rec.Int("bad", l.bad)
	out := rec.End()
	if complete {
		out = append(out, trailer(l.account.read)...)
	}
	return errors.Join(err, l.env.Stdout.Record(record.Info, out))
}

func (l *loading) close() {
	if l.letters != nil {
		l.letters.close()
	}
	if l.dir != nil {
		l.dir.Close()
	}
}

// batch loads lines, and prints their outcomes after the COMMIT.
func (l *loading) batch(ctx context.Context, batch []streamLine) error {
	if len(batch) == 0 {
		return nil
	}
	rows := make([]*row, 0, len(batch))
	for _, in := range batch {
		r, err := in.row(l.nul())
		if err != nil {
			l.bad++
			l.env.Diag.Warn("bad_record", fmt.Sprintf("stdin line %d: %v; left out", in.number, err), diag.Field{Key: "line", Value: in.number})
			continue
		}
		rows = append(rows, r)
	}
	for len(rows) > 0 {
		n := distinct(rows)
		if err := l.write(rows[:n]); err != nil {
			return err
		}
		if err := l.report(rows[:n]); err != nil {
			return err
		}
		rows = rows[n:]
		if l.account.rejected > l.MaxRejects {
			return nil
		}
	}
	return nil
}

// distinct returns how many of the first rows have different ids.
func distinct(rows []*row) int {
	seen := make(map[string]struct{}, len(rows))
	for i, r := range rows {
		if _, there := seen[r.id]; there {
			return i
		}
		seen[r.id] = struct{}{}
	}
	return len(rows)
}

// report prints the outcome of each row.
func (l *loading) report(rows []*row) error {
	var out []byte
	now := time.Now()
	for _, r := range rows {
		rec := record.New(now, record.Info, "load", l.env.Service)
		rec.String("mongo_id", r.id)
		rec.String("outcome", r.outcome.String())
		if r.outcome == rejected {
			rec.String("reason", r.refused.reason)
		}
		if r.guard != "" {
			rec.String("guard", r.guard)
		}
		out = append(out, rec.End()...)
	}
	_, err := l.env.Stdout.Write(out)
	return err
}

// open opens the dead letters, which nobody else may write meanwhile.
func (l *loading) open(ctx context.Context) (err error) {
	if l.letters != nil {
		return nil
	}
	if l.dir, err = l.lock(ctx, l.env.Service, lockWait); err != nil {
		return err
	}
	l.path = l.deadLetterFlags.path(l.dir)
	l.letters, err = openDeadLetters(l.env, l.path)
	return err
}

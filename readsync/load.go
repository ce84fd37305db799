package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"observability-hub/lib/cli"
	"observability-hub/lib/diag"
	"observability-hub/lib/record"
	"observability-hub/lib/sysexits"
	"observability-hub/readsync/internal/stage"
)

// loadCmd is the command load.
type loadCmd struct {
	peerFlags
	letterFlags
}

func (l *loadCmd) Validate() error {
	return errors.Join(l.peerFlags.Validate(), l.letterFlags.Validate())
}

// streamLimit limits a batch that is read from stdin. If a slow stream does not fill
// a batch within a second, the batch is used as it is.
var streamLimit = stage.Limit{Lines: batchDocuments, Bytes: batchBytes, Pause: time.Second}

// loading is the state of a load.
type loading struct {
	loadCmd
	session
	seen int64 // records, including bad ones
	bad  int64
}

// Run inserts the records on stdin as rows and prints their outcomes.
func (l *loadCmd) Run(ctx context.Context, env *cli.Env) error {
	defer frugal()()
	t, err := openTarget(ctx, l.peerFlags, l.mode())
	if err != nil {
		return err
	}
	load := &loading{loadCmd: *l, session: session{env: env, target: t, letters: &letters{letterFlags: l.letterFlags, env: env}}}
	defer load.close()
	in := stage.Open(ctx, env.Stdin, streamLimit)
	for more := true; more && err == nil && !load.tooMany(); {
		var lines []stage.Line
		lines, more = in.Next(ctx)
		err = load.lines(ctx, lines)
	}
	if err == nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return load.finish(err, in)
}

// tooMany reports whether more than --max-rejects documents were rejected.
func (l *loading) tooMany() bool { return l.account.rejected > l.MaxRejects }

var errEnough = errors.New("too many documents were rejected")

// lines loads the lines of a batch and prints their outcomes after the COMMIT.
func (l *loading) lines(ctx context.Context, lines []stage.Line) error {
	rows := make([]*row, 0, len(lines))
	for _, in := range lines {
		l.seen++
		r, err := recordRow(in, l.nul())
		if err != nil {
			l.bad++
			l.env.Diag.Warn("bad_record", fmt.Sprintf("stdin line %d: %v; skipped", in.Number, err), diag.Field{Key: "line", Value: in.Number})
			continue
		}
		rows = append(rows, r)
	}
	err := l.writeDistinct(ctx, rows, func(from, to int) error {
		if err := l.report(rows[from:to]); err != nil || !l.tooMany() {
			return err
		}
		return errEnough
	})
	if errors.Is(err, errEnough) {
		err = nil // account.verdict reports it
	}
	return err
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
			rec.String("reason", r.refused.Reason)
		}
		if guard := r.from.Guard(); guard != "" {
			rec.String("guard", guard)
		}
		out = append(out, rec.End()...)
	}
	_, err := l.env.Stdout.Write(out)
	return err
}

// finish prints the loaded record and returns err, joined with the errors that the
// outcomes and the stream cause.
func (l *loading) finish(err error, in *stage.Input) error {
	filtered := int64(0)
	if in.Complete {
		filtered = max(in.N-l.seen, 0)
	}
	if !l.tooMany() {
		err = errors.Join(err, in.Verdict(l.seen, "load", "extract"))
	}
	err = errors.Join(err, l.account.check())
	if l.bad > 0 {
		err = errors.Join(err, sysexits.New(sysexits.DataErr, "bad_input", fmt.Errorf("skipped %s of stdin, and read the others", plural(l.bad, "line"))).
			WithHint("load reads the output of readsync extract"))
	}
	err = errors.Join(err, l.account.verdict(l.letters.name(), l.MaxRejects))
	rec := record.New(time.Now(), l.account.level(err), "loaded", l.env.Service)
	l.account.fill(rec)
	rec.Int("filtered", filtered)
	rec.Int("bad", l.bad)
	out := rec.End()
	if in.Complete {
		out = append(out, stage.Trailer(l.account.read)...)
	}
	return errors.Join(err, l.env.Stdout.Record(record.Info, out))
}

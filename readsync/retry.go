package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"observability-hub/lib/cli"
	"observability-hub/lib/diag"
	"observability-hub/lib/record"
	"observability-hub/lib/sysexits"
	"observability-hub/readsync/internal/deadletter"
	"observability-hub/readsync/internal/extjson"
	"observability-hub/readsync/internal/reading"
)

// retryCmd is the command retry.
type retryCmd struct {
	peerFlags
	datesFlag
	StateDir string `placeholder:"DIR"`
	NUL      string `name:"nul" enum:"reject,replace" default:"reject"`
	File     string `arg:"" name:"deadletter" placeholder:"FILE" help:"The dead letter file."`
}

func (r *retryCmd) Validate() error { return r.peerFlags.Validate() }

// retrying is the state of a retry.
type retrying struct {
	retryCmd
	*session
	file *deadletter.Rewriting
	nul  extjson.NULPolicy
	bad  int64
}

// Run loads the letters of the file. At the end it removes the letters whose documents
// are rows now. If a retry is killed before that, the next one finds the rows
// identical.
func (r *retryCmd) Run(ctx context.Context, env *cli.Env) error {
	flags := letterFlags{StateDir: r.StateDir, NUL: r.NUL}
	dir, err := flags.lock(ctx, env.Service, deadletter.Wait) // a run may be writing the file
	if err != nil {
		return err
	}
	defer dir.Close()
	try := &retrying{retryCmd: *r, nul: flags.nul()}
	if try.file, err = deadletter.Rewrite(r.File); err != nil {
		return err
	}
	defer try.file.Close()
	if try.session, err = openSession(ctx, ctx, env, r.peerFlags, writeMode{}); err != nil {
		return err
	}
	defer try.close()
	if err = try.all(ctx); err == nil {
		err = try.file.Commit()
	}
	return try.finish(err)
}

// letterBatch is a group of letters that are loaded together.
type letterBatch struct {
	lines  [][]byte // the lines of the file
	guards []string
	docs   []*document
	rows   []*row
	bytes  int
}

// all loads all letters of the file.
func (r *retrying) all(ctx context.Context) error {
	b, s := r.builder(r.nul), &letterBatch{}
	for ctx.Err() == nil {
		line, err := r.file.Lines.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", r.File, err)
		}
		if len(line) == 0 {
			continue
		}
		if err := s.add(b, line); err != nil {
			r.bad++
			r.env.Diag.Warn("bad_record", fmt.Sprintf("%s line %d: %v; it stays in the file", r.File, r.file.Lines.Number, err), diag.Field{Key: "line", Value: r.file.Lines.Number})
			if err := r.file.Keep(line); err != nil {
				return err
			}
			continue
		}
		if len(s.rows) == batchDocuments || s.bytes >= batchBytes {
			if err := r.load(ctx, s); err != nil {
				return err
			}
			b, s = r.builder(r.nul), &letterBatch{}
		}
	}
	if err := r.load(ctx, s); err != nil {
		return err
	}
	return context.Cause(ctx)
}

// add parses a line as a letter and adds its document and row.
func (s *letterBatch) add(b *reading.Builder, line []byte) error {
	l, err := deadletter.Parse(line)
	if err != nil {
		return err
	}
	raw, err := l.Doc()
	if err != nil {
		return err
	}
	d := &document{}
	r := readRow(b, raw, d)
	s.lines, s.guards, s.docs, s.rows = append(s.lines, line), append(s.guards, l.Guard), append(s.docs, d), append(s.rows, &r)
	s.bytes += len(line)
	return nil
}

// load loads letters and marks their documents. It keeps the letters of documents
// that were rejected or differ.
func (r *retrying) load(ctx context.Context, s *letterBatch) error {
	return r.writeDistinct(ctx, s.rows, func(from, to int) error {
		var ends []ending
		for i := from; i < to; i++ {
			row := s.rows[i]
			if row.outcome == differing || row.outcome == rejected {
				if err := r.file.Keep(s.lines[i]); err != nil {
					return err
				}
				continue
			}
			ends = append(ends, ending{id: row.id, key: s.docs[i].ID, guard: s.guards[i], outcome: row.outcome})
		}
		return r.markEnded(ctx, ends, statusRejected)
	})
}

// finish prints the retried record and returns err, or the error that the outcomes
// cause.
func (r *retrying) finish(err error) error {
	if r.bad > 0 {
		err = errors.Join(err, sysexits.New(sysexits.DataErr, "bad_input", fmt.Errorf("found %s in %s that cannot be read as dead letters; the others were loaded", plural(r.bad, "line"), r.File)).
			WithHint("a dead letter is a line of JSON with the field document or bson, as readsync writes it"))
	}
	if err == nil {
		err = r.account.verdict(r.File, r.account.rejected)
	}
	if err == nil {
		err = r.marks.verdict()
	}
	err = errors.Join(err, r.account.check())
	level := r.account.level(err)
	l := record.New(time.Now(), level, "retried", r.env.Service)
	r.account.fill(l)
	r.marks.fill(l)
	l.Int("bad", r.bad)
	return errors.Join(err, r.env.Stdout.Record(level, l.End()))
}

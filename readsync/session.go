package main

import (
	"context"

	"observability-hub/lib/cli"
)

// session writes documents to the table, for run, load and retry. Rows are written
// first, then rejected documents are written to the dead letters, then all are counted
// and reported, and at last the documents are marked. If a run is killed between two of
// these steps, the next run finds the documents still ingested and their rows and
// letters in place.
type session struct {
	env     *cli.Env
	source  *source  // nil in load, which reads records instead
	target  *target  // nil in mark
	letters *letters // nil in retry and in a dry run, which write no dead letters
	account account
	marks   marks // separate from account, because run counts them in another goroutine
}

// openSession connects to both databases. The session with PostgreSQL ends with the
// context writing, which may last longer than ctx.
func openSession(ctx, writing context.Context, env *cli.Env, f peerFlags, mode writeMode) (*session, error) {
	s := &session{env: env}
	var err error
	if s.source, err = openSource(ctx, env, f); err != nil {
		return nil, err
	}
	if s.target, err = openTarget(writing, f, mode); err != nil {
		s.close()
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, err
	}
	return s, nil
}

func (s *session) close() {
	if s.letters != nil {
		s.letters.close()
	}
	if s.target != nil {
		_ = s.target.close() // an error is harmless: what is committed is committed
	}
	if s.source != nil {
		s.source.close()
	}
}

// write writes rows and sets the outcome of each. The rows must have different ids, or
// all be documents of one collection.
func (s *session) write(ctx context.Context, rows []*row) error {
	if err := s.target.write(rows); err != nil {
		return err
	}
	var refused []*row
	for _, r := range rows {
		if r.refused != nil {
			r.outcome = rejected
			refused = append(refused, r)
		}
	}
	if len(refused) > 0 && s.letters != nil {
		if err := s.letters.put(ctx, refused); err != nil {
			return err
		}
	}
	s.account.add(rows)
	s.account.name(s.env, rows)
	return nil
}

// writeDistinct writes rows whose ids may repeat. It writes them in parts without
// repeated ids. A later row is thus compared with the earlier row of its id. After each
// part it calls done with the range of that part.
func (s *session) writeDistinct(ctx context.Context, rows []*row, done func(from, to int) error) error {
	for from := 0; from < len(rows); {
		to := from + distinct(rows[from:])
		if err := s.write(ctx, rows[from:to]); err != nil {
			return err
		}
		if err := done(from, to); err != nil {
			return err
		}
		from = to
	}
	return nil
}

// distinct returns the number of rows before the first repeated id.
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

// mark marks ingested documents after their rows are written: as processed if the row
// is in the table, and as rejected if the document is in the dead letters. A document
// that differs from its row stays ingested.
func (s *session) mark(ctx context.Context, docs []document, rows []*row) error {
	var done, aside []*document
	for i, r := range rows {
		switch r.outcome {
		case inserted, identical, replaced:
			done = append(done, &docs[i])
		case rejected:
			aside = append(aside, &docs[i])
		}
	}
	if err := s.source.setStatus(ctx, &s.marks, done, statusIngested, statusProcessed); err != nil {
		return err
	}
	return s.source.setStatus(ctx, &s.marks, aside, statusIngested, statusRejected)
}

package main

import (
	"context"

	"observability-hub/lib/cli"
)

// session is the one way of documents into the table, for run, load and retry: rows
// are written, documents that cannot be rows are set aside, both are counted and
// named, and then the documents are marked. Killed between any two of these, the next
// run finds the documents still ingested, and their rows and letters there.
type session struct {
	env     *cli.Env
	source  *source  // nil in load, which reads records instead
	target  *target  // nil in mark
	letters *letters // nil where documents that cannot be rows stay where they are
	account account
	marks   marks // may be counted beside the account, by another goroutine
}

// openSession connects to both sides. Writing ends with the second context, which may
// outlast the first.
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
		_ = s.target.close() // what is not committed does not count
	}
	if s.source != nil {
		s.source.close()
	}
}

// write writes rows, of which each has an outcome then. They have different ids, or
// are all documents of one collection.
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

// writeDistinct writes rows of which several may have one id: a later one meets the row
// of an earlier one. After each part done is called with the numbers of its rows.
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

// mark marks ingested documents whose rows are written: as processed what is in the
// table, and as rejected what is set aside. One that differs from its row stays
// ingested.
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

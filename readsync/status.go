package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"

	"observability-hub/lib/record"
	"observability-hub/lib/sysexits"
	"observability-hub/readsync/internal/guard"
	"observability-hub/readsync/internal/reading"
)

// marks counts documents by the result of marking them.
type marks struct {
	set, missed int64 // missed: changed since they were read, or not found
	refused     int64 // by a validation rule of the collection; missed counts them too
	refusal     error // the last refusal
}

// fill adds the marks to a record.
func (m *marks) fill(l *record.Line) {
	l.Int("marked", m.set)
	l.Int("unmarked", m.missed)
}

// verdict returns an error if a validation rule of the collection has refused marks.
func (m *marks) verdict() error {
	if m.refused == 0 {
		return nil
	}
	return sysexits.New(sysexits.Partial, "marks_refused", fmt.Errorf("MongoDB refuses to mark %s: %w", plural(m.refused, "document"), m.refusal)).
		WithHint("their rows are in the table; change the collection's validation rule to allow the status processed and rejected, then run again")
}

// updatesTogether limits the documents that one command marks. Each document needs a
// statement, FerretDB keeps each one open until the end of the command, and it can have
// only about a hundred open.
const updatesTogether = 64

// setStatus sets the status of documents. It skips a document whose status is not from
// any more, or whose synced fields changed since they were read: such a document must be
// synced again.
func (s *source) setStatus(ctx context.Context, m *marks, docs []*document, from, to string) error {
	for group := range slices.Chunk(docs, updatesTogether) {
		n, refused, err := s.updateTogether(ctx, group, from, to)
		if err != nil {
			return s.peer.Fault("mark documents "+to, err)
		}
		if len(refused) > 0 {
			m.refused += int64(len(refused))
			m.refusal = refused[0]
		}
		m.set += n
		m.missed += int64(len(group)) - n
	}
	return nil
}

// updateTogether updates documents with one command. It returns the number of updated
// documents, and the statements that failed. It repeats the command once after a
// transient error. This is safe: if the first attempt has updated the documents, the
// guards do not match any more, and only the returned number is too small.
func (s *source) updateTogether(ctx context.Context, docs []*document, from, to string) (int64, mongo.WriteErrors, error) {
	guarded := make([]guard.Document, len(docs))
	for i, d := range docs {
		guarded[i] = guard.Document{ID: d.ID, Fields: d.Fields[:]}
	}
	s.command = guard.AppendUpdate(s.command[:0], s.name, reading.Fields[:], guarded, from, to)
	command := bson.Raw(s.command)
	if cap(s.command) > 2*largeBatch {
		s.command = nil
	}
	n, err := s.updateOnce(ctx, command)
	if err != nil && ctx.Err() == nil && passing(err) {
		n, err = s.updateOnce(ctx, command)
	}
	if e, ok := errors.AsType[mongo.WriteException](err); ok && e.WriteConcernError == nil && len(e.WriteErrors) > 0 {
		return matched(e.Raw), e.WriteErrors, nil
	}
	return n, nil, err
}

func (s *source) updateOnce(ctx context.Context, command bson.Raw) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	reply, err := s.update(ctx, command)
	if err != nil {
		return 0, err
	}
	return matched(reply), nil
}

// matched returns the number of documents that an update has matched.
func matched(reply bson.Raw) int64 {
	n, _ := reply.Lookup("n").AsInt64OK()
	return n
}

// passing reports whether an error is transient: a lost connection, or a change of the
// primary.
func passing(err error) bool {
	e, ok := errors.AsType[mongo.CommandError](err)
	return mongo.IsNetworkError(err) || ok && e.HasErrorLabel("RetryableWriteError") ||
		ok && slices.Contains([]int32{91, 189, 10107, 11600, 11602, 13435}, e.Code)
}

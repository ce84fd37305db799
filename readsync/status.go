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

// marks counts documents whose status was to be set.
type marks struct {
	set, missed int64 // missed: changed since they were read, or not found
	refused     int64 // by a rule of the collection
	refusal     error // the last one
}

// fill adds the marks to a record.
func (m *marks) fill(l *record.Line) {
	l.Int("marked", m.set)
	l.Int("unmarked", m.missed)
}

// verdict is the error of marks that a rule of the collection forbids.
func (m *marks) verdict() error {
	if m.refused == 0 {
		return nil
	}
	return sysexits.New(sysexits.Partial, "marks_refused", fmt.Errorf("MongoDB refuses to mark %s: %w", plural(m.refused, "document"), m.refusal)).
		WithHint("their rows are in the table; change the collection's validation rule to allow the status processed and rejected, then run again")
}

// updatesTogether is how many documents one command marks. Each has a statement of its
// own, which FerretDB keeps open until the end of the command, and it has about a
// hundred.
const updatesTogether = 64

// setStatus sets the status of documents that were read, each only if its status is
// still from and the fields that became columns still are what was read: who edits a
// document meanwhile gets it synced again.
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

// updateTogether updates documents by one command, and returns how many are updated,
// and which statements failed. That the command is repeated once does no harm, as its
// guards then match no more; only the number may be too small.
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

// matched is how many documents an update has found.
func matched(reply bson.Raw) int64 {
	n, _ := reply.Lookup("n").AsInt64OK()
	return n
}

// passing reports whether an error of the connection or of a primary that changes
// may be over at once.
func passing(err error) bool {
	e, ok := errors.AsType[mongo.CommandError](err)
	return mongo.IsNetworkError(err) || ok && e.HasErrorLabel("RetryableWriteError") ||
		ok && slices.Contains([]int32{91, 189, 10107, 11600, 11602, 13435}, e.Code)
}

package main

import (
	"context"
	"errors"
	"iter"
	"slices"
	"strconv"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

// marksTogether is how many documents one command marks. Each has a statement of its
// own, which FerretDB keeps open until the end of the command, and it has about a
// hundred.
const marksTogether = 64

// mark sets the status of documents that were read, each only if its status is still
// from and the fields that became columns still are what was read: who edits a
// document meanwhile gets it synced again. The account counts how many were marked.
func (s *source) mark(ctx context.Context, a *account, rows []*row, from, to string) error {
	for group := range slices.Chunk(rows, marksTogether) {
		n, refused, err := s.markTogether(ctx, group, from, to)
		if err != nil {
			return s.fault("mark documents "+to, err)
		}
		if len(refused) > 0 { // by a rule of the collection
			a.refused += int64(len(refused))
			a.refusal = refused[0]
		}
		a.marked += n
		a.unmarked += int64(len(group)) - n
	}
	return nil
}

// markTogether marks documents by one command, and returns how many are marked, and
// which statements failed.
//
// The command is written here, not by the driver, which copies each filter three
// times. That it is repeated once does no harm, as its guards then match no more;
// only the number may be too small.
func (s *source) markTogether(ctx context.Context, rows []*row, from, to string) (int64, mongo.WriteErrors, error) {
	s.command = s.appendMark(s.command[:0], rows, from, to)
	command := bson.Raw(s.command)
	if cap(s.command) > 2*largeBatch {
		s.command = nil
	}
	n, err := s.update(ctx, command)
	if err != nil && ctx.Err() == nil && passing(err) {
		n, err = s.update(ctx, command)
	}
	if e, ok := errors.AsType[mongo.WriteException](err); ok && e.WriteConcernError == nil && len(e.WriteErrors) > 0 {
		return marked(e.Raw), e.WriteErrors, nil
	}
	return n, nil, err
}

func (s *source) update(ctx context.Context, command bson.Raw) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	reply, err := s.docs.Database().RunCommand(ctx, command).Raw()
	if err != nil {
		return 0, err
	}
	return marked(reply), nil
}

// marked is how many documents an update has matched.
func marked(reply bson.Raw) int64 {
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

// appendMark appends the update command, with a statement for each document.
func (s *source) appendMark(b []byte, rows []*row, from, to string) []byte {
	size := 256
	for _, r := range rows {
		size += 512
		for _, f := range r.fields {
			size += len(f.data)
		}
	}
	no, yes := value{bson.TypeBoolean, []byte{0}}, value{bson.TypeBoolean, []byte{1}}
	set := value{bson.TypeEmbeddedDocument, appendDocument(nil, func(b []byte) []byte {
		return appendElement(b, "$set", value{bson.TypeEmbeddedDocument, appendDocument(nil, func(b []byte) []byte {
			return appendElement(b, "status", stringValue(to))
		})})
	})}
	wanted := stringValue(from)
	return appendDocument(slices.Grow(b, size), func(b []byte) []byte {
		b = appendElement(b, "update", stringValue(s.docs.Name()))
		b = appendElement(b, "ordered", no)
		b = appendElement(b, "writeConcern", value{bson.TypeEmbeddedDocument, appendDocument(nil, func(b []byte) []byte {
			return appendElement(b, "w", stringValue("majority"))
		})})
		return appendArray(b, "updates", func(yield func(func([]byte) []byte) bool) {
			for _, r := range rows {
				if !yield(func(b []byte) []byte {
					b = append(append(b, byte(bson.TypeEmbeddedDocument)), "q\x00"...)
					b = appendDocument(b, func(b []byte) []byte {
						return appendGuard(appendElement(b, "status", wanted), r)
					})
					b = appendElement(b, "u", set)
					// Never more than the one that _id names; but some servers are slow to end an update of one.
					return appendElement(b, "multi", yes)
				}) {
					return
				}
			}
		})
	})
}

// appendGuard appends the conditions that a document is still as it was read.
func appendGuard(b []byte, r *row) []byte {
	// The plain form where it means the same: not every server looks up {$eq: id} by its index.
	switch r.key.kind {
	case bson.TypeEmbeddedDocument, bson.TypeRegex, bson.TypeArray:
		b = appendOperator(b, "_id", "$eq", r.key)
	default:
		b = appendElement(b, "_id", r.key)
	}
	for i, name := range synced {
		switch v := r.fields[i]; v.kind {
		case 0:
			b = appendOperator(b, name, "$exists", value{bson.TypeBoolean, []byte{0}})
		case bson.TypeUndefined: // no value to compare with, on any server
			b = appendOperator(b, name, "$type", value{bson.TypeInt32, []byte{6, 0, 0, 0}})
		default:
			b = appendOperator(b, name, "$eq", v)
		}
	}
	return b
}

// appendArray appends an array of documents, each filled by a function.
func appendArray(b []byte, name string, documents iter.Seq[func([]byte) []byte]) []byte {
	b = append(append(append(b, byte(bson.TypeArray)), name...), 0)
	return appendDocument(b, func(b []byte) []byte {
		i := 0
		for fill := range documents {
			b = strconv.AppendInt(append(b, byte(bson.TypeEmbeddedDocument)), int64(i), 10)
			b = appendDocument(append(b, 0), fill)
			i++
		}
		return b
	})
}

// appendOperator appends {name: {operator: v}}.
func appendOperator(b []byte, name, operator string, v value) []byte {
	b = append(b, byte(bson.TypeEmbeddedDocument))
	b = append(b, name...)
	b = append(b, 0)
	return appendDocument(b, func(b []byte) []byte { return appendElement(b, operator, v) })
}

// find reads documents of a status by their ids, as many as one answer holds.
func (s *source) find(ctx context.Context, ids []value, status string) ([]bson.Raw, error) {
	docs, err := s.query(ctx, bson.D{{Key: "_id", Value: anyOf(ids)}, {Key: "status", Value: status}}, options.Find(), len(ids))
	if err != nil {
		return nil, s.fault("read documents", err)
	}
	return docs, nil
}

// query gets one answer: a negative limit leaves no cursor open.
func (s *source) query(ctx context.Context, filter bson.D, find *options.FindOptionsBuilder, limit int) ([]bson.Raw, error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	cursor, err := s.docs.Find(ctx, filter, find.SetBatchSize(int32(limit)).SetLimit(-int64(limit)))
	if err != nil {
		return nil, err
	}
	defer cursor.Close(ctx)
	docs := make([]bson.Raw, 0, limit)
	for cursor.Next(ctx) {
		docs = append(docs, cursor.Current)
	}
	return docs, cursor.Err()
}

// anyOf matches values.
func anyOf(ids []value) bson.D {
	wanted := make(bson.A, len(ids))
	for i, id := range ids {
		wanted[i] = bson.RawValue{Type: id.kind, Value: id.data}
	}
	return bson.D{{Key: "$in", Value: wanted}}
}

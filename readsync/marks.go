package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"iter"
	"slices"
	"strconv"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

// marksTogether is how many documents one statement marks. Where each of them has a
// statement of its own, a server that reads the collection for each one takes for
// ever; where all have one, each document is compared with what all were read as.
const marksTogether = 32

// mark sets the status of documents that were read, each only if its status is still
// from and the fields that became columns still are what was read: who edits a
// document meanwhile gets it synced again. The account counts how many were marked.
func (s *source) mark(ctx context.Context, a *account, rows []*row, from, to string) error {
	if len(rows) == 0 {
		return nil
	}
	n, refused, err := s.markBy(ctx, marksTogether, rows, from, to)
	if err == nil && len(refused) > 0 {
		// A rule of the collection refuses some, and with them those of their statements.
		var more int64
		more, refused, err = s.markBy(ctx, 1, rows, from, to)
		n += more
	}
	if err != nil {
		return s.fault("mark documents "+to, err)
	}
	if len(refused) > 0 {
		a.refused += int64(len(refused))
		a.refusal = refused[0]
	}
	a.marked += n
	a.unmarked += int64(len(rows)) - n
	return nil
}

// markBy does it with one statement for so many documents, and returns how many are
// marked, and which statements failed.
//
// The command is written here, not by the driver, which copies each filter three
// times. That it is repeated once does no harm, as its guards then match no more;
// only the number may be too small.
func (s *source) markBy(ctx context.Context, together int, rows []*row, from, to string) (int64, mongo.WriteErrors, error) {
	s.command = s.appendMark(s.command[:0], together, rows, from, to)
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

// appendMark appends the update command, with a statement for so many documents.
func (s *source) appendMark(b []byte, together int, rows []*row, from, to string) []byte {
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
			for left := rows; len(left) > 0; {
				n := 1
				for n < min(together, len(left)) && listed(left[n-1]) && listed(left[n]) {
					n++
				}
				group := left[:n]
				left = left[n:]
				if !yield(func(b []byte) []byte {
					b = append(append(b, byte(bson.TypeEmbeddedDocument)), "q\x00"...)
					b = appendGuards(b, group, wanted)
					b = appendElement(b, "u", set)
					// Never more than are named; but some servers are slow to end an update of one.
					return appendElement(b, "multi", yes)
				}) {
					return
				}
			}
		})
	})
}

// listed reports whether an id in a list means itself alone.
func listed(r *row) bool {
	switch r.key.kind {
	case bson.TypeObjectID, bson.TypeString, bson.TypeInt32, bson.TypeInt64, bson.TypeDateTime, bson.TypeBinary:
		return true
	}
	return false
}

// appendGuards appends the filter that matches those documents which still are as
// they were read. The ids of several are named twice: by the list they are found, by
// the guards they are told apart.
func appendGuards(b []byte, rows []*row, status value) []byte {
	return appendDocument(b, func(b []byte) []byte {
		if len(rows) == 1 {
			return appendGuard(appendElement(b, "status", status), rows[0])
		}
		b = append(append(b, byte(bson.TypeEmbeddedDocument)), "_id\x00"...)
		b = appendDocument(b, func(b []byte) []byte {
			// Of no use where the list is looked up in an index, of much where all is read and compared.
			if low, high, ok := bounds(rows); ok {
				b = appendElement(b, "$gte", low)
				b = appendElement(b, "$lte", high)
			}
			b = append(append(b, byte(bson.TypeArray)), "$in\x00"...)
			return appendDocument(b, func(b []byte) []byte {
				for i, r := range rows {
					b = appendElement(b, strconv.Itoa(i), r.key)
				}
				return b
			})
		})
		b = appendElement(b, "status", status)
		return appendArray(b, "$or", func(yield func(func([]byte) []byte) bool) {
			for _, r := range rows {
				if !yield(func(b []byte) []byte { return appendGuard(b, r) }) {
					return
				}
			}
		})
	})
}

// bounds returns the lowest and the highest id, if all are of one type that every
// server orders alike: strings may have a collation.
func bounds(rows []*row) (low, high value, ok bool) {
	kind := rows[0].key.kind
	var compare func(a, b []byte) int
	switch kind {
	case bson.TypeObjectID:
		compare = bytes.Compare
	case bson.TypeInt64, bson.TypeDateTime:
		compare = func(a, b []byte) int {
			return cmp.Compare(int64(binary.LittleEndian.Uint64(a)), int64(binary.LittleEndian.Uint64(b)))
		}
	case bson.TypeInt32:
		compare = func(a, b []byte) int {
			return cmp.Compare(int32(binary.LittleEndian.Uint32(a)), int32(binary.LittleEndian.Uint32(b)))
		}
	default:
		return low, high, false
	}
	low, high = rows[0].key, rows[0].key
	for _, r := range rows {
		if r.key.kind != kind {
			return low, high, false
		}
		if compare(r.key.data, low.data) < 0 {
			low = r.key
		}
		if compare(r.key.data, high.data) > 0 {
			high = r.key
		}
	}
	return low, high, true
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

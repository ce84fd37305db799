package main

import (
	"context"
	"errors"
	"fmt"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

// mark sets the status of documents that were read, each only if its status is still
// from and the fields that became columns still are what was read: who edits a
// document meanwhile gets it synced again. It returns how many were marked.
func (s *source) mark(ctx context.Context, rows []*row, from, to string) (int64, error) {
	if len(rows) == 0 {
		return 0, nil
	}
	set := bson.Raw(appendDocument(nil, func(b []byte) []byte {
		return appendElement(b, "$set", value{bson.TypeEmbeddedDocument, appendDocument(nil, func(b []byte) []byte {
			return appendElement(b, "status", stringValue(to))
		})})
	}))
	models := make([]mongo.WriteModel, len(rows))
	for i, r := range rows {
		models[i] = &mongo.UpdateOneModel{Filter: bson.Raw(guardFilter(r, from)), Update: set}
	}
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	result, err := s.docs.BulkWrite(ctx, models, options.BulkWrite().SetOrdered(false))
	if err != nil {
		if e, ok := errors.AsType[mongo.BulkWriteException](err); ok && len(e.WriteErrors) > 0 {
			err = fmt.Errorf("%d of %d: %w", len(e.WriteErrors), len(rows), e.WriteErrors[0])
		}
		var n int64
		if result != nil {
			n = result.MatchedCount
		}
		return n, sourceError(fmt.Errorf("mark documents %s: %w", to, err))
	}
	return result.MatchedCount, nil
}

// guardFilter matches a document that still is as it was read.
func guardFilter(r *row, status string) []byte {
	size := 256
	for _, f := range r.fields {
		size += len(f.data)
	}
	return appendDocument(make([]byte, 0, size), func(b []byte) []byte {
		b = appendOperator(b, "_id", "$eq", r.key)
		b = appendElement(b, "status", stringValue(status))
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
	})
}

// appendOperator appends {name: {operator: v}}.
func appendOperator(b []byte, name, operator string, v value) []byte {
	b = append(b, byte(bson.TypeEmbeddedDocument))
	b = append(b, name...)
	b = append(b, 0)
	return appendDocument(b, func(b []byte) []byte { return appendElement(b, operator, v) })
}

// find reads documents of a status by their ids.
func (s *source) find(ctx context.Context, ids []value, status string) ([]bson.Raw, error) {
	wanted := make(bson.A, len(ids))
	for i, id := range ids {
		wanted[i] = bson.RawValue{Type: id.kind, Value: id.data}
	}
	var all []bson.Raw
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	cursor, err := s.docs.Find(ctx, bson.D{
		{Key: "_id", Value: bson.D{{Key: "$in", Value: wanted}}}, {Key: "status", Value: status}})
	if err != nil {
		return nil, sourceError(fmt.Errorf("read documents: %w", err))
	}
	defer cursor.Close(ctx)
	for cursor.Next(ctx) {
		all = append(all, cursor.Current)
	}
	if err := cursor.Err(); err != nil {
		return nil, sourceError(fmt.Errorf("read documents: %w", err))
	}
	return all, nil
}

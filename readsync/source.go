package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"

	"observability-hub/lib/sysexits"
	"observability-hub/readsync/internal/mongopeer"
	"observability-hub/readsync/internal/rawbson"
)

// Values of a document's status.
const (
	statusIngested  = "ingested"
	statusProcessed = "processed"
	statusRejected  = "rejected"
)

// source is the collection that documents come from.
type source struct {
	collection
	name    string // the collection's name
	peer    mongopeer.Peer
	timeout time.Duration // of one command
	command []byte        // buffer of the last update, for reuse

	fewTypes bool // the server does not know the $type codes of all types
}

// ask sends a query, with the time limit of one command.
func (s *source) ask(ctx context.Context, q question) ([]bson.Raw, error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	return s.find(ctx, q)
}

// Limits of a batch.
const (
	batchDocuments = 1000
	batchBytes     = 8 << 20
)

// walk reads the documents of a status in the order of their ids. It pages by keyset,
// one query for each batch, and keeps no cursor open, because the server closes a cursor
// that is idle for ten minutes, and writing rows may take longer.
type walk struct {
	source *source
	status string        // "" is any
	brief  bool          // only _id and status
	last   rawbson.Value // the last id that was read
	above  bool          // there are no more ids of last's type
	done   bool
}

// next returns the next documents, at least one unless all have been read. Fewer than
// limit documents do not mean the end, because a server's answer is limited to 16 MiB.
func (w *walk) next(ctx context.Context, limit int) ([]bson.Raw, error) {
	for !w.done {
		docs, err := w.find(ctx, limit)
		if err != nil {
			return nil, w.source.peer.Fault("read documents", err)
		}
		for _, doc := range docs {
			if rawbson.Lookup(doc, "_id").Missing() {
				return nil, sysexits.New(sysexits.Config, "source_refused", fmt.Errorf("%s contains a document without _id, which can be neither identified nor marked", w.source.name)).
					WithHint("MONGO_COLLECTION must name the collection that documents are written to, not a view")
			}
		}
		switch {
		case len(docs) > 0:
			id := rawbson.Lookup(docs[len(docs)-1], "_id")
			if id.Equal(w.last) {
				return nil, sysexits.New(sysexits.Failed, "read_stuck", errors.New("read documents: the server returned the last document again"))
			}
			w.last, w.above = rawbson.Value{Kind: id.Kind, Data: bytes.Clone(id.Data)}, false
			return docs, nil
		case w.last.Missing() || w.above:
			w.done = true
		default:
			w.above = true
		}
	}
	return nil, nil
}

func (w *walk) find(ctx context.Context, limit int) ([]bson.Raw, error) {
	filter := bson.D{}
	if w.status != "" {
		filter = bson.D{{Key: "status", Value: w.status}}
	}
	if !w.last.Missing() {
		bound := bson.D{{Key: "$gt", Value: bson.RawValue{Type: w.last.Kind, Value: w.last.Data}}}
		if w.above = w.above || !w.last.Comparable(); w.above {
			types := rawbson.TypesAbove(w.last.Kind, w.source.fewTypes)
			if len(types) == 0 {
				return nil, nil
			}
			bound = bson.D{{Key: "$type", Value: types}}
		} else if w.last.IsNaN() { // it sorts before all numbers, but $gt NaN matches nothing
			bound = bson.D{{Key: "$gte", Value: math.Inf(-1)}}
		}
		filter = append(filter, bson.E{Key: "_id", Value: bound})
	}
	q := question{filter: filter, sorted: true, limit: limit}
	if w.brief {
		q.only = "status"
	}
	docs, err := w.source.ask(ctx, q)
	if e, ok := errors.AsType[mongo.CommandError](err); ok && w.above && !w.source.fewTypes && (e.Code == 2 || e.Code == 238) {
		w.source.fewTypes = true
		return w.find(ctx, limit)
	}
	return docs, err
}

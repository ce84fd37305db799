package main

import (
	"go.mongodb.org/mongo-driver/v2/bson"

	"observability-hub/readsync/internal/deadletter"
	"observability-hub/readsync/internal/extjson"
	"observability-hub/readsync/internal/rawbson"
	"observability-hub/readsync/internal/reading"
)

// outcome is how a document ended.
type outcome int

const (
	undecided outcome = iota
	inserted          // a new row
	identical         // the row was there
	differing         // a row of this id was there, with another content
	replaced          // the same, and the row has the document's content now
	rejected          // set aside in the dead letters
)

func (o outcome) String() string {
	return [...]string{"undecided", "inserted", "identical", "differing", "replaced", "rejected"}[o]
}

// row is a row on its way into the table, and what became of it.
type row struct {
	id      string
	columns reading.Columns
	unread  bool             // event_timestamp is a text that PostgreSQL must read
	refused *extjson.Refusal // why it cannot be a row
	outcome outcome
	from    origin
}

// origin is what a row was made of: a [document] that was read here, or a record that
// another process [extracted].
type origin interface {
	// Guard is the digest of the document.
	Guard() string
	// content is the document as a dead letter has it.
	content(*row) (text, raw []byte)
	// value is the value that became a column.
	value(r *row, column int) (rawbson.Value, error)
}

// letter is what a refused row leaves.
func (r *row) letter() deadletter.Letter {
	l := deadletter.Letter{ID: r.id, Reason: r.refused.Reason, Detail: r.refused.Error(), Guard: r.from.Guard()}
	l.Document, l.BSON = r.from.content(r)
	return l
}

// document is a document that was read here.
type document struct{ reading.Document }

func (d *document) content(r *row) (text, raw []byte) { return d.Content(r.refused) }

func (d *document) value(_ *row, column int) (rawbson.Value, error) { return d.Fields[column], nil }

// readRow reads a document into d and makes a row of it. One that cannot be is refused,
// and still has its id, if it has one.
func readRow(b *reading.Builder, raw bson.Raw, d *document) row {
	r := row{from: d}
	if r.refused = d.Read(raw); r.refused == nil {
		r.columns, r.unread, r.refused = b.Columns(&d.Document)
	}
	r.id = d.Text
	return r
}

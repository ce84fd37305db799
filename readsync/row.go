package main

import (
	"go.mongodb.org/mongo-driver/v2/bson"

	"observability-hub/readsync/internal/deadletter"
	"observability-hub/readsync/internal/extjson"
	"observability-hub/readsync/internal/rawbson"
	"observability-hub/readsync/internal/reading"
)

// outcome is the outcome of a document.
type outcome int

const (
	undecided outcome = iota
	inserted          // a new row
	identical         // the row existed already
	differing         // a row with this id existed already, with other content
	replaced          // like differing, but the row was replaced
	rejected          // the document is in the dead letters
)

func (o outcome) String() string {
	return [...]string{"undecided", "inserted", "identical", "differing", "replaced", "rejected"}[o]
}

// row is a row of the table and the outcome of its document.
type row struct {
	id      string
	columns reading.Columns
	unread  bool             // event_timestamp is a text that PostgreSQL must parse
	refused *extjson.Refusal // why the document cannot become a row; nil if it can
	outcome outcome
	from    origin
}

// origin is the source of a row: a [document] that this process has read, or a record
// that another process has [extracted].
type origin interface {
	// Guard is the digest of the document.
	Guard() string
	// content returns the document as a dead letter stores it: as text, and as BSON if
	// the text does not represent it exactly.
	content(*row) (text, raw []byte)
	// value returns the document's value for a column.
	value(r *row, column int) (rawbson.Value, error)
}

// letter returns the dead letter of a refused row.
func (r *row) letter() deadletter.Letter {
	l := deadletter.Letter{ID: r.id, Reason: r.refused.Reason, Detail: r.refused.Error(), Guard: r.from.Guard()}
	l.Document, l.BSON = r.from.content(r)
	return l
}

// document is the origin of a row whose document this process has read.
type document struct{ reading.Document }

func (d *document) content(r *row) (text, raw []byte) { return d.Content(r.refused) }

func (d *document) value(_ *row, column int) (rawbson.Value, error) { return d.Fields[column], nil }

// readRow reads a document into d and returns its row. If the document cannot become a
// row, refused says why, and id is set if the document has one.
func readRow(b *reading.Builder, raw bson.Raw, d *document) row {
	r := row{from: d}
	if r.refused = d.Read(raw); r.refused == nil {
		r.columns, r.unread, r.refused = b.Columns(&d.Document)
	}
	r.id = d.Text
	return r
}

package main

import (
	"go.mongodb.org/mongo-driver/v2/bson"

	"observability-hub/readsync/internal/deadletter"
	"observability-hub/readsync/internal/extjson"
	"observability-hub/readsync/internal/moment"
	"observability-hub/readsync/internal/rawbson"
)

// columns are the table's beside mongo_id, in the order of synced.
var columns = [...]string{"event_timestamp", "source", "event_type", "payload", "meta"}

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

func parseOutcome(s string) outcome {
	for o := inserted; o <= rejected; o++ {
		if o.String() == s {
			return o
		}
	}
	return undecided
}

// row is a row on its way into the table, and what became of it.
type row struct {
	id      string
	columns [len(columns)][]byte // as text; nil is NULL
	unread  bool                 // event_timestamp is a text that PostgreSQL must read
	refused *extjson.Refusal     // why it cannot be a row
	outcome outcome
	from    origin
}

// origin is what a row was made of: a [document] that was read here, or an [extract]
// record of another process.
type origin interface {
	// guard is the digest of the document.
	guard() string
	// content is the document as a dead letter has it.
	content(*row) (text, raw []byte)
	// value is the value that became a column.
	value(r *row, column int) (rawbson.Value, error)
}

// letter is what a refused row leaves.
func (r *row) letter() deadletter.Letter {
	l := deadletter.Letter{ID: r.id, Reason: r.refused.Reason, Detail: r.refused.Error(), Guard: r.from.guard()}
	l.Document, l.BSON = r.from.content(r)
	return l
}

// datesFlag says how dates and ObjectIDs inside of a payload are stored.
type datesFlag struct {
	Dates string `enum:"extended,text" default:"extended"`
}

// builder makes rows of documents. The columns of a row lie in its buffer.
type builder struct {
	extjson.Converter
	buf []byte
}

func newBuilder(nul extjson.NULPolicy, dates datesFlag) *builder {
	return &builder{Converter: extjson.Converter{Dialect: extjson.Stored, NUL: nul, TextDates: dates.Dates == "text"}}
}

// reset forgets all rows that were made.
func (b *builder) reset(size int) {
	if cap(b.buf) < size || cap(b.buf) > 4*size+1<<20 {
		b.buf = make([]byte, 0, size)
	}
	b.buf = b.buf[:0]
}

// row reads a document into d and makes a row of it. One that cannot be is refused,
// and still has its id, if it has one.
func (b *builder) row(raw bson.Raw, d *document) row {
	bad := d.read(raw)
	r := row{id: d.text, refused: bad, from: d}
	if bad == nil {
		start := len(b.buf)
		if r.refused = b.convert(d, &r); r.refused != nil {
			b.buf = b.buf[:start]
			r.columns = [len(columns)][]byte{}
		}
	}
	return r
}

// convert writes the columns of a row.
func (b *builder) convert(d *document, r *row) *extjson.Refusal {
	for i, v := range d.fields {
		if v.IsNull() {
			continue
		}
		start := len(b.buf)
		var err error
		switch i {
		case atTimestamp:
			b.buf, err = moment.Append(b.buf, v)
			if err != nil && extjson.AsRefusal(err).Reason == "bad_timestamp" && v.Kind == bson.TypeString && moment.Readable(v.Text()) {
				b.buf, err = append(b.buf[:start], v.Text()...), nil
				r.unread = true
			}
		case atSource, atEventType:
			err = b.plain(v)
		default:
			b.buf, err = b.Append(b.buf, v)
		}
		if err != nil {
			return extjson.AsRefusal(err).At(synced[i])
		}
		r.columns[i] = b.buf[start:len(b.buf):len(b.buf)]
	}
	return nil
}

// plain appends a value for a text column: a string as it is, anything else as
// canonical Extended JSON.
func (b *builder) plain(v rawbson.Value) error {
	if v.Kind != bson.TypeString {
		strict := extjson.Converter{Dialect: extjson.Stored}
		start := len(b.buf)
		var err error
		if b.buf, err = strict.Append(b.buf, v); err != nil {
			return err
		}
		exact := extjson.Converter{Dialect: extjson.Canonical}
		b.buf, err = exact.Append(b.buf[:start], v)
		return err
	}
	clean, err := extjson.CheckText(v.Text(), b.NUL)
	if err != nil {
		return err
	}
	b.buf = append(b.buf, clean...)
	return nil
}

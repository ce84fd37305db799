package reading

import (
	"bytes"

	"go.mongodb.org/mongo-driver/v2/bson"

	"observability-hub/readsync/internal/extjson"
	"observability-hub/readsync/internal/moment"
	"observability-hub/readsync/internal/rawbson"
)

// Columns are the values of a row as text, without its mongo_id. nil is NULL.
type Columns [fields][]byte

// Builder converts documents into columns, whose text is in the builder's buffer.
type Builder struct {
	converter extjson.Converter
	buf       []byte
}

// NewBuilder returns a builder. With textDates, it writes dates and ObjectIDs inside
// payload and meta as plain text.
func NewBuilder(nul extjson.NULPolicy, textDates bool) *Builder {
	return &Builder{converter: extjson.Converter{Dialect: extjson.Stored, NUL: nul, TextDates: textDates}}
}

// Reset invalidates all columns and reserves size bytes for new ones.
func (b *Builder) Reset(size int) {
	if cap(b.buf) < size || cap(b.buf) > 4*size+1<<20 {
		b.buf = make([]byte, 0, size)
	}
	b.buf = b.buf[:0]
}

// Release invalidates all columns and frees their memory.
func (b *Builder) Release() { b.buf = nil }

// Columns returns the columns of a document, or the reason why it cannot become a row.
// unread is true if the timestamp is a text that PostgreSQL must parse.
func (b *Builder) Columns(d *Document) (columns Columns, unread bool, why *extjson.Refusal) {
	first := len(b.buf)
	for i, v := range d.Fields {
		if v.IsNull() {
			continue
		}
		start := len(b.buf)
		var err error
		switch i {
		case Timestamp:
			b.buf, err = moment.Append(b.buf, v)
			if err != nil && extjson.AsRefusal(err).Reason == "bad_timestamp" && v.Kind == bson.TypeString && moment.Readable(v.Text()) {
				b.buf, err = append(b.buf[:start], v.Text()...), nil
				unread = true
			}
		case Source, EventType:
			err = b.plain(v)
		default:
			b.buf, err = b.converter.Append(b.buf, v)
		}
		if err != nil {
			b.buf = b.buf[:first]
			return Columns{}, false, extjson.AsRefusal(err).At(Fields[i])
		}
		columns[i] = b.buf[start:len(b.buf):len(b.buf)]
	}
	return columns, unread, nil
}

// plain appends a value for a text column: a string unchanged, anything else as
// canonical Extended JSON.
func (b *Builder) plain(v rawbson.Value) error {
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
	clean, err := extjson.CheckText(v.Text(), b.converter.NUL)
	if err != nil {
		return err
	}
	b.buf = append(b.buf, clean...)
	return nil
}

// MayHoldNUL reports whether a column may contain a NUL character. It also returns true
// for an escaped backslash before u0000. The only cost is a longer record.
func (c *Columns) MayHoldNUL() bool {
	for i, text := range c {
		if i == Payload || i == Meta {
			if bytes.Contains(text, []byte(`\u0000`)) {
				return true
			}
		} else if bytes.IndexByte(text, 0) >= 0 {
			return true
		}
	}
	return false
}

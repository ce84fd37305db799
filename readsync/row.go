package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"

	"go.mongodb.org/mongo-driver/v2/bson"
)

// A document's fields that become columns, and the one that says which
// documents are meant. The order is that of the guard.
var synced = [...]string{"timestamp", "source", "event_type", "payload", "meta"}

const (
	atTimestamp = iota
	atSource
	atEventType
	atPayload
	atMeta
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

// row is a document on its way into the table.
type row struct {
	id      string
	columns [len(columns)][]byte // as text; nil is NULL
	unread  bool                 // event_timestamp is a text that PostgreSQL must read
	refused *refusal             // why it cannot be a row
	outcome outcome

	// Of a document that was read here.
	doc    bson.Raw
	key    value // its _id
	fields [len(synced)]value

	// Of a record that another stage wrote.
	guard  string
	letter []byte // the dead letter, if extract could not make a row of it
}

// builder makes rows of documents. The columns of a row lie in its buffer.
type builder struct {
	converter
	buf []byte
}

func newBuilder(nul nulPolicy, dates datesFlag) *builder {
	return &builder{converter: converter{dialect: stored, nul: nul, textDates: dates.Dates == "text"}}
}

// datesFlag says how dates and ObjectIDs inside of a payload are stored.
type datesFlag struct {
	Dates string `enum:"extended,text" default:"extended"`
}

// reset forgets all rows that were made.
func (b *builder) reset(size int) {
	if cap(b.buf) < size || cap(b.buf) > 4*size+1<<20 {
		b.buf = make([]byte, 0, size)
	}
	b.buf = b.buf[:0]
}

// row makes a row of a document. One that cannot be is refused, and still has
// its id, if it has one.
func (b *builder) row(doc bson.Raw) row {
	r := b.fields(doc)
	if r.refused == nil {
		start := len(b.buf)
		if err := b.fill(&r); err != nil {
			b.buf = b.buf[:start]
			r.columns = [len(columns)][]byte{}
			r.refused = asRefusal(err)
		}
	}
	return r
}

// fields finds the fields of a document, and the text of its id.
func (b *builder) fields(doc bson.Raw) row {
	r := row{doc: doc}
	var twice string
	intact := elements(doc, func(key []byte, v value) bool {
		at := fieldIndex(key)
		switch {
		case at == notSynced:
		case at == isID && r.key.missing():
			r.key = v
		case at >= 0 && r.fields[at].missing():
			r.fields[at] = v
		default:
			twice = string(key)
		}
		return true
	})
	start := len(b.buf)
	var err error
	switch {
	case !intact:
		err = errCorrupt
	case r.key.missing():
		err = (&refusal{reason: "no_id"}).at("_id")
	case twice != "":
		err = (&refusal{reason: "duplicate_key"}).at(twice)
	}
	if !r.key.missing() {
		// Whatever it is, the outcome is reported under this text.
		var bad error
		b.buf, bad = appendID(b.buf, r.key)
		r.id = string(b.buf[start:])
		b.buf = b.buf[:start]
		if bad == nil {
			bad = b.checkID(r.key, len(r.id))
		}
		if err == nil && bad != nil {
			err = bad
		}
	}
	if err != nil {
		r.refused = asRefusal(err)
	}
	return r
}

// checkID refuses an id whose text is too long, or would be that of another id.
func (b *builder) checkID(id value, size int) error {
	if size > maxID {
		return (&refusal{reason: "id_too_long"}).at("_id")
	}
	if id.kind == bson.TypeObjectID {
		return nil
	}
	start := len(b.buf)
	strict := converter{dialect: stored}
	var err error
	b.buf, err = strict.append(b.buf, id)
	b.buf = b.buf[:start]
	if err != nil {
		return asRefusal(err).at("_id")
	}
	switch id.kind {
	case bson.TypeEmbeddedDocument, bson.TypeArray, bson.TypeCodeWithScope:
		// {"$numberInt": "5"} can be an object, which older servers took for an _id.
		text, _ := appendID(nil, id)
		if same, err := parseID(string(text)); err != nil || same.kind != id.kind || !bytes.Equal(same.data, id.data) {
			return (&refusal{reason: "ambiguous_id"}).at("_id")
		}
	}
	return nil
}

func (b *builder) fill(r *row) error {
	for i, v := range r.fields {
		if v.isNull() {
			continue
		}
		start := len(b.buf)
		unread := false
		var err error
		switch i {
		case atTimestamp:
			b.buf, err = appendMoment(b.buf, v)
			if r, ok := err.(*refusal); ok && r.reason == "bad_timestamp" && v.kind == bson.TypeString && readable(v.text()) {
				b.buf, err = append(b.buf[:start], v.text()...), nil
				unread = true
			}
		case atSource, atEventType:
			err = b.plain(v)
		default:
			b.buf, err = b.append(b.buf, v)
		}
		if err != nil {
			return asRefusal(err).at(synced[i])
		}
		r.columns[i] = b.buf[start:len(b.buf):len(b.buf)]
		r.unread = r.unread || unread
	}
	return nil
}

// plain appends a value for a text column: a string as it is, anything else as
// canonical Extended JSON.
func (b *builder) plain(v value) error {
	if v.kind != bson.TypeString {
		strict := converter{dialect: stored}
		start := len(b.buf)
		var err error
		if b.buf, err = strict.append(b.buf, v); err != nil {
			return err
		}
		exact := converter{dialect: canonical}
		b.buf, err = exact.append(b.buf[:start], v)
		return err
	}
	text := v.text()
	clean, err := checkText(text, b.nul)
	if err != nil {
		return err
	}
	b.buf = append(b.buf, clean...)
	return nil
}

func asRefusal(err error) *refusal {
	if r, ok := err.(*refusal); ok {
		return r
	}
	return &refusal{reason: "bad_json", detail: err.Error()}
}

const (
	notSynced = -1
	isID      = -2
)

// fieldIndex returns where in synced a field is.
func fieldIndex(key []byte) int {
	switch string(key) {
	case "_id":
		return isID
	case "timestamp":
		return atTimestamp
	case "source":
		return atSource
	case "event_type":
		return atEventType
	case "payload":
		return atPayload
	case "meta":
		return atMeta
	}
	return notSynced
}

// digest identifies a document by its id and the fields that become columns, so
// that mark can tell whether it is still the one that was read.
func (r *row) digest() string {
	h := sha256.New()
	for _, v := range append(r.fields[:], r.key) {
		h.Write(binary.LittleEndian.AppendUint32([]byte{byte(v.kind)}, uint32(len(v.data))))
		h.Write(v.data)
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// hasNUL reports whether a column may hold a NUL character; an escaped backslash
// before u0000 counts as one, which costs no more than some bytes.
func (r *row) hasNUL() bool {
	for i, c := range r.columns {
		if i == atPayload || i == atMeta {
			if bytes.Contains(c, []byte(`\u0000`)) {
				return true
			}
		} else if bytes.IndexByte(c, 0) >= 0 {
			return true
		}
	}
	return false
}

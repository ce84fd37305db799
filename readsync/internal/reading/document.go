// Package reading converts readings into rows. A reading is a document whose fields
// timestamp, source, event_type, payload and meta become columns of the table.
package reading

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"

	"go.mongodb.org/mongo-driver/v2/bson"

	"observability-hub/readsync/internal/deadletter"
	"observability-hub/readsync/internal/extjson"
	"observability-hub/readsync/internal/rawbson"
)

// Indexes of the fields and their columns. [Document.Guard] depends on the order.
const (
	Timestamp = iota
	Source
	EventType
	Payload
	Meta
	fields // the number of fields
)

// Fields are the fields of a document that become columns.
var Fields = [fields]string{"timestamp", "source", "event_type", "payload", "meta"}

// ColumnNames are the columns for Fields, in the same order.
var ColumnNames = [fields]string{"event_timestamp", "source", "event_type", "payload", "meta"}

// Document is a document that was read.
type Document struct {
	Raw    bson.Raw
	ID     rawbson.Value // its _id
	Text   string        // the text of the _id: the mongo_id of the row
	Fields [fields]rawbson.Value
}

// Read sets the fields of a document. It returns a refusal if the document is damaged,
// has a synced field twice, or has no _id or an _id that mongo_id cannot represent. If
// the document has an _id, Text is set in any case.
func (d *Document) Read(raw bson.Raw) *extjson.Refusal {
	d.Raw = raw
	var twice string
	intact := rawbson.Elements(raw, func(key []byte, v rawbson.Value) bool {
		field := d.field(key)
		switch {
		case field == nil:
		case field.Missing():
			*field = v
		default:
			twice = string(key)
		}
		return true
	})
	var ambiguous *extjson.Refusal
	if !d.ID.Missing() {
		text, err := extjson.AppendID(nil, d.ID)
		if d.Text = string(text); err != nil {
			ambiguous = extjson.AsRefusal(err)
		} else {
			ambiguous = checkID(d.ID, len(text))
		}
	}
	switch {
	case !intact:
		return extjson.ErrCorrupt
	case d.ID.Missing():
		return (&extjson.Refusal{Reason: "no_id"}).At("_id")
	case twice != "":
		return (&extjson.Refusal{Reason: "duplicate_key"}).At(twice)
	}
	return ambiguous
}

// field returns the destination of a field's value, or nil if the field is not synced.
func (d *Document) field(key []byte) *rawbson.Value {
	switch string(key) {
	case "_id":
		return &d.ID
	case "timestamp":
		return &d.Fields[Timestamp]
	case "source":
		return &d.Fields[Source]
	case "event_type":
		return &d.Fields[EventType]
	case "payload":
		return &d.Fields[Payload]
	case "meta":
		return &d.Fields[Meta]
	}
	return nil
}

// checkID returns a refusal if the text of an id is too long, cannot be stored, or would
// be equal to that of another id.
func checkID(id rawbson.Value, size int) *extjson.Refusal {
	if size > extjson.MaxID {
		return (&extjson.Refusal{Reason: "id_too_long"}).At("_id")
	}
	if id.Kind == bson.TypeObjectID {
		return nil
	}
	strict := extjson.Converter{Dialect: extjson.Stored}
	if _, err := strict.Append(nil, id); err != nil {
		return extjson.AsRefusal(err).At("_id")
	}
	switch id.Kind {
	case bson.TypeEmbeddedDocument, bson.TypeArray, bson.TypeCodeWithScope:
		// Older servers accept the object {"$numberInt": "5"} as an _id. Its text would be
		// that of the number 5.
		text, _ := extjson.AppendID(nil, id)
		if same, err := extjson.ParseID(string(text)); err != nil || !same.Equal(id) {
			return (&extjson.Refusal{Reason: "ambiguous_id"}).At("_id")
		}
	}
	return nil
}

// Guard returns a digest of a document's id and synced fields. readsync mark compares
// digests to find out whether a document changed since it was read.
func (d *Document) Guard() string {
	h := sha256.New()
	for _, v := range append(d.Fields[:], d.ID) {
		h.Write(binary.LittleEndian.AppendUint32([]byte{byte(v.Kind)}, uint32(len(v.Data))))
		h.Write(v.Data)
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// Content returns the document as a dead letter stores it. why is the reason why it
// cannot become a row, or nil.
func (d *Document) Content(why *extjson.Refusal) (text, raw []byte) {
	lossy := why != nil && (why.Reason == "invalid_utf8" || why.Reason == "duplicate_key")
	return deadletter.Encode(d.Raw, lossy)
}

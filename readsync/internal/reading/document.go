// Package reading makes rows of readings: documents whose fields timestamp, source,
// event_type, payload and meta become the columns of the table.
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

// Numbers of the fields and their columns. The order is that of the digest.
const (
	Timestamp = iota
	Source
	EventType
	Payload
	Meta
	fields // how many there are
)

// Fields are the fields of a document that become columns.
var Fields = [fields]string{"timestamp", "source", "event_type", "payload", "meta"}

// ColumnNames are the table's columns beside mongo_id.
var ColumnNames = [fields]string{"event_timestamp", "source", "event_type", "payload", "meta"}

// Document is a document that was read.
type Document struct {
	Raw    bson.Raw
	ID     rawbson.Value // its _id
	Text   string        // of the _id, which is the mongo_id of its row
	Fields [fields]rawbson.Value
}

// Read finds the fields of a document, and refuses one that cannot be told apart from
// others. Also that one has its text, if it has an _id.
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

// field returns where a field's value belongs; nil, if it is not synced.
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

// checkID refuses an id whose text is too long, or would be that of another id.
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
		// {"$numberInt": "5"} can be an object, which older servers took for an _id.
		text, _ := extjson.AppendID(nil, id)
		if same, err := extjson.ParseID(string(text)); err != nil || !same.Equal(id) {
			return (&extjson.Refusal{Reason: "ambiguous_id"}).At("_id")
		}
	}
	return nil
}

// Guard is the digest of a document's id and of the fields that become columns, so
// that readsync mark can tell whether it is still the one that was read.
func (d *Document) Guard() string {
	h := sha256.New()
	for _, v := range append(d.Fields[:], d.ID) {
		h.Write(binary.LittleEndian.AppendUint32([]byte{byte(v.Kind)}, uint32(len(v.Data))))
		h.Write(v.Data)
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// Content returns the document as a dead letter has it, given why it cannot be a row
// or nil.
func (d *Document) Content(why *extjson.Refusal) (text, raw []byte) {
	lossy := why != nil && (why.Reason == "invalid_utf8" || why.Reason == "duplicate_key")
	return deadletter.Encode(d.Raw, lossy)
}

package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"

	"go.mongodb.org/mongo-driver/v2/bson"

	"observability-hub/readsync/internal/deadletter"
	"observability-hub/readsync/internal/extjson"
	"observability-hub/readsync/internal/rawbson"
)

// synced are the fields of a document that become columns. The order is that of the
// digest.
var synced = [...]string{"timestamp", "source", "event_type", "payload", "meta"}

const (
	atTimestamp = iota
	atSource
	atEventType
	atPayload
	atMeta
)

// document is a document that was read.
type document struct {
	raw    bson.Raw
	id     rawbson.Value // its _id
	text   string        // of the _id, which is the mongo_id of its row
	fields [len(synced)]rawbson.Value
}

// read finds the fields of a document, and refuses one that cannot be told apart from
// others. Also that one has its text, if it has an _id.
func (d *document) read(raw bson.Raw) *extjson.Refusal {
	d.raw = raw
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
	if !d.id.Missing() {
		text, err := extjson.AppendID(nil, d.id)
		if d.text = string(text); err != nil {
			ambiguous = extjson.AsRefusal(err)
		} else {
			ambiguous = checkID(d.id, len(text))
		}
	}
	switch {
	case !intact:
		return extjson.ErrCorrupt
	case d.id.Missing():
		return (&extjson.Refusal{Reason: "no_id"}).At("_id")
	case twice != "":
		return (&extjson.Refusal{Reason: "duplicate_key"}).At(twice)
	}
	return ambiguous
}

// field returns where a field's value belongs; nil, if it is not synced.
func (d *document) field(key []byte) *rawbson.Value {
	switch string(key) {
	case "_id":
		return &d.id
	case "timestamp":
		return &d.fields[atTimestamp]
	case "source":
		return &d.fields[atSource]
	case "event_type":
		return &d.fields[atEventType]
	case "payload":
		return &d.fields[atPayload]
	case "meta":
		return &d.fields[atMeta]
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

// guard is the digest of a document's id and of the fields that become columns, so
// that readsync mark can tell whether it is still the one that was read.
func (d *document) guard() string {
	h := sha256.New()
	for _, v := range append(d.fields[:], d.id) {
		h.Write(binary.LittleEndian.AppendUint32([]byte{byte(v.Kind)}, uint32(len(v.Data))))
		h.Write(v.Data)
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// content returns the document as a dead letter has it.
func (d *document) content(r *row) (text, raw []byte) {
	lossy := r.refused != nil && (r.refused.Reason == "invalid_utf8" || r.refused.Reason == "duplicate_key")
	return deadletter.Encode(d.raw, lossy)
}

// value returns the value that became a column.
func (d *document) value(_ *row, column int) (rawbson.Value, error) { return d.fields[column], nil }

// mayHoldNUL reports whether a column may hold a NUL character; an escaped backslash
// before u0000 counts as one, which costs no more than some bytes.
func (r *row) mayHoldNUL() bool {
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

package main

import (
	"bytes"
	"slices"

	"go.mongodb.org/mongo-driver/v2/bson"

	"observability-hub/readsync/internal/extjson"
	"observability-hub/readsync/internal/reading"
)

// otherForms return the other rows that the same document may have become: with the
// other values of --dates and --nul, or in a hub before this tool. The first version of
// that hub stored what encoding/json makes of a payload. The second version stored null
// for a payload that is not an object. A form returns nil if the document has no such
// row, or if the row was compared already.
var otherForms = []func(*row) *row{
	func(r *row) *row {
		return rewritten(r, extjson.Converter{Dialect: extjson.Stored, NUL: extjson.ReplaceNUL}, false)
	},
	func(r *row) *row {
		return rewritten(r, extjson.Converter{Dialect: extjson.Stored, NUL: extjson.ReplaceNUL, TextDates: true}, false)
	},
	func(r *row) *row { return rewritten(r, extjson.Converter{Dialect: extjson.Legacy}, false) },
	func(r *row) *row { return rewritten(r, extjson.Converter{Dialect: extjson.Legacy}, true) },
}

// rewritten returns the row that a converter makes of the same document. With
// objectsOnly, a payload or meta that is not an object becomes NULL.
func rewritten(r *row, c extjson.Converter, objectsOnly bool) *row {
	other := *r
	for i := range reading.ColumnNames {
		v, err := r.from.value(r, i)
		if err != nil {
			return nil
		}
		switch i {
		case reading.Source, reading.EventType:
			if c.Dialect == extjson.Legacy && v.Kind != bson.TypeString {
				other.columns[i] = nil // older hubs stored only strings
			}
		case reading.Payload, reading.Meta:
			switch {
			case v.IsNull():
				continue
			case objectsOnly && v.Kind != bson.TypeEmbeddedDocument:
				other.columns[i] = nil
				continue
			}
			text, err := c.Append(nil, v)
			if err != nil && c.Dialect != extjson.Legacy {
				return nil
			}
			if err != nil {
				text = nil // older hubs stored NULL for values that they could not marshal
			}
			if text != nil && extjson.CheckJSON(text, extjson.RejectNUL) != nil {
				return nil
			}
			other.columns[i] = text
		}
	}
	if slices.EqualFunc(other.columns[:], r.columns[:], bytes.Equal) {
		return nil // compared already
	}
	return &other
}

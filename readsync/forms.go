package main

import (
	"bytes"
	"slices"

	"go.mongodb.org/mongo-driver/v2/bson"

	"observability-hub/readsync/internal/extjson"
	"observability-hub/readsync/internal/reading"
)

// otherForms are the ways in which the same document may have become a row: with the
// other policy of --dates, and by the versions of the hub before this tool. Of the
// first of these, whatever encoding/json made of a payload; of the second, null for a
// payload that is no object. A form is nil if it is not known.
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

// rewritten returns a row as a converter writes its document.
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
				other.columns[i] = nil // older hubs took nothing but strings
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
				text = nil // they stored NULL for what they could not marshal
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

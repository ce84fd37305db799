// Package guard writes the command that sets the status of MongoDB documents. Each
// update matches its document only if the document is unchanged since it was read.
package guard

import (
	"slices"
	"strconv"

	"go.mongodb.org/mongo-driver/v2/bson"

	"observability-hub/readsync/internal/rawbson"
)

// Document has the _id of a document, and the values that its fields had when it was
// read. A missing value means that the field must still be missing.
type Document struct {
	ID     rawbson.Value
	Fields []rawbson.Value
}

// AppendUpdate appends the command {update: collection}, which sets the status of
// documents to the value to. The command updates a document only if its status is still
// from and its fields with those names are unchanged.
//
// The driver could write this command too, but it copies each filter three times.
func AppendUpdate(b []byte, collection string, names []string, documents []Document, from, to string) []byte {
	size := 256
	for _, d := range documents {
		size += 512
		for _, f := range d.Fields {
			size += len(f.Data)
		}
	}
	no, yes := rawbson.Bool(false), rawbson.Bool(true)
	set := rawbson.Document(document(func(b []byte) []byte {
		return rawbson.AppendElement(b, "$set", rawbson.Document(document(func(b []byte) []byte {
			return rawbson.AppendElement(b, "status", rawbson.String(to))
		})))
	}))
	majority := rawbson.Document(document(func(b []byte) []byte {
		return rawbson.AppendElement(b, "w", rawbson.String("majority"))
	}))
	status := rawbson.String(from)
	return rawbson.AppendDocument(slices.Grow(b, size), func(b []byte) []byte {
		b = rawbson.AppendElement(b, "update", rawbson.String(collection))
		b = rawbson.AppendElement(b, "ordered", no)
		b = rawbson.AppendElement(b, "writeConcern", majority)
		b = append(append(b, byte(bson.TypeArray)), "updates\x00"...)
		return rawbson.AppendDocument(b, func(b []byte) []byte {
			for i, d := range documents {
				b = append(strconv.AppendInt(append(b, byte(bson.TypeEmbeddedDocument)), int64(i), 10), 0)
				b = rawbson.AppendDocument(b, func(b []byte) []byte {
					b = append(append(b, byte(bson.TypeEmbeddedDocument)), "q\x00"...)
					b = rawbson.AppendDocument(b, func(b []byte) []byte {
						return AppendFilter(rawbson.AppendElement(b, "status", status), names, d)
					})
					b = rawbson.AppendElement(b, "u", set)
					// The _id matches at most one document. multi is set because some servers
					// are slow to update with multi: false.
					return rawbson.AppendElement(b, "multi", yes)
				})
			}
			return b
		})
	})
}

// AppendFilter appends the conditions that an unchanged document meets.
func AppendFilter(b []byte, names []string, d Document) []byte {
	// Use the plain form {_id: id} where it has the same meaning, because some servers do
	// not use the index for {$eq: id}.
	switch d.ID.Kind {
	case bson.TypeEmbeddedDocument, bson.TypeRegex, bson.TypeArray:
		b = appendOperator(b, "_id", "$eq", d.ID)
	default:
		b = rawbson.AppendElement(b, "_id", d.ID)
	}
	for i, name := range names {
		switch v := d.Fields[i]; v.Kind {
		case 0:
			b = appendOperator(b, name, "$exists", rawbson.Bool(false))
		case bson.TypeUndefined: // no server can compare with undefined
			b = appendOperator(b, name, "$type", rawbson.Value{Kind: bson.TypeInt32, Data: []byte{byte(bson.TypeUndefined), 0, 0, 0}})
		default:
			b = appendOperator(b, name, "$eq", v)
		}
	}
	return b
}

// appendOperator appends {name: {operator: v}}.
func appendOperator(b []byte, name, operator string, v rawbson.Value) []byte {
	b = append(append(append(b, byte(bson.TypeEmbeddedDocument)), name...), 0)
	return rawbson.AppendDocument(b, func(b []byte) []byte { return rawbson.AppendElement(b, operator, v) })
}

// document returns a document whose elements fill appends.
func document(fill func([]byte) []byte) []byte { return rawbson.AppendDocument(nil, fill) }

package extjson

import (
	"encoding/hex"
	"fmt"

	"go.mongodb.org/mongo-driver/v2/bson"

	"observability-hub/readsync/internal/rawbson"
)

// MaxID limits the bytes of mongo_id, because PostgreSQL limits the keys of a unique
// index to about 2,700 bytes.
const MaxID = 2600

// AppendID appends the text of an _id for the column mongo_id. The text of an ObjectID
// is its 24 hexadecimal digits, as in existing hubs. The text of any other type is its
// canonical Extended JSON, such as "x" or {"$numberInt":"5"}, which is never 24
// hexadecimal digits. An id that is not UTF-8, or that is an object with keys such as
// $numberInt, may have the text of another id. Package reading refuses such ids.
func AppendID(dst []byte, id rawbson.Value) ([]byte, error) {
	if id.Kind == bson.TypeObjectID {
		return hex.AppendEncode(dst, id.Data), nil
	}
	c := Converter{Dialect: Canonical}
	return c.Append(dst, id)
}

// ParseID returns the _id whose text AppendID writes.
func ParseID(text string) (rawbson.Value, error) {
	if len(text) == 24 {
		if b, err := hex.DecodeString(text); err == nil {
			return rawbson.Value{Kind: bson.TypeObjectID, Data: b}, nil
		}
	}
	err := CheckJSON([]byte(text), KeepNUL)
	var doc bson.Raw
	if err == nil {
		doc, err = Parse([]byte(`{"_id":` + text + `}`))
	}
	if err != nil {
		return rawbson.Value{}, fmt.Errorf("mongo_id %.100s: %w", text, err)
	}
	v := rawbson.Lookup(doc, "_id")
	if v.Missing() {
		return rawbson.Value{}, fmt.Errorf("mongo_id %.100s: not the text of an _id", text)
	}
	return v, nil
}

// Parse converts a document from Extended JSON, canonical or relaxed, to BSON.
func Parse(text []byte) (doc bson.Raw, err error) {
	var d bson.D
	if err := bson.UnmarshalExtJSON(text, false, &d); err != nil {
		return nil, fmt.Errorf("not Extended JSON: %w", err)
	}
	return bson.Marshal(d)
}

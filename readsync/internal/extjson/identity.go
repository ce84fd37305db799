package extjson

import (
	"encoding/hex"
	"fmt"

	"go.mongodb.org/mongo-driver/v2/bson"

	"observability-hub/readsync/internal/rawbson"
)

// MaxID bounds mongo_id: PostgreSQL's unique index takes no longer key.
const MaxID = 2600

// AppendID appends the text of an _id for the column mongo_id: of an ObjectID
// its 24 hexadecimal digits, as hubs always had it; of any other type the
// canonical Extended JSON, such as "x" or {"$numberInt":"5"}. None of the latter
// is 24 hexadecimal digits, so two ids never have the same text.
func AppendID(dst []byte, id rawbson.Value) ([]byte, error) {
	if id.Kind == bson.TypeObjectID {
		return hex.AppendEncode(dst, id.Data), nil
	}
	c := Converter{Dialect: Canonical}
	return c.Append(dst, id)
}

// ParseID is the reverse of AppendID.
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

// Parse makes BSON of a document in Extended JSON, canonical or not.
func Parse(text []byte) (doc bson.Raw, err error) {
	var d bson.D
	if err := bson.UnmarshalExtJSON(text, false, &d); err != nil {
		return nil, fmt.Errorf("not Extended JSON: %w", err)
	}
	return bson.Marshal(d)
}

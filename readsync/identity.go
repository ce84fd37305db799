package main

import (
	"encoding/hex"
	"fmt"

	"go.mongodb.org/mongo-driver/v2/bson"
)

// maxID bounds mongo_id: PostgreSQL's unique index takes no longer key.
const maxID = 2600

// appendID appends the text of an _id for the column mongo_id: of an ObjectID
// its 24 hexadecimal digits, as hubs always had it; of any other type the
// canonical Extended JSON, such as "x" or {"$numberInt":"5"}. None of the latter
// is 24 hexadecimal digits, so two ids never have the same text.
func appendID(dst []byte, id value) ([]byte, error) {
	if id.kind == bson.TypeObjectID {
		return hex.AppendEncode(dst, id.data), nil
	}
	c := converter{dialect: canonical}
	return c.append(dst, id)
}

// parseID is the reverse of appendID.
func parseID(text string) (value, error) {
	if len(text) == 24 {
		if b, err := hex.DecodeString(text); err == nil {
			return value{bson.TypeObjectID, b}, nil
		}
	}
	err := checkJSON([]byte(text), nulKeep)
	var doc bson.Raw
	if err == nil {
		doc, err = parseExtended([]byte(`{"_id":` + text + `}`))
	}
	if err != nil {
		return value{}, fmt.Errorf("mongo_id %.100s: %w", text, err)
	}
	v := lookup(doc, "_id")
	if v.missing() {
		return value{}, fmt.Errorf("mongo_id %.100s: not the text of an _id", text)
	}
	return v, nil
}

// parseExtended makes BSON of a document in Extended JSON, canonical or not.
func parseExtended(text []byte) (doc bson.Raw, err error) {
	var d bson.D
	if err := bson.UnmarshalExtJSON(text, false, &d); err != nil {
		return nil, fmt.Errorf("not Extended JSON: %w", err)
	}
	return bson.Marshal(d)
}

// lookup returns a field of a document; missing, if it is not there.
func lookup(doc []byte, name string) (found value) {
	elements(doc, func(key []byte, v value) bool {
		if string(key) == name {
			found = v
			return false
		}
		return true
	})
	return found
}

package mongowire

import (
	"go.mongodb.org/mongo-driver/v2/x/bsonx/bsoncore"
)

// typeNames are the names that $type accepts.
var typeNames = map[string]bsoncore.Type{
	"double": bsoncore.TypeDouble, "string": bsoncore.TypeString, "object": bsoncore.TypeEmbeddedDocument, "array": bsoncore.TypeArray,
	"binData": bsoncore.TypeBinary, "undefined": bsoncore.TypeUndefined, "objectId": bsoncore.TypeObjectID, "bool": bsoncore.TypeBoolean,
	"date": bsoncore.TypeDateTime, "null": bsoncore.TypeNull, "regex": bsoncore.TypeRegex, "dbPointer": bsoncore.TypeDBPointer,
	"javascript": bsoncore.TypeJavaScript, "symbol": bsoncore.TypeSymbol, "javascriptWithScope": bsoncore.TypeCodeWithScope,
	"int": bsoncore.TypeInt32, "timestamp": bsoncore.TypeTimestamp, "long": bsoncore.TypeInt64, "decimal": bsoncore.TypeDecimal128,
	"minKey": bsoncore.TypeMinKey, "maxKey": bsoncore.TypeMaxKey,
}

// parseTypes parses the operand of $type: a name, a number, or several of them.
func parseTypes(v bsoncore.Value) (map[bsoncore.Type]bool, error) {
	types := map[bsoncore.Type]bool{}
	all := []bsoncore.Value{v}
	if array, ok := v.ArrayOK(); ok {
		all = values(array)
	}
	for _, v := range all {
		if name, ok := v.StringValueOK(); ok && name == "number" {
			for _, n := range []string{"int", "long", "double", "decimal"} {
				types[typeNames[n]] = true
			}
		} else if ok && typeNames[name] != 0 {
			types[typeNames[name]] = true
		} else if n, isNumber := v.AsInt64OK(); isNumber && n >= -1 && n <= 127 && n != 0 {
			types[bsoncore.Type(n)] = true // -1 is MinKey's 0xFF
		} else {
			return nil, badValue("unknown type %s", v)
		}
	}
	return types, nil
}

package rawbson

import (
	"encoding/binary"
	"math"
	"slices"

	"go.mongodb.org/mongo-driver/v2/bson"
)

// typeOrder is the order in which MongoDB sorts values of different types. Types of one
// group are compared by value. $gt matches only values of the same group.
var typeOrder = [][]int32{
	{-1},            // MinKey
	{6},             // undefined
	{10},            // null
	{1, 16, 18, 19}, // numbers
	{2, 14},         // string, symbol
	{3},             // object
	{4},             // array
	{5},             // binary
	{7},             // ObjectID
	{8},             // boolean
	{9},             // date
	{17},            // timestamp
	{11},            // regular expression
	{12},            // DBPointer
	{13},            // code
	{15},            // code with scope
	{127},           // MaxKey
}

// commonTypes are the $type codes that every server accepts. FerretDB cannot store the
// other types and answers BadValue (2) or NotImplemented (238) to their codes.
var commonTypes = []int32{1, 2, 3, 4, 5, 7, 8, 9, 10, 11, 16, 17, 18}

// TypesAbove returns the $type codes of all types that sort after the group of kind.
// With commonOnly, it omits codes that some servers do not accept.
func TypesAbove(kind bson.Type, commonOnly bool) (types []int32) {
	found := false
	for _, group := range typeOrder {
		if found {
			types = append(types, group...)
		}
		for _, t := range group {
			found = found || byte(t) == byte(kind)
		}
	}
	if commonOnly {
		types = slices.DeleteFunc(types, func(t int32) bool { return !slices.Contains(commonTypes, t) })
	}
	return types
}

// IsNaN reports whether a value is NaN, as a double or a decimal.
func (v Value) IsNaN() bool {
	switch v.Kind {
	case bson.TypeDouble:
		return math.IsNaN(math.Float64frombits(binary.LittleEndian.Uint64(v.Data)))
	case bson.TypeDecimal128:
		return v.Decimal().IsNaN()
	}
	return false
}

// Comparable reports whether $gt matches the greater values of a value's type. For most
// other types only one value exists; no server accepts the rest of them as an _id.
func (v Value) Comparable() bool {
	switch v.Kind {
	case bson.TypeMinKey, bson.TypeMaxKey, bson.TypeNull, bson.TypeUndefined, bson.TypeRegex:
		return false
	}
	return true
}

package rawbson

import (
	"encoding/binary"
	"math"
	"slices"

	"go.mongodb.org/mongo-driver/v2/bson"
)

// typeOrder is MongoDB's order of values of different types: first those of the first
// group. $gt compares within a group only.
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

// commonTypes are the $type codes that every server knows. FerretDB answers
// BadValue (2) or NotImplemented (238) to the others, which it cannot store.
var commonTypes = []int32{1, 2, 3, 4, 5, 7, 8, 9, 10, 11, 16, 17, 18}

// TypesAbove returns the $type codes of all types that sort behind that of kind, or
// of those that every server knows.
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

// IsNaN reports whether a value is a number that is not one.
func (v Value) IsNaN() bool {
	switch v.Kind {
	case bson.TypeDouble:
		return math.IsNaN(math.Float64frombits(binary.LittleEndian.Uint64(v.Data)))
	case bson.TypeDecimal128:
		return v.Decimal().IsNaN()
	}
	return false
}

// Comparable reports whether $gt finds what comes behind a value within its
// type. Of the others there is at most one, except of those that no server takes
// for an _id.
func (v Value) Comparable() bool {
	switch v.Kind {
	case bson.TypeMinKey, bson.TypeMaxKey, bson.TypeNull, bson.TypeUndefined, bson.TypeRegex:
		return false
	}
	return true
}

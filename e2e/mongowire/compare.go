package mongowire

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"math"
	"math/big"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/x/bsonx/bsoncore"
)

// Ranks of types in MongoDB's comparison order. Types of one rank are compared by value: the four types of numbers, and strings and
// symbols. A missing field has the rank of undefined, which is next to null.
const (
	rankMinKey = iota
	rankMissing
	rankNull
	rankNumber
	rankString
	rankObject
	rankArray
	rankBinary
	rankObjectID
	rankBoolean
	rankDate
	rankTimestamp
	rankRegex
	rankDBPointer
	rankCode
	rankCodeWithScope
	rankMaxKey
)

// rank returns the rank of a value's type. The zero Value is a missing field.
func rank(v bsoncore.Value) int {
	switch v.Type {
	case bsoncore.TypeMinKey:
		return rankMinKey
	case 0, bsoncore.TypeUndefined:
		return rankMissing
	case bsoncore.TypeNull:
		return rankNull
	case bsoncore.TypeDouble, bsoncore.TypeInt32, bsoncore.TypeInt64, bsoncore.TypeDecimal128:
		return rankNumber
	case bsoncore.TypeString, bsoncore.TypeSymbol:
		return rankString
	case bsoncore.TypeEmbeddedDocument:
		return rankObject
	case bsoncore.TypeArray:
		return rankArray
	case bsoncore.TypeBinary:
		return rankBinary
	case bsoncore.TypeObjectID:
		return rankObjectID
	case bsoncore.TypeBoolean:
		return rankBoolean
	case bsoncore.TypeDateTime:
		return rankDate
	case bsoncore.TypeTimestamp:
		return rankTimestamp
	case bsoncore.TypeRegex:
		return rankRegex
	case bsoncore.TypeDBPointer:
		return rankDBPointer
	case bsoncore.TypeJavaScript:
		return rankCode
	case bsoncore.TypeCodeWithScope:
		return rankCodeWithScope
	default:
		return rankMaxKey
	}
}

// compare orders two values as a sort does: by type, then by value. NaN is less than all numbers and equal to itself.
func compare(a, b bsoncore.Value) int {
	ra, rb := rank(a), rank(b)
	if ra != rb {
		return cmp.Compare(ra, rb)
	}
	switch ra {
	case rankNumber:
		return compareNumbers(a, b)
	case rankString, rankCode:
		return bytes.Compare(text(a), text(b))
	case rankObject, rankArray:
		return compareDocuments(a.Data, b.Data, ra == rankObject)
	case rankBinary:
		return compareBinary(a, b)
	case rankObjectID, rankBoolean:
		return bytes.Compare(a.Data, b.Data)
	case rankDate:
		return cmp.Compare(int64(binary.LittleEndian.Uint64(a.Data)), int64(binary.LittleEndian.Uint64(b.Data)))
	case rankTimestamp:
		return cmp.Compare(binary.LittleEndian.Uint64(a.Data), binary.LittleEndian.Uint64(b.Data))
	case rankRegex, rankDBPointer:
		return bytes.Compare(a.Data, b.Data)
	case rankCodeWithScope:
		codeA, scopeA := a.CodeWithScope()
		codeB, scopeB := b.CodeWithScope()
		return cmp.Or(cmp.Compare(codeA, codeB), compareDocuments(scopeA, scopeB, true))
	}
	return 0 // null, MinKey and MaxKey have no value
}

// text returns the content of a string, symbol or code, without its length and its final NUL.
func text(v bsoncore.Value) []byte { return v.Data[4 : len(v.Data)-1] }

func compareDocuments(a, b bsoncore.Document, names bool) int {
	ra, rb := a[4:len(a)-1], b[4:len(b)-1]
	for len(ra) > 0 && len(rb) > 0 {
		ea, resta, oka := bsoncore.ReadElement(ra)
		eb, restb, okb := bsoncore.ReadElement(rb)
		if !oka || !okb {
			break
		}
		va, vb := ea.Value(), eb.Value()
		if c := cmp.Compare(rank(va), rank(vb)); c != 0 {
			return c
		}
		if names {
			if c := bytes.Compare(ea.KeyBytes(), eb.KeyBytes()); c != 0 {
				return c
			}
		}
		if c := compare(va, vb); c != 0 {
			return c
		}
		ra, rb = resta, restb
	}
	return cmp.Compare(len(ra), len(rb))
}

// compareBinary compares by length, then subtype, then content.
func compareBinary(a, b bsoncore.Value) int {
	subtypeA, bytesA := a.Binary()
	subtypeB, bytesB := b.Binary()
	return cmp.Or(cmp.Compare(len(bytesA), len(bytesB)), cmp.Compare(subtypeA, subtypeB), bytes.Compare(bytesA, bytesB))
}

func compareNumbers(a, b bsoncore.Value) int {
	if isNaN(a) || isNaN(b) {
		switch {
		case isNaN(a) && isNaN(b):
			return 0
		case isNaN(a):
			return -1
		default:
			return 1
		}
	}
	ia, wholeA := integer(a)
	ib, wholeB := integer(b)
	if wholeA && wholeB {
		return cmp.Compare(ia, ib)
	}
	if a.Type == bsoncore.TypeDouble && b.Type == bsoncore.TypeDouble {
		return cmp.Compare(a.Double(), b.Double())
	}
	if infA, infB := infinity(a), infinity(b); infA != 0 || infB != 0 {
		return cmp.Compare(infA, infB)
	}
	return rational(a).Cmp(rational(b))
}

func integer(v bsoncore.Value) (int64, bool) {
	switch v.Type {
	case bsoncore.TypeInt32:
		return int64(v.Int32()), true
	case bsoncore.TypeInt64:
		return v.Int64(), true
	}
	return 0, false
}

func decimal(v bsoncore.Value) bson.Decimal128 {
	high, low := v.Decimal128()
	return bson.NewDecimal128(high, low)
}

func isNaN(v bsoncore.Value) bool {
	switch v.Type {
	case bsoncore.TypeDouble:
		return math.IsNaN(v.Double())
	case bsoncore.TypeDecimal128:
		return decimal(v).IsNaN()
	}
	return false
}

// infinity returns 1 or -1 for an infinite number, otherwise 0.
func infinity(v bsoncore.Value) int {
	switch v.Type {
	case bsoncore.TypeDouble:
		switch {
		case math.IsInf(v.Double(), 1):
			return 1
		case math.IsInf(v.Double(), -1):
			return -1
		}
	case bsoncore.TypeDecimal128:
		return decimal(v).IsInf()
	}
	return 0
}

// rational returns the exact value of a finite number.
func rational(v bsoncore.Value) *big.Rat {
	switch v.Type {
	case bsoncore.TypeDouble:
		return new(big.Rat).SetFloat64(v.Double())
	case bsoncore.TypeDecimal128:
		digits, exponent, err := decimal(v).BigInt()
		if err != nil {
			return new(big.Rat)
		}
		power := new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(max(exponent, -exponent))), nil)
		if exponent < 0 {
			return new(big.Rat).SetFrac(digits, power)
		}
		return new(big.Rat).SetInt(digits.Mul(digits, power))
	}
	i, _ := integer(v)
	return new(big.Rat).SetInt64(i)
}

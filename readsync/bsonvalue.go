package main

import (
	"bytes"
	"encoding/binary"

	"go.mongodb.org/mongo-driver/v2/bson"
)

// value is one BSON value as it came over the wire. The zero value stands for
// a field that is missing.
type value struct {
	kind bson.Type
	data []byte
}

func (v value) missing() bool { return v.kind == 0 }

// isNull reports whether a field is missing, null or undefined: each of them is NULL
// in the table.
func (v value) isNull() bool {
	return v.missing() || v.kind == bson.TypeNull || v.kind == bson.TypeUndefined
}

// text returns a string value's text, which need not be UTF-8.
func (v value) text() []byte { return v.data[4 : len(v.data)-1] }

// elements calls visit for each element of a document or array. It returns
// false if the bytes are not BSON, or visit returned false.
func elements(doc []byte, visit func(key []byte, v value) bool) bool {
	if len(doc) < 5 || int(int32(binary.LittleEndian.Uint32(doc))) != len(doc) || doc[len(doc)-1] != 0 {
		return false
	}
	for b := doc[4 : len(doc)-1]; len(b) > 0; {
		kind := bson.Type(b[0])
		end := bytes.IndexByte(b[1:], 0)
		if end < 0 {
			return false
		}
		key, rest := b[1:1+end], b[2+end:]
		n := valueSize(kind, rest)
		if n < 0 {
			return false
		}
		if !visit(key, value{kind, rest[:n]}) {
			return false
		}
		b = rest[n:]
	}
	return true
}

// valueSize returns how many bytes a value at the start of b takes, or -1 if
// there is none. Lengths inside of documents are checked when those are read.
func valueSize(kind bson.Type, b []byte) int {
	n := -1
	switch kind {
	case bson.TypeNull, bson.TypeUndefined, bson.TypeMinKey, bson.TypeMaxKey:
		n = 0
	case bson.TypeBoolean:
		n = 1
	case bson.TypeInt32:
		n = 4
	case bson.TypeDouble, bson.TypeInt64, bson.TypeDateTime, bson.TypeTimestamp:
		n = 8
	case bson.TypeObjectID:
		n = 12
	case bson.TypeDecimal128:
		n = 16
	case bson.TypeString, bson.TypeJavaScript, bson.TypeSymbol:
		n = textSize(b)
	case bson.TypeDBPointer:
		if t := textSize(b); t > 0 {
			n = t + 12
		}
	case bson.TypeBinary:
		if l := length(b); l >= 0 && l < len(b) {
			n = 5 + l
		}
	case bson.TypeRegex:
		if i := bytes.IndexByte(b, 0); i >= 0 {
			if j := bytes.IndexByte(b[i+1:], 0); j >= 0 {
				n = i + j + 2
			}
		}
	case bson.TypeEmbeddedDocument, bson.TypeArray:
		if l := length(b); l >= 5 {
			n = l
		}
	case bson.TypeCodeWithScope:
		if l := length(b); l >= 14 {
			n = l
		}
	}
	if n > len(b) {
		return -1
	}
	return n
}

// length reads the int32 at the start of b.
func length(b []byte) int {
	if len(b) < 4 {
		return -1
	}
	return int(int32(binary.LittleEndian.Uint32(b)))
}

// textSize returns the size of a string: its length, its bytes and a NUL.
func textSize(b []byte) int {
	l := length(b)
	if l < 1 || l > len(b)-4 || b[3+l] != 0 {
		return -1
	}
	return 4 + l
}

// appendElement appends an element to a document under construction.
func appendElement(b []byte, name string, v value) []byte {
	b = append(b, byte(v.kind))
	b = append(b, name...)
	b = append(b, 0)
	return append(b, v.data...)
}

// appendDocument appends a document whose elements fill appends.
func appendDocument(b []byte, fill func([]byte) []byte) []byte {
	start := len(b)
	b = fill(append(b, 0, 0, 0, 0))
	b = append(b, 0)
	binary.LittleEndian.PutUint32(b[start:], uint32(len(b)-start))
	return b
}

// stringValue returns a string as a value.
func stringValue(s string) value {
	b := binary.LittleEndian.AppendUint32(nil, uint32(len(s)+1))
	return value{bson.TypeString, append(append(b, s...), 0)}
}

func decimal(v value) bson.Decimal128 {
	return bson.NewDecimal128(binary.LittleEndian.Uint64(v.data[8:]), binary.LittleEndian.Uint64(v.data))
}

// binaryParts splits a binary value. The old subtype 2 has a second length
// inside.
func binaryParts(b []byte) (subtype byte, data []byte, ok bool) {
	subtype, data = b[4], b[5:]
	if subtype == 2 {
		if length(data) != len(data)-4 {
			return 0, nil, false
		}
		data = data[4:]
	}
	return subtype, data, true
}

func regexParts(b []byte) (pattern, options []byte) {
	for i, c := range b {
		if c == 0 {
			return b[:i], b[i+1 : len(b)-1]
		}
	}
	return nil, nil
}

func scopedCode(b []byte) (code, scope []byte, ok bool) {
	n := textSize(b[4:])
	if n < 0 {
		return nil, nil, false
	}
	return b[8 : 4+n-1], b[4+n:], true
}

// Package rawbson reads and writes BSON in its wire format, without decoding it. Values
// are slices of the document's bytes. Lengths are checked before they are used, because
// BSON may be damaged.
package rawbson

import (
	"bytes"
	"encoding/binary"

	"go.mongodb.org/mongo-driver/v2/bson"
)

// Value is one BSON value in its wire format. The zero Value represents a missing field.
type Value struct {
	Kind bson.Type
	Data []byte
}

func (v Value) Missing() bool { return v.Kind == 0 }

// IsNull reports whether a field is missing, null or undefined. All of these are NULL in
// the table.
func (v Value) IsNull() bool {
	return v.Missing() || v.Kind == bson.TypeNull || v.Kind == bson.TypeUndefined
}

// Text returns the text of a string value. It may not be valid UTF-8.
func (v Value) Text() []byte { return v.Data[4 : len(v.Data)-1] }

// Elements calls visit for each element of a document or array. It stops and returns
// false if the bytes are not valid BSON, or if visit returns false.
func Elements(doc []byte, visit func(key []byte, v Value) bool) bool {
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
		if !visit(key, Value{kind, rest[:n]}) {
			return false
		}
		b = rest[n:]
	}
	return true
}

// valueSize returns the size in bytes of the value at the start of b, or -1 if b has no
// valid value. It does not check lengths inside documents; reading these documents does.
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

// length returns the int32 at the start of b, or -1 if b is too short.
func length(b []byte) int {
	if len(b) < 4 {
		return -1
	}
	return int(int32(binary.LittleEndian.Uint32(b)))
}

// textSize returns the size in bytes of a string with its length prefix and its final
// NUL, or -1 if b does not start with a valid string.
func textSize(b []byte) int {
	l := length(b)
	if l < 1 || l > len(b)-4 || b[3+l] != 0 {
		return -1
	}
	return 4 + l
}

// AppendElement appends an element to an unfinished document.
func AppendElement(b []byte, name string, v Value) []byte {
	b = append(b, byte(v.Kind))
	b = append(b, name...)
	b = append(b, 0)
	return append(b, v.Data...)
}

// AppendDocument appends a document. The function fill appends its elements.
func AppendDocument(b []byte, fill func([]byte) []byte) []byte {
	start := len(b)
	b = fill(append(b, 0, 0, 0, 0))
	b = append(b, 0)
	binary.LittleEndian.PutUint32(b[start:], uint32(len(b)-start))
	return b
}

// String returns a string as a value.
func String(s string) Value {
	b := binary.LittleEndian.AppendUint32(nil, uint32(len(s)+1))
	return Value{bson.TypeString, append(append(b, s...), 0)}
}

// Document returns the bytes of a document as a value.
func Document(doc []byte) Value { return Value{bson.TypeEmbeddedDocument, doc} }

// Lookup returns the first field with that name, or a missing value.
func Lookup(doc []byte, name string) (found Value) {
	Elements(doc, func(key []byte, v Value) bool {
		if string(key) == name {
			found = v
			return false
		}
		return true
	})
	return found
}

// Decimal returns the number of a decimal value.
func (v Value) Decimal() bson.Decimal128 {
	return bson.NewDecimal128(binary.LittleEndian.Uint64(v.Data[8:]), binary.LittleEndian.Uint64(v.Data))
}

// Binary splits a binary value. ok is false if the second length, which the old subtype
// 2 has, is wrong.
func (v Value) Binary() (subtype byte, data []byte, ok bool) {
	subtype, data = v.Data[4], v.Data[5:]
	if subtype == 2 {
		if length(data) != len(data)-4 {
			return 0, nil, false
		}
		data = data[4:]
	}
	return subtype, data, true
}

// Regex splits a regular expression.
func (v Value) Regex() (pattern, options []byte) {
	pattern, rest, _ := bytes.Cut(v.Data, []byte{0})
	return pattern, rest[:len(rest)-1]
}

// ScopedCode splits code with scope. ok is false if its lengths are wrong.
func (v Value) ScopedCode() (code, scope []byte, ok bool) {
	n := textSize(v.Data[4:])
	if n < 0 {
		return nil, nil, false
	}
	return v.Data[8 : 4+n-1], v.Data[4+n:], true
}

// Bool returns a boolean as a value.
func Bool(b bool) Value {
	if b {
		return Value{bson.TypeBoolean, []byte{1}}
	}
	return Value{bson.TypeBoolean, []byte{0}}
}

// Equal reports whether two values have the same type and the same bytes.
func (v Value) Equal(w Value) bool { return v.Kind == w.Kind && bytes.Equal(v.Data, w.Data) }

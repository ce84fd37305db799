// Package rawbson reads and writes BSON as it comes over the wire, without
// decoding it: values are slices of the bytes that hold them, and damaged bytes
// are found, not trusted.
package rawbson

import (
	"bytes"
	"encoding/binary"

	"go.mongodb.org/mongo-driver/v2/bson"
)

// Value is one BSON value as it came over the wire. The zero Value stands for
// a field that is missing.
type Value struct {
	Kind bson.Type
	Data []byte
}

func (v Value) Missing() bool { return v.Kind == 0 }

// IsNull reports whether a field is missing, null or undefined: each of them is NULL
// in the table.
func (v Value) IsNull() bool {
	return v.Missing() || v.Kind == bson.TypeNull || v.Kind == bson.TypeUndefined
}

// Text returns a string value's text, which need not be UTF-8.
func (v Value) Text() []byte { return v.Data[4 : len(v.Data)-1] }

// Elements calls visit for each element of a document or array. It returns
// false if the bytes are not BSON, or visit returned false.
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

// AppendElement appends an element to a document under construction.
func AppendElement(b []byte, name string, v Value) []byte {
	b = append(b, byte(v.Kind))
	b = append(b, name...)
	b = append(b, 0)
	return append(b, v.Data...)
}

// AppendDocument appends a document whose elements fill appends.
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

// Lookup returns the first field of that name; Missing, if there is none.
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

// Decimal returns a decimal value's number.
func (v Value) Decimal() bson.Decimal128 {
	return bson.NewDecimal128(binary.LittleEndian.Uint64(v.Data[8:]), binary.LittleEndian.Uint64(v.Data))
}

// Binary splits a binary value. The old subtype 2 has a second length inside,
// which may be wrong.
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

// ScopedCode splits code with a scope, whose lengths may be wrong.
func (v Value) ScopedCode() (code, scope []byte, ok bool) {
	n := textSize(v.Data[4:])
	if n < 0 {
		return nil, nil, false
	}
	return v.Data[8 : 4+n-1], v.Data[4+n:], true
}

// Bool returns a truth value.
func Bool(b bool) Value {
	if b {
		return Value{bson.TypeBoolean, []byte{1}}
	}
	return Value{bson.TypeBoolean, []byte{0}}
}

// Equal reports whether two values have the same type and the same bytes.
func (v Value) Equal(w Value) bool { return v.Kind == w.Kind && bytes.Equal(v.Data, w.Data) }

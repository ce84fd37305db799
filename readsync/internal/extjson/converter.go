// Package extjson writes BSON as JSON in three dialects. [Converter] writes a value,
// [Parse] reads a document back, [CheckJSON] checks JSON that other programs wrote, and
// [AppendID] writes the text of an _id. The error for a value that PostgreSQL cannot
// store is a [Refusal].
package extjson

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"math"
	"strconv"
	"time"
	"unicode/utf8"

	"go.mongodb.org/mongo-driver/v2/bson"

	"observability-hub/readsync/internal/rawbson"
)

// Dialect is a way to write BSON as JSON.
type Dialect int

const (
	// Canonical Extended JSON preserves every value and type. Dead letters and ids use
	// it.
	Canonical Dialect = iota
	// Stored is the dialect of jsonb columns: relaxed Extended JSON, except that numbers
	// that jsonb or a reader with 64-bit floats would change are canonical.
	Stored
	// Legacy is the output of encoding/json in the hubs before this tool: ids and times
	// are plain text.
	Legacy
)

// NULPolicy says how to treat a NUL character, which jsonb cannot store.
type NULPolicy int

const (
	KeepNUL NULPolicy = iota
	RejectNUL
	ReplaceNUL // by U+FFFD
)

// MaxDepth limits nesting. MongoDB stores at most 100 levels. With several thousand
// levels PostgreSQL's parser exceeds its stack.
const MaxDepth = 1000

// maxExact is the largest number up to which a 64-bit float represents every integer.
const maxExact = 1 << 53

// Converter writes BSON values as JSON.
type Converter struct {
	Dialect   Dialect
	TextDates bool // in Stored, write dates and ObjectIDs as plain text, as in Legacy
	NUL       NULPolicy
	keys      seenNames
}

// Append appends v as JSON. The error is a *Refusal.
func (c *Converter) Append(dst []byte, v rawbson.Value) ([]byte, error) {
	c.keys.reset()
	return c.value(dst, v, 0)
}

func (c *Converter) value(dst []byte, v rawbson.Value, depth int) ([]byte, error) {
	switch v.Kind {
	case bson.TypeEmbeddedDocument:
		return c.object(dst, v.Data, depth+1)
	case bson.TypeArray:
		return c.array(dst, v.Data, depth+1)
	case bson.TypeString:
		return c.text(dst, v.Text())
	case bson.TypeInt32:
		n := int64(int32(binary.LittleEndian.Uint32(v.Data)))
		if c.Dialect == Canonical {
			return append(strconv.AppendInt(append(dst, `{"$numberInt":"`...), n, 10), `"}`...), nil
		}
		return strconv.AppendInt(dst, n, 10), nil
	case bson.TypeInt64:
		n := int64(binary.LittleEndian.Uint64(v.Data))
		if c.Dialect == Canonical || c.Dialect == Stored && (n > maxExact || n < -maxExact) {
			return append(strconv.AppendInt(append(dst, `{"$numberLong":"`...), n, 10), `"}`...), nil
		}
		return strconv.AppendInt(dst, n, 10), nil
	case bson.TypeDouble:
		return c.double(dst, math.Float64frombits(binary.LittleEndian.Uint64(v.Data)))
	case bson.TypeBoolean:
		return strconv.AppendBool(dst, v.Data[0] != 0), nil
	case bson.TypeNull:
		return append(dst, "null"...), nil
	}
	if c.Dialect == Legacy {
		return c.legacyValue(dst, v, depth)
	}
	if c.TextDates && (v.Kind == bson.TypeDateTime || v.Kind == bson.TypeObjectID) {
		if text, err := c.legacyValue(dst, v, depth); err == nil { // fails for years that RFC 3339 cannot represent
			return text, nil
		}
	}
	return c.extended(dst, v, depth)
}

// extended writes the types that JSON does not have.
func (c *Converter) extended(dst []byte, v rawbson.Value, depth int) (_ []byte, err error) {
	switch v.Kind {
	case bson.TypeObjectID:
		return append(hex.AppendEncode(append(dst, `{"$oid":"`...), v.Data), `"}`...), nil
	case bson.TypeDateTime:
		ms := int64(binary.LittleEndian.Uint64(v.Data))
		if t := time.UnixMilli(ms).UTC(); c.Dialect == Stored && ms >= 0 && t.Year() <= 9999 {
			return append(t.AppendFormat(append(dst, `{"$date":"`...), time.RFC3339Nano), `"}`...), nil
		}
		return append(strconv.AppendInt(append(dst, `{"$date":{"$numberLong":"`...), ms, 10), `"}}`...), nil
	case bson.TypeDecimal128:
		return append(append(append(dst, `{"$numberDecimal":"`...), v.Decimal().String()...), `"}`...), nil
	case bson.TypeBinary:
		subtype, data, ok := v.Binary()
		if !ok {
			return dst, ErrCorrupt
		}
		dst = base64.StdEncoding.AppendEncode(append(dst, `{"$binary":{"base64":"`...), data)
		dst = hex.AppendEncode(append(dst, `","subType":"`...), []byte{subtype})
		return append(dst, `"}}`...), nil
	case bson.TypeRegex:
		pattern, options := v.Regex()
		if dst, err = c.text(append(dst, `{"$regularExpression":{"pattern":`...), pattern); err != nil {
			return dst, err
		}
		if dst, err = c.text(append(dst, `,"options":`...), options); err != nil {
			return dst, err
		}
		return append(dst, "}}"...), nil
	case bson.TypeTimestamp:
		t := binary.LittleEndian.Uint64(v.Data)
		dst = strconv.AppendUint(append(dst, `{"$timestamp":{"t":`...), t>>32, 10)
		return append(strconv.AppendUint(append(dst, `,"i":`...), t&math.MaxUint32, 10), "}}"...), nil
	case bson.TypeSymbol:
		dst, err = c.text(append(dst, `{"$symbol":`...), v.Text())
		return append(dst, '}'), err
	case bson.TypeJavaScript:
		dst, err = c.text(append(dst, `{"$code":`...), v.Text())
		return append(dst, '}'), err
	case bson.TypeCodeWithScope:
		code, scope, ok := v.ScopedCode()
		if !ok {
			return dst, ErrCorrupt
		}
		if dst, err = c.text(append(dst, `{"$code":`...), code); err != nil {
			return dst, err
		}
		dst, err = c.object(append(dst, `,"$scope":`...), scope, depth+1)
		return append(dst, '}'), err
	case bson.TypeDBPointer:
		n := len(v.Data) - 12
		if dst, err = c.text(append(dst, `{"$dbPointer":{"$ref":`...), v.Data[4:n-1]); err != nil {
			return dst, err
		}
		return append(hex.AppendEncode(append(dst, `,"$id":{"$oid":"`...), v.Data[n:]), `"}}}`...), nil
	case bson.TypeUndefined:
		return append(dst, `{"$undefined":true}`...), nil
	case bson.TypeMinKey:
		return append(dst, `{"$minKey":1}`...), nil
	case bson.TypeMaxKey:
		return append(dst, `{"$maxKey":1}`...), nil
	}
	return dst, ErrCorrupt
}

func (c *Converter) object(dst, doc []byte, depth int) ([]byte, error) {
	if depth > MaxDepth {
		return dst, &Refusal{Reason: "too_deep"}
	}
	dst = append(dst, '{')
	first, frame := true, c.keys.open()
	var failed error
	ok := rawbson.Elements(doc, func(key []byte, v rawbson.Value) bool {
		if !first {
			dst = append(dst, ',')
		}
		first = false
		if c.Dialect == Stored && !c.keys.add(frame, key) {
			failed = (&Refusal{Reason: "duplicate_key"}).At(string(key))
			return false
		}
		if dst, failed = c.text(dst, key); failed != nil {
			return false
		}
		dst = append(dst, ':')
		if dst, failed = c.value(dst, v, depth); failed != nil {
			if r, ok := failed.(*Refusal); ok {
				failed = r.At(string(key))
			}
			return false
		}
		return true
	})
	c.keys.close(frame)
	switch {
	case failed != nil:
		return dst, failed
	case !ok:
		return dst, ErrCorrupt
	}
	return append(dst, '}'), nil
}

func (c *Converter) array(dst, doc []byte, depth int) ([]byte, error) {
	if depth > MaxDepth {
		return dst, &Refusal{Reason: "too_deep"}
	}
	dst = append(dst, '[')
	index := 0
	var failed error
	ok := rawbson.Elements(doc, func(_ []byte, v rawbson.Value) bool {
		if index > 0 {
			dst = append(dst, ',')
		}
		if dst, failed = c.value(dst, v, depth); failed != nil {
			if r, ok := failed.(*Refusal); ok {
				failed = r.At(strconv.Itoa(index))
			}
			return false
		}
		index++
		return true
	})
	switch {
	case failed != nil:
		return dst, failed
	case !ok:
		return dst, ErrCorrupt
	}
	return append(dst, ']'), nil
}

// double writes a float with a decimal point or an exponent, which distinguish it from
// an integer. The text is parsed as the same float.
func (c *Converter) double(dst []byte, f float64) ([]byte, error) {
	special := math.IsNaN(f) || math.IsInf(f, 0)
	size := math.Abs(f)
	if c.Dialect == Legacy {
		if special {
			return dst, errNotLegacy
		}
		return strconv.AppendFloat(dst, f, 'g', -1, 64), nil
	}
	if c.Dialect == Stored && !special && size < 1e21 && (f != 0 || !math.Signbit(f)) {
		if size != 0 && size < 1e-6 {
			return strconv.AppendFloat(dst, f, 'e', -1, 64), nil
		}
		start := len(dst)
		dst = strconv.AppendFloat(dst, f, 'f', -1, 64)
		return appendPoint(dst, start), nil
	}
	dst = append(dst, `{"$numberDouble":"`...)
	switch {
	case math.IsInf(f, 1):
		dst = append(dst, "Infinity"...)
	case math.IsInf(f, -1):
		dst = append(dst, "-Infinity"...)
	case math.IsNaN(f):
		dst = append(dst, "NaN"...)
	default:
		start := len(dst)
		dst = appendPoint(strconv.AppendFloat(dst, f, 'G', -1, 64), start)
	}
	return append(dst, `"}`...), nil
}

// appendPoint appends .0 if the number that begins at start has neither a decimal point
// nor an exponent.
func appendPoint(dst []byte, start int) []byte {
	for _, c := range dst[start:] {
		if c == '.' || c == 'E' {
			return dst
		}
	}
	return append(dst, ".0"...)
}

// plain returns the number of bytes at the start of s that need no escape in a JSON
// string. It checks eight bytes at a time, because most texts need no escapes.
func plain(s []byte) (n int) {
	const ones, high = 0x0101010101010101, 0x8080808080808080
	for ; len(s)-n >= 8; n += 8 {
		x := binary.LittleEndian.Uint64(s[n:])
		quote, backslash := x^ones*'"', x^ones*'\\'
		// A borrow may set bit 7 of a byte falsely. That only ends this loop early.
		if (x|(x-ones*' ')|(quote-ones)|(backslash-ones))&high != 0 {
			break
		}
	}
	for n < len(s) && s[n] >= ' ' && s[n] != '"' && s[n] != '\\' && s[n] < utf8.RuneSelf {
		n++
	}
	return n
}

// text appends s as a JSON string.
func (c *Converter) text(dst, s []byte) ([]byte, error) {
	const digits = "0123456789abcdef"
	dst = append(dst, '"')
	start := 0
	for i := 0; i < len(s); {
		if i += plain(s[i:]); i == len(s) {
			break
		}
		b := s[i]
		if b >= utf8.RuneSelf {
			r, size := utf8.DecodeRune(s[i:])
			if r == utf8.RuneError && size == 1 {
				if c.Dialect == Stored {
					return dst, &Refusal{Reason: "invalid_utf8"}
				}
				dst = append(append(dst, s[start:i]...), `\ufffd`...)
				start = i + 1
			}
			i += size
			continue
		}
		dst = append(dst, s[start:i]...)
		switch {
		case b == '"' || b == '\\':
			dst = append(dst, '\\', b)
		case b == '\n':
			dst = append(dst, '\\', 'n')
		case b == '\t':
			dst = append(dst, '\\', 't')
		case b == '\r':
			dst = append(dst, '\\', 'r')
		case b == 0 && c.NUL == RejectNUL:
			return dst, &Refusal{Reason: "nul"}
		case b == 0 && c.NUL == ReplaceNUL:
			dst = append(dst, "\ufffd"...) // not as an escape, which a SQL_ASCII database rejects
		default:
			dst = append(dst, '\\', 'u', '0', '0', digits[b>>4], digits[b&15])
		}
		i++
		start = i
	}
	return append(append(dst, s[start:]...), '"'), nil
}

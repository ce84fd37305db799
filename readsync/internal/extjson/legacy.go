package extjson

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"math"
	"strconv"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"observability-hub/readsync/internal/rawbson"
)

// errNotLegacy is the error of a value that the old hubs could not store.
var errNotLegacy = errors.New("encoding/json cannot write this value")

// legacyValue writes a value as encoding/json writes the driver's Go type.
func (c *Converter) legacyValue(dst []byte, v rawbson.Value, depth int) (_ []byte, err error) {
	switch v.Kind {
	case bson.TypeObjectID:
		return append(hex.AppendEncode(append(dst, '"'), v.Data), '"'), nil
	case bson.TypeDateTime:
		t := time.UnixMilli(int64(binary.LittleEndian.Uint64(v.Data))).UTC()
		if y := t.Year(); y < 0 || y > 9999 {
			return dst, errNotLegacy
		}
		return append(t.AppendFormat(append(dst, '"'), time.RFC3339Nano), '"'), nil
	case bson.TypeDecimal128:
		return append(append(append(dst, '"'), v.Decimal().String()...), '"'), nil
	case bson.TypeSymbol, bson.TypeJavaScript:
		return c.text(dst, v.Text())
	case bson.TypeBinary:
		subtype, data, ok := v.Binary()
		if !ok {
			return dst, ErrCorrupt
		}
		dst = strconv.AppendUint(append(dst, `{"Subtype":`...), uint64(subtype), 10)
		return append(base64.StdEncoding.AppendEncode(append(dst, `,"Data":"`...), data), `"}`...), nil
	case bson.TypeRegex:
		pattern, options := v.Regex()
		dst, _ = c.text(append(dst, `{"Pattern":`...), pattern)
		dst, err = c.text(append(dst, `,"Options":`...), options)
		return append(dst, '}'), err
	case bson.TypeTimestamp:
		t := binary.LittleEndian.Uint64(v.Data)
		dst = strconv.AppendUint(append(dst, `{"T":`...), t>>32, 10)
		return append(strconv.AppendUint(append(dst, `,"I":`...), t&math.MaxUint32, 10), '}'), nil
	case bson.TypeCodeWithScope:
		code, scope, ok := v.ScopedCode()
		if !ok {
			return dst, ErrCorrupt
		}
		dst, _ = c.text(append(dst, `{"Code":`...), code)
		dst, err = c.object(append(dst, `,"Scope":`...), scope, depth+1)
		return append(dst, '}'), err
	case bson.TypeDBPointer:
		n := len(v.Data) - 12
		dst, _ = c.text(append(dst, `{"DB":`...), v.Data[4:n-1])
		return append(hex.AppendEncode(append(dst, `,"Pointer":"`...), v.Data[n:]), `"}`...), nil
	case bson.TypeUndefined, bson.TypeMinKey, bson.TypeMaxKey:
		return append(dst, "{}"...), nil
	}
	return dst, ErrCorrupt
}

package extjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// CheckText returns the text for a text column, with NUL characters replaced if the
// policy is ReplaceNUL. It returns a refusal if PostgreSQL cannot store the text.
func CheckText(s []byte, nul NULPolicy) ([]byte, error) {
	if !utf8.Valid(s) {
		return nil, &Refusal{Reason: "invalid_utf8"}
	}
	switch {
	case nul == KeepNUL || bytes.IndexByte(s, 0) < 0:
		return s, nil
	case nul == ReplaceNUL:
		return bytes.ReplaceAll(s, []byte{0}, []byte("\ufffd")), nil
	}
	return nil, &Refusal{Reason: "nul"}
}

// jsonText parses JSON. If strict is set, it returns a refusal for values that jsonb
// would reject or change.
type jsonText struct {
	b      []byte
	i      int
	strict bool
	nul    NULPolicy // for \u0000, if strict is set
	keys   seenNames
}

var errSyntax = errors.New("not JSON")

// Fields calls visit for each field of the JSON object b.
func Fields(b []byte, visit func(key string, value []byte) error) error {
	s := &jsonText{b: b}
	s.space()
	if !s.next('{') {
		return errSyntax
	}
	frame := s.keys.open()
	for first := true; ; first = false {
		s.space()
		if first && s.next('}') {
			break
		}
		raw, err := s.str()
		if err != nil {
			return err
		}
		key, err := unquote(raw)
		if err != nil {
			return err
		}
		if !s.keys.add(frame, []byte(key)) {
			return errors.New("the key " + strconv.Quote(key) + " occurs twice")
		}
		s.space()
		if !s.next(':') {
			return errSyntax
		}
		s.space()
		start := s.i
		if err := s.value(1); err != nil {
			return err
		}
		if err := visit(key, s.b[start:s.i]); err != nil {
			return err
		}
		s.space()
		if s.next('}') {
			break
		}
		if !s.next(',') {
			return errSyntax
		}
	}
	s.space()
	if s.i != len(s.b) {
		return errSyntax
	}
	return nil
}

// CheckJSON returns a refusal if jsonb would reject or change the JSON.
func CheckJSON(b []byte, nul NULPolicy) error {
	s := &jsonText{b: b, strict: true, nul: nul}
	if err := s.value(0); err != nil {
		return AsRefusal(err)
	}
	if s.i != len(b) {
		return AsRefusal(errSyntax)
	}
	return nil
}

// Unescape replaces the escapes of characters beyond ASCII by those characters, and the
// escape of NUL by U+FFFD. CheckJSON must have accepted b. jq -a writes such escapes, and
// a database whose encoding is SQL_ASCII rejects them.
func Unescape(b []byte) []byte {
	out := b[:0]
	for {
		i := bytes.IndexByte(b, '\\')
		if i < 0 {
			return append(out, b...)
		}
		out, b = append(out, b[:i]...), b[i:]
		size := 2
		if b[1] == 'u' {
			size = len(`\u0000`)
			s := jsonText{b: b}
			unit, _ := s.unit(0)
			r := rune(unit)
			if low, ok := s.unit(size); ok && utf16.IsSurrogate(r) {
				r, size = utf16.DecodeRune(r, rune(low)), 2*size
			}
			if r == 0 {
				r = utf8.RuneError
			}
			if r >= utf8.RuneSelf {
				out, b = utf8.AppendRune(out, r), b[size:]
				continue
			}
		}
		out, b = append(out, b[:size]...), b[size:]
	}
}

func unquote(raw []byte) (string, error) {
	if bytes.IndexByte(raw, '\\') < 0 {
		return string(raw[1 : len(raw)-1]), nil
	}
	var s string
	err := json.Unmarshal(raw, &s)
	return s, err
}

func (s *jsonText) space() {
	for s.i < len(s.b) && (s.b[s.i] == ' ' || s.b[s.i] == '\t' || s.b[s.i] == '\r' || s.b[s.i] == '\n') {
		s.i++
	}
}

func (s *jsonText) next(c byte) bool {
	if s.i < len(s.b) && s.b[s.i] == c {
		s.i++
		return true
	}
	return false
}

func (s *jsonText) value(depth int) error {
	if depth > MaxDepth {
		return &Refusal{Reason: "too_deep"}
	}
	if s.i >= len(s.b) {
		return errSyntax
	}
	switch c := s.b[s.i]; {
	case c == '{':
		return s.object(depth)
	case c == '[':
		return s.array(depth)
	case c == '"':
		_, err := s.str()
		return err
	case c == '-' || c >= '0' && c <= '9':
		return s.number()
	}
	for _, word := range []string{"null", "true", "false"} {
		if bytes.HasPrefix(s.b[s.i:], []byte(word)) {
			s.i += len(word)
			return nil
		}
	}
	return errSyntax
}

func (s *jsonText) object(depth int) error {
	s.i++
	frame := s.keys.open()
	defer s.keys.close(frame)
	for first := true; ; first = false {
		s.space()
		if first && s.next('}') {
			return nil
		}
		raw, err := s.str()
		if err != nil {
			return err
		}
		if s.strict {
			key := raw[1 : len(raw)-1]
			if bytes.IndexByte(key, '\\') >= 0 {
				text, err := unquote(raw)
				if err != nil {
					return err
				}
				key = []byte(text)
			}
			if !s.keys.add(frame, key) {
				return (&Refusal{Reason: "duplicate_key"}).At(string(key))
			}
		}
		s.space()
		if !s.next(':') {
			return errSyntax
		}
		s.space()
		if err := s.value(depth + 1); err != nil {
			return within(err, raw)
		}
		s.space()
		if s.next('}') {
			return nil
		}
		if !s.next(',') {
			return errSyntax
		}
	}
}

func within(err error, rawKey []byte) error {
	if r, ok := err.(*Refusal); ok {
		return r.At(string(rawKey[1 : len(rawKey)-1]))
	}
	return err
}

func (s *jsonText) array(depth int) error {
	s.i++
	for index := 0; ; index++ {
		s.space()
		if index == 0 && s.next(']') {
			return nil
		}
		if err := s.value(depth + 1); err != nil {
			if r, ok := err.(*Refusal); ok {
				return r.At(strconv.Itoa(index))
			}
			return err
		}
		s.space()
		if s.next(']') {
			return nil
		}
		if !s.next(',') {
			return errSyntax
		}
	}
}

// str parses a string and returns it with its quotes.
func (s *jsonText) str() ([]byte, error) {
	if !s.next('"') {
		return nil, errSyntax
	}
	start := s.i - 1
	for s.i < len(s.b) {
		switch c := s.b[s.i]; {
		case c == '"':
			s.i++
			raw := s.b[start:s.i]
			if !utf8.Valid(raw) {
				return nil, &Refusal{Reason: "invalid_utf8"}
			}
			return raw, nil
		case c < ' ':
			return nil, errSyntax
		case c == '\\':
			if err := s.escape(); err != nil {
				return nil, err
			}
		default:
			s.i++
		}
	}
	return nil, errSyntax
}

func (s *jsonText) escape() error {
	if s.i+1 >= len(s.b) {
		return errSyntax
	}
	if s.b[s.i+1] != 'u' {
		if bytes.IndexByte([]byte(`"\/bfnrt`), s.b[s.i+1]) < 0 {
			return errSyntax
		}
		s.i += 2
		return nil
	}
	unit, ok := s.unit(s.i)
	if !ok {
		return errSyntax
	}
	s.i += 6
	if !s.strict {
		return nil
	}
	switch {
	case unit == 0 && s.nul == RejectNUL:
		return &Refusal{Reason: "nul"}
	case unit >= 0xdc00 && unit <= 0xdfff:
		return &Refusal{Reason: "invalid_utf8"}
	case unit >= 0xd800 && unit <= 0xdbff:
		low, ok := s.unit(s.i)
		if !ok || low < 0xdc00 || low > 0xdfff {
			return &Refusal{Reason: "invalid_utf8"}
		}
		s.i += 6
	}
	return nil
}

// unit parses \uXXXX at i.
func (s *jsonText) unit(i int) (uint64, bool) {
	if i+6 > len(s.b) || s.b[i] != '\\' || s.b[i+1] != 'u' {
		return 0, false
	}
	n, err := strconv.ParseUint(string(s.b[i+2:i+6]), 16, 16)
	return n, err == nil
}

// number parses a number. jsonb stores at most 131,072 digits before the point and
// 16,383 after it.
func (s *jsonText) number() error {
	s.next('-')
	whole := s.digits()
	if whole == 0 || whole > 1 && s.b[s.i-whole] == '0' {
		return errSyntax
	}
	fraction := 0
	if s.next('.') {
		if fraction = s.digits(); fraction == 0 {
			return errSyntax
		}
	}
	exponent := 0
	if s.next('e') || s.next('E') {
		from := s.i
		if !s.next('+') {
			s.next('-')
		}
		if s.digits() == 0 {
			return errSyntax
		}
		n, err := strconv.Atoi(string(bytes.TrimPrefix(s.b[from:s.i], []byte("+"))))
		if err != nil {
			n = 1 << 20
		}
		exponent = n
	}
	if s.strict && (whole+exponent > 131072 || fraction-exponent > 16383) {
		return &Refusal{Reason: "number_out_of_range"}
	}
	return nil
}

func (s *jsonText) digits() int {
	from := s.i
	for s.i < len(s.b) && s.b[s.i] >= '0' && s.b[s.i] <= '9' {
		s.i++
	}
	return s.i - from
}

// String decodes a JSON string.
func String(raw []byte) (string, error) {
	if len(raw) < 2 || raw[0] != '"' {
		return "", errors.New("not a string")
	}
	return unquote(raw)
}

// HalfSurrogate reports whether a JSON string contains half a surrogate pair, which
// decoders replace silently.
func HalfSurrogate(raw []byte) bool {
	s := &jsonText{b: raw, strict: true}
	_, err := s.str()
	return err != nil
}

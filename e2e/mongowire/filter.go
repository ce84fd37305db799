package mongowire

import (
	"bytes"
	"fmt"
	"strings"

	"go.mongodb.org/mongo-driver/v2/x/bsonx/bsoncore"
)

// matcher reports whether a document matches.
type matcher func(bsoncore.Document) bool

// predicate reports whether a value matches. The zero Value is a missing field.
type predicate func(bsoncore.Value) bool

// parseFilter returns the matcher of a filter document.
func parseFilter(filter bsoncore.Document) (matcher, error) {
	var all []matcher
	for e := range elements(filter) {
		m, err := parseClause(e.Key(), e.Value())
		if err != nil {
			return nil, err
		}
		all = append(all, m)
	}
	if len(all) == 1 {
		return all[0], nil
	}
	return every(all), nil
}

func every(all []matcher) matcher {
	return func(doc bsoncore.Document) bool {
		for _, m := range all {
			if !m(doc) {
				return false
			}
		}
		return true
	}
}

func parseClause(name string, v bsoncore.Value) (matcher, error) {
	switch name {
	case "$and", "$or", "$nor":
		var all []matcher
		array, ok := v.ArrayOK()
		if !ok {
			return nil, badValue("%s must be an array", name)
		}
		for e := range elements(bsoncore.Document(array)) {
			doc, ok := e.Value().DocumentOK()
			if !ok {
				return nil, badValue("%s argument's entries must be objects", name)
			}
			m, err := parseFilter(doc)
			if err != nil {
				return nil, err
			}
			all = append(all, m)
		}
		if len(all) == 0 {
			return nil, badValue("%s must be a nonempty array", name)
		}
		switch name {
		case "$and":
			return every(all), nil
		case "$or":
			return some(all), nil
		default:
			or := some(all)
			return func(doc bsoncore.Document) bool { return !or(doc) }, nil
		}
	case "$expr":
		return parseExpression(v)
	case "$comment":
		return func(bsoncore.Document) bool { return true }, nil
	}
	if strings.HasPrefix(name, "$") {
		return nil, badValue("unknown top level operator: %s", name)
	}
	return parseField(strings.Split(name, "."), v)
}

func some(all []matcher) matcher {
	return func(doc bsoncore.Document) bool {
		for _, m := range all {
			if m(doc) {
				return true
			}
		}
		return false
	}
}

// parseField returns the matcher of a condition on a field: a value, or a document of operators.
func parseField(path []string, v bsoncore.Value) (matcher, error) {
	if operators(v) {
		var all []matcher
		for e := range elements(v.Data) {
			m, err := parseOperator(path, e.Key(), e.Value())
			if err != nil {
				return nil, err
			}
			all = append(all, m)
		}
		if len(all) == 1 {
			return all[0], nil
		}
		return every(all), nil
	}
	return equals(path, v), nil
}

// equals is $eq. It compares the bytes first, which is fast and usually enough, and then the values.
func equals(path []string, want bsoncore.Value) matcher {
	var compared matcher
	return func(doc bsoncore.Document) bool {
		if len(path) == 1 {
			if v := get(doc, path[0]); v.Type == want.Type && bytes.Equal(v.Data, want.Data) {
				return true
			}
		}
		if compared == nil {
			compared = onPath(path, compares("$eq", want))
		}
		return compared(doc)
	}
}

// operators reports whether a value is a document whose first field begins with a dollar.
func operators(v bsoncore.Value) bool {
	if v.Type != bsoncore.TypeEmbeddedDocument {
		return false
	}
	for e := range elements(v.Data) {
		return strings.HasPrefix(e.Key(), "$")
	}
	return false
}

func not(m matcher) matcher { return func(doc bsoncore.Document) bool { return !m(doc) } }

func parseOperator(path []string, name string, v bsoncore.Value) (matcher, error) {
	switch name {
	case "$eq":
		return equals(path, v), nil
	case "$gt", "$gte", "$lt", "$lte":
		return onPath(path, compares(name, v)), nil
	case "$ne":
		return not(onPath(path, compares("$eq", v))), nil
	case "$in", "$nin":
		array, ok := v.ArrayOK()
		if !ok {
			return nil, badValue("%s needs an array", name)
		}
		m := onPath(path, isOneOf(values(array)))
		if name == "$nin" {
			return not(m), nil
		}
		return m, nil
	case "$exists":
		there := func(v bsoncore.Value) bool { return v.Type != 0 }
		if truthy(v) {
			return onPath(path, there), nil
		}
		return not(onPath(path, there)), nil
	case "$type":
		types, err := parseTypes(v)
		if err != nil {
			return nil, err
		}
		return onPath(path, func(v bsoncore.Value) bool { return types[v.Type] }), nil
	case "$not":
		m, err := parseField(path, v)
		if err != nil {
			return nil, err
		}
		return not(m), nil
	}
	return nil, badValue("unknown operator: %s", name)
}

func values(array bsoncore.Array) []bsoncore.Value {
	var all []bsoncore.Value
	for e := range elements(bsoncore.Document(array)) {
		all = append(all, e.Value())
	}
	return all
}

// isOneOf is $in. It looks up ObjectIDs and strings in a map of their bytes, because $in often has many of them.
func isOneOf(all []bsoncore.Value) predicate {
	exact := map[string]bool{}
	var rest []predicate
	for _, v := range all {
		switch v.Type {
		case bsoncore.TypeObjectID, bsoncore.TypeString:
			exact[string(v.Type)+string(v.Data)] = true
		default:
			rest = append(rest, compares("$eq", v))
		}
	}
	return func(v bsoncore.Value) bool {
		if exact[string(v.Type)+string(v.Data)] {
			return true
		}
		for _, p := range rest {
			if p(v) {
				return true
			}
		}
		return false
	}
}

// compares is a comparison with type bracketing: a value of another type does not match. Exceptions are MinKey and MaxKey, which are
// less and greater than all values, and null, which equals a missing field. NaN equals NaN and is neither greater nor less than anything.
func compares(operator string, operand bsoncore.Value) predicate {
	want := rank(operand)
	holds := func(d int) bool {
		switch operator {
		case "$gt":
			return d > 0
		case "$gte":
			return d >= 0
		case "$lt":
			return d < 0
		case "$lte":
			return d <= 0
		}
		return d == 0
	}
	return func(v bsoncore.Value) bool {
		got := rank(v)
		if got != want {
			switch {
			case got+want == rankMissing+rankNull && min(got, want) == rankMissing:
				return holds(0)
			case want == rankMinKey || want == rankMaxKey:
				return v.Type != 0 && holds(got-want) && operator != "$eq"
			}
			return false
		}
		if want == rankNumber && (isNaN(v) || isNaN(operand)) {
			return isNaN(v) && isNaN(operand) && holds(0)
		}
		return holds(compare(v, operand))
	}
}

// onPath applies a predicate to the value at a path and, if that is an array, to each of its elements. If an array is in the middle of
// the path, each of its documents is tried.
func onPath(path []string, p predicate) matcher {
	if len(path) == 1 {
		name := path[0]
		return func(doc bsoncore.Document) bool { return onValue(get(doc, name), p) }
	}
	return func(doc bsoncore.Document) bool { return within(doc, path, p) }
}

func within(doc bsoncore.Document, path []string, p predicate) bool {
	v := get(doc, path[0])
	if len(path) == 1 {
		return onValue(v, p)
	}
	switch v.Type {
	case bsoncore.TypeEmbeddedDocument:
		return within(v.Data, path[1:], p)
	case bsoncore.TypeArray:
		for e := range elements(v.Data) {
			if inner, ok := e.Value().DocumentOK(); ok && within(inner, path[1:], p) {
				return true
			}
		}
		return false
	}
	return p(bsoncore.Value{})
}

func onValue(v bsoncore.Value, p predicate) bool {
	if p(v) {
		return true
	}
	if v.Type == bsoncore.TypeArray {
		for e := range elements(v.Data) {
			if p(e.Value()) {
				return true
			}
		}
	}
	return false
}

// badValue returns MongoDB's error for an invalid operand.
func badValue(format string, args ...any) error {
	return &commandError{2, "BadValue", fmt.Sprintf(format, args...)}
}

// commandError is an error with the code and name that the client gets.
type commandError struct {
	code int32
	name string
	text string
}

func (e *commandError) Error() string { return e.text }

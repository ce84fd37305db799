package mongowire

import (
	"strings"

	"go.mongodb.org/mongo-driver/v2/x/bsonx/bsoncore"
)

func truthy(v bsoncore.Value) bool {
	switch rank(v) {
	case rankMissing, rankNull:
		return false
	case rankBoolean:
		return v.Boolean()
	case rankNumber:
		return isNaN(v) || infinity(v) != 0 || rational(v).Sign() != 0
	}
	return true
}

// parseExpression parses the operand of $expr: a comparison of a field with a literal, or several joined by $and and $or. The
// comparison uses the order of all types.
func parseExpression(v bsoncore.Value) (matcher, error) {
	doc, ok := v.DocumentOK()
	if !ok {
		return nil, badValue("$expr: only operators are known here")
	}
	for e := range elements(doc) {
		array, ok := e.Value().ArrayOK()
		if !ok {
			return nil, badValue("$expr: %s needs an array", e.Key())
		}
		operands := values(array)
		switch name := e.Key(); name {
		case "$and", "$or":
			var all []matcher
			for _, operand := range operands {
				m, err := parseExpression(operand)
				if err != nil {
					return nil, err
				}
				all = append(all, m)
			}
			if name == "$or" {
				return some(all), nil
			}
			return every(all), nil
		case "$gt", "$gte", "$lt", "$lte", "$eq", "$ne":
			if len(operands) != 2 {
				return nil, badValue("$expr: %s needs two operands", name)
			}
			a, b := operand(operands[0]), operand(operands[1])
			return func(doc bsoncore.Document) bool {
				d := compare(a(doc), b(doc))
				return map[string]bool{"$gt": d > 0, "$gte": d >= 0, "$lt": d < 0, "$lte": d <= 0, "$eq": d == 0, "$ne": d != 0}[name]
			}, nil
		default:
			return nil, badValue("$expr: unknown operator: %s", name)
		}
	}
	return nil, badValue("$expr: empty")
}

// operand parses an operand: "$field", {$literal: value} or a value.
func operand(v bsoncore.Value) func(bsoncore.Document) bsoncore.Value {
	if name, ok := v.StringValueOK(); ok && strings.HasPrefix(name, "$") {
		return func(doc bsoncore.Document) bsoncore.Value { return get(doc, name[1:]) }
	}
	if doc, ok := v.DocumentOK(); ok {
		if literal := get(doc, "$literal"); literal.Type != 0 {
			v = literal
		}
	}
	return func(bsoncore.Document) bsoncore.Value { return v }
}

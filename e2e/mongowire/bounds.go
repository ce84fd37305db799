package mongowire

import (
	"slices"

	"go.mongodb.org/mongo-driver/v2/x/bsonx/bsoncore"
)

// bound is a position in the order of all values: before or after all values of a rank, or at a value.
type bound struct {
	rank  int
	value bsoncore.Value // the zero Value means the edge of the rank
}

// span is a part of the _id index that contains all matches. It may also contain other entries.
type span struct {
	from, to bound
	points   []bsoncore.Value // if not nil, the sorted _id values that matches can have
}

func everything() span { return span{from: bound{rank: rankMinKey}, to: bound{rank: rankMaxKey}} }

// spanOf returns the part of the index in which a filter can match.
func spanOf(filter bsoncore.Document) (s span, restricted bool) {
	s = everything()
	for e := range elements(filter) {
		v := e.Value()
		switch e.Key() {
		case "_id":
			s, restricted = s.and(spanOfID(v)), true
		case "$and":
			if array, ok := v.ArrayOK(); ok {
				for _, part := range values(array) {
					if doc, ok := part.DocumentOK(); ok {
						if inner, r := spanOf(doc); r {
							s, restricted = s.and(inner), true
						}
					}
				}
			}
		case "$or":
			if array, ok := v.ArrayOK(); ok {
				if inner, r := spanOfAny(values(array)); r {
					s, restricted = s.and(inner), true
				}
			}
		}
	}
	return s, restricted
}

// spanOfAny returns the span of an $or, if each of its branches restricts _id.
func spanOfAny(branches []bsoncore.Value) (all span, restricted bool) {
	for i, branch := range branches {
		doc, ok := branch.DocumentOK()
		if !ok {
			return span{}, false
		}
		s, r := spanOf(doc)
		if !r {
			return span{}, false
		}
		if i == 0 {
			all = s
			continue
		}
		s, all = s.hull(), all.hull()
		if compareBounds(s.from, all.from, -1) < 0 {
			all.from = s.from
		}
		if compareBounds(s.to, all.to, 1) > 0 {
			all.to = s.to
		}
	}
	return all, len(branches) > 0
}

// spanOfID returns the span of a condition on _id.
func spanOfID(v bsoncore.Value) span {
	if !operators(v) {
		if acrossTypes(v) {
			return everything()
		}
		return span{points: []bsoncore.Value{v}}.withHull()
	}
	s := everything()
	for e := range elements(v.Data) {
		v := e.Value()
		if acrossTypes(v) {
			continue
		}
		r := rank(v)
		switch e.Key() {
		case "$eq":
			s = s.and(span{points: []bsoncore.Value{v}}.withHull())
		case "$in":
			if array, ok := v.ArrayOK(); ok {
				points := values(array)
				if slices.ContainsFunc(points, acrossTypes) {
					continue
				}
				slices.SortFunc(points, compare)
				points = slices.CompactFunc(points, func(a, b bsoncore.Value) bool { return compare(a, b) == 0 })
				if len(points) > 0 {
					s = s.and(span{points: points}.withHull())
				}
			}
		case "$gt", "$gte":
			s = s.and(span{from: bound{r, v}, to: bound{rank: r}})
		case "$lt", "$lte":
			s = s.and(span{from: bound{rank: r}, to: bound{r, v}})
		case "$type":
			if types, err := parseTypes(v); err == nil {
				low, high := rankMaxKey, rankMinKey
				for t := range types {
					r := rank(bsoncore.Value{Type: t})
					low, high = min(low, r), max(high, r)
				}
				s = s.and(span{from: bound{rank: low}, to: bound{rank: high}})
			}
		}
	}
	return s
}

// acrossTypes reports whether an operand matches values of other types.
func acrossTypes(v bsoncore.Value) bool {
	switch rank(v) {
	case rankMinKey, rankMaxKey, rankNull, rankMissing:
		return true
	}
	return false
}

// withHull sets the edges from the points.
func (s span) withHull() span {
	first, last := s.points[0], s.points[len(s.points)-1]
	s.from, s.to = bound{rank(first), first}, bound{rank(last), last}
	return s
}

// hull returns the span without its points.
func (s span) hull() span { return span{from: s.from, to: s.to} }

// and returns a span that contains the intersection of two spans.
func (s span) and(t span) span {
	if compareBounds(t.from, s.from, -1) > 0 {
		s.from = t.from
	}
	if compareBounds(t.to, s.to, 1) < 0 {
		s.to = t.to
	}
	if s.points == nil || t.points != nil && len(t.points) < len(s.points) {
		s.points = t.points
	}
	return s
}

// compareBounds orders two lower (edge -1) or two upper (edge 1) bounds.
func compareBounds(a, b bound, edge int) int {
	switch {
	case a.rank != b.rank:
		return a.rank - b.rank
	case a.value.Type == 0 && b.value.Type == 0:
		return 0
	case a.value.Type == 0:
		return edge
	case b.value.Type == 0:
		return -edge
	}
	return compare(a.value, b.value)
}

// below reports whether an _id is before the lower bound.
func (b bound) below(id bsoncore.Value) bool {
	if r := rank(id); r != b.rank {
		return r < b.rank
	}
	return b.value.Type != 0 && compare(id, b.value) < 0
}

// above reports whether an _id is after the upper bound.
func (b bound) above(id bsoncore.Value) bool {
	if r := rank(id); r != b.rank {
		return r > b.rank
	}
	return b.value.Type != 0 && compare(id, b.value) > 0
}

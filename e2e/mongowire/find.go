package mongowire

import (
	"slices"
	"strconv"

	"go.mongodb.org/mongo-driver/v2/x/bsonx/bsoncore"
)

// firstBatch is the number of documents in the answer to a find without batchSize.
const firstBatch = 101

// cursor is a running query. Only one client uses it at a time.
type cursor struct {
	id        int64
	namespace string
	match     matcher
	project   projection
	skip      int
	limit     int // number of documents still to return, or -1

	// The source is one of these: the entries that were selected when the query began, or the _id index.
	entries []*entry
	index   *collection
	span    span
	back    bool   // from the end of the index
	at      int    // position in entries, points or the index
	last    *entry // the entry before at
}

// newCursor returns the cursor of a find.
func (s *Server) newCursor(call *Call) (*cursor, error) {
	body := call.Body
	filter, _ := body.Lookup("filter").DocumentOK()
	match, err := parseFilter(filter)
	if err != nil {
		return nil, err
	}
	fields, _ := body.Lookup("projection").DocumentOK()
	project, err := parseProjection(fields)
	if err != nil {
		return nil, err
	}
	c := &cursor{namespace: call.Database + "." + call.Collection, match: match, project: project, limit: -1}
	if n := number(body, "limit"); n != 0 {
		c.limit = int(max(n, -n))
	}
	c.skip = int(number(body, "skip"))
	sort, _ := body.Lookup("sort").DocumentOK()
	s.data.RLock()
	defer s.data.RUnlock()
	docs := s.collection(call.Database, call.Collection, false)
	if docs == nil {
		docs = &collection{}
	}
	var restricted bool
	if c.span, restricted = spanOf(filter); restricted {
		c.index = docs
	}
	for name, place := range map[string]*bound{"min": &c.span.from, "max": &c.span.to} {
		if key, ok := body.Lookup(name).DocumentOK(); ok {
			id := get(key, "_id")
			if id.Type == 0 {
				return nil, badValue("%s is known for _id alone here", name)
			}
			c.index = docs
			*place = bound{rank(id), id}
			if name == "max" { // max is exclusive
				c.match = every([]matcher{c.match, func(doc bsoncore.Document) bool { return compare(get(doc, "_id"), id) < 0 }})
			}
		}
	}
	names := slices.Collect(elements(sort))
	switch {
	case len(names) == 1 && names[0].Key() == "_id":
		c.index, c.back = docs, number(sort, "_id") < 0
	case len(names) > 0:
		c.index = nil
		for _, e := range docs.arrived {
			if match(e.raw) {
				c.entries = append(c.entries, e)
			}
		}
		slices.SortStableFunc(c.entries, func(a, b *entry) int { return compareBy(names, a.raw, b.raw) })
	case c.index == nil:
		c.entries = docs.arrived
	}
	if c.index != nil && c.back {
		if c.span.points != nil {
			c.span.points = slices.Clone(c.span.points)
			slices.Reverse(c.span.points)
		}
		c.at = len(docs.byID) - 1
		for c.at >= 0 && c.span.to.above(docs.byID[c.at].id) {
			c.at--
		}
	} else if c.index != nil && c.span.points == nil {
		c.at = docs.start(c.span.from)
	}
	return c, nil
}

// start returns the index of the first entry that is not below a bound.
func (c *collection) start(from bound) int {
	low, high := 0, len(c.byID)
	for low < high {
		if middle := (low + high) / 2; from.below(c.byID[middle].id) {
			low = middle + 1
		} else {
			high = middle
		}
	}
	return low
}

// compareBy orders two documents by the fields of a sort.
func compareBy(names []bsoncore.Element, a, b bsoncore.Document) int {
	for _, name := range names {
		d := compare(get(a, name.Key()), get(b, name.Key()))
		if direction, _ := name.Value().AsInt64OK(); direction < 0 {
			d = -d
		}
		if d != 0 {
			return d
		}
	}
	return 0
}

// next returns the next entry that may match, or nil at the end. The caller holds the lock data.
func (c *cursor) next() *entry {
	for {
		var e *entry
		switch {
		case c.index == nil:
			if c.at >= len(c.entries) {
				return nil
			}
			e = c.entries[c.at]
			c.at++
		case c.span.points != nil:
			if c.at >= len(c.span.points) {
				return nil
			}
			e = c.index.find(c.span.points[c.at])
			c.at++
			if e == nil {
				continue
			}
		default:
			if e = c.nextOfIndex(); e == nil {
				return nil
			}
		}
		if !e.deleted {
			return e
		}
	}
}

// nextOfIndex returns the entry after the last one, whose position may have changed.
func (c *cursor) nextOfIndex() *entry {
	byID := c.index.byID
	step := 1
	if c.back {
		step = -1
	}
	if before := c.at - step; c.last != nil && (before < 0 || before >= len(byID) || byID[before] != c.last) {
		if c.at = c.index.seek(c.last.id, !c.back); c.back {
			c.at--
		}
	}
	if c.at < 0 || c.at >= len(byID) {
		return nil
	}
	e := byID[c.at]
	if !c.back && c.span.to.above(e.id) || c.back && c.span.from.below(e.id) {
		return nil
	}
	c.last = e
	c.at += step
	return e
}

// batch returns up to n documents, or as many as fit into an answer. n < 0 means no limit. done is true if there are no more.
func (c *cursor) batch(s *Server, n int) (docs []bsoncore.Document, done bool) {
	s.data.RLock()
	defer s.data.RUnlock()
	size := 0
	for n < 0 || len(docs) < n {
		if c.limit == 0 {
			return docs, true
		}
		at, last := c.at, c.last
		e := c.next()
		if e == nil {
			return docs, true
		}
		if !c.match(e.raw) {
			continue
		}
		if c.skip > 0 {
			c.skip--
			continue
		}
		doc := e.raw
		if c.project != nil {
			doc = c.project(doc)
		}
		if size += len(doc) + 16; size > maxDocument && len(docs) > 0 {
			c.at, c.last = at, last
			return docs, false
		}
		docs = append(docs, doc)
		if c.limit > 0 {
			c.limit--
		}
	}
	return docs, c.limit == 0
}

func (s *Server) find(call *Call) (bsoncore.Document, error) {
	c, err := s.newCursor(call)
	if err != nil {
		return nil, err
	}
	n := firstBatch
	if v := call.Body.Lookup("batchSize"); v.Type != 0 {
		n = int(number(call.Body, "batchSize"))
	}
	docs, done := c.batch(s, n)
	single := truthy(call.Body.Lookup("singleBatch")) || number(call.Body, "limit") < 0
	if !done && !single {
		s.state.Lock()
		s.lastCursor++
		c.id = s.lastCursor
		s.cursors[c.id] = c
		s.state.Unlock()
	}
	return cursorAnswer(c.id, c.namespace, "firstBatch", docs), nil
}

func (s *Server) getMore(call *Call) (bsoncore.Document, error) {
	id := number(call.Body, "getMore")
	s.state.Lock()
	c := s.cursors[id]
	s.state.Unlock()
	if c == nil {
		return nil, &commandError{43, "CursorNotFound", "cursor id not found"}
	}
	n := -1
	if size := number(call.Body, "batchSize"); size > 0 {
		n = int(size)
	}
	docs, done := c.batch(s, n)
	if done {
		s.state.Lock()
		delete(s.cursors, id)
		s.state.Unlock()
		id = 0
	}
	return cursorAnswer(id, c.namespace, "nextBatch", docs), nil
}

func (s *Server) killCursors(call *Call) bsoncore.Document {
	killed := bsoncore.NewArrayBuilder()
	array, _ := call.Body.Lookup("cursors").ArrayOK()
	s.state.Lock()
	defer s.state.Unlock()
	for _, v := range values(array) {
		if id, ok := v.AsInt64OK(); ok && s.cursors[id] != nil {
			delete(s.cursors, id)
			killed.AppendInt64(id)
		}
	}
	return bsoncore.NewDocumentBuilder().AppendArray("cursorsKilled", killed.Build()).AppendDouble("ok", 1).Build()
}

// cursorAnswer does not use a document builder, because that is slow for large collections.
func cursorAnswer(id int64, namespace, batch string, docs []bsoncore.Document) bsoncore.Document {
	size := 256 + len(namespace)
	for _, doc := range docs {
		size += len(doc) + 10
	}
	outer, out := bsoncore.AppendDocumentStart(make([]byte, 0, size))
	var inner, array int32
	inner, out = bsoncore.AppendDocumentElementStart(out, "cursor")
	array, out = bsoncore.AppendArrayElementStart(out, batch)
	for i, doc := range docs {
		out = bsoncore.AppendDocumentElement(out, strconv.Itoa(i), doc)
	}
	out, _ = bsoncore.AppendArrayEnd(out, array)
	out = bsoncore.AppendInt64Element(out, "id", id)
	out = bsoncore.AppendStringElement(out, "ns", namespace)
	out, _ = bsoncore.AppendDocumentEnd(out, inner)
	out = bsoncore.AppendDoubleElement(out, "ok", 1)
	out, _ = bsoncore.AppendDocumentEnd(out, outer)
	return out
}

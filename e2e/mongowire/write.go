package mongowire

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/x/bsonx/bsoncore"
)

// writeError is the error of one statement of a command.
type writeError struct {
	index int
	err   *commandError
}

// written completes the answer to a write of n documents.
func written(b *bsoncore.DocumentBuilder, n int, failed []writeError) bsoncore.Document {
	b.AppendInt32("n", int32(n))
	array := bsoncore.NewArrayBuilder()
	for _, e := range failed {
		array.AppendDocument(bsoncore.NewDocumentBuilder().
			AppendInt32("index", int32(e.index)).AppendInt32("code", e.err.code).AppendString("errmsg", e.err.text).Build())
	}
	if len(failed) > 0 {
		b.AppendArray("writeErrors", array.Build())
	}
	return b.AppendDouble("ok", 1).Build()
}

// statements runs each statement of a write. If the write is ordered, it stops after the first error.
func statements(call *Call, all []bsoncore.Document, run func(int, bsoncore.Document) error) ([]writeError, error) {
	if len(all) == 0 || len(all) > maxBatch {
		return nil, &commandError{16, "InvalidLength", fmt.Sprintf("Write batch sizes must be between 1 and %d. Got %d operations.", maxBatch, len(all))}
	}
	ordered := true
	if v, ok := call.Body.Lookup("ordered").BooleanOK(); ok {
		ordered = v
	}
	var failed []writeError
	for i, doc := range all {
		if err := run(i, doc); err != nil {
			ce, ok := err.(*commandError)
			if !ok {
				return nil, err
			}
			failed = append(failed, writeError{i, ce})
			if ordered {
				break
			}
		}
	}
	return failed, nil
}

func (s *Server) insert(call *Call, m *message) (bsoncore.Document, error) {
	s.data.Lock()
	defer s.data.Unlock()
	c := s.collection(call.Database, call.Collection, true)
	n := 0
	failed, err := statements(call, m.documents("documents"), func(_ int, doc bsoncore.Document) error {
		if len(doc) > maxDocument {
			return &commandError{10334, "BSONObjectTooLarge", "object to insert too large"}
		}
		switch t := get(doc, "_id").Type; t {
		case 0:
			doc = withID(doc)
		case bsoncore.TypeArray, bsoncore.TypeRegex, bsoncore.TypeUndefined:
			return &commandError{53, "InvalidIdField", "The '_id' value cannot be of type " + t.String()}
		}
		// Copy the bytes, because they would keep the whole message in memory.
		e, err := newEntry(slices.Clone(doc))
		if err != nil {
			return badValue("%v", err)
		}
		if c.find(e.id) != nil {
			return &commandError{11000, "DuplicateKey", fmt.Sprintf("E11000 duplicate key error collection: %s.%s index: _id_ dup key: { _id: %s }", call.Database, call.Collection, e.id)}
		}
		c.insert(e)
		n++
		return nil
	})
	if err != nil {
		return nil, err
	}
	return written(bsoncore.NewDocumentBuilder(), n, failed), nil
}

// withID adds an _id to a document without one, as a server does.
func withID(doc bsoncore.Document) bsoncore.Document {
	start, out := bsoncore.AppendDocumentStart(nil)
	out = bsoncore.AppendObjectIDElement(out, "_id", bson.NewObjectID())
	out = append(out, doc[4:len(doc)-1]...)
	out, _ = bsoncore.AppendDocumentEnd(out, start)
	return out
}

// matching returns the entries that match a filter, at most one unless many is set. The caller holds the lock data.
func (c *collection) matching(filter bsoncore.Document, many bool) ([]*entry, error) {
	match, err := parseFilter(filter)
	if err != nil {
		return nil, err
	}
	cur := &cursor{match: match, entries: c.arrived}
	if s, restricted := spanOf(filter); restricted {
		cur = &cursor{match: match, index: c, span: s}
		if s.points == nil {
			cur.at = c.start(s.from)
		}
	}
	found := make([]*entry, 0, 1)
	for e := cur.next(); e != nil; e = cur.next() {
		if match(e.raw) {
			if found = append(found, e); !many {
				break
			}
		}
	}
	return found, nil
}

func (s *Server) update(call *Call, m *message) (bsoncore.Document, error) {
	s.data.Lock()
	defer s.data.Unlock()
	c := s.collection(call.Database, call.Collection, true)
	matched, modified := 0, 0
	upserted := bsoncore.NewArrayBuilder()
	upserts := 0
	var change update
	var parsed bsoncore.Value // the source of change, which many statements share
	failed, err := statements(call, m.documents("updates"), func(i int, statement bsoncore.Document) error {
		filter, _ := get(statement, "q").DocumentOK()
		if u := get(statement, "u"); change == nil || u.Type != parsed.Type || !bytes.Equal(u.Data, parsed.Data) {
			var err error
			if change, err = parseUpdate(u); err != nil {
				return err
			}
			parsed = u
		}
		found, err := c.matching(filter, truthy(get(statement, "multi")))
		if err != nil {
			return err
		}
		if len(found) == 0 && truthy(get(statement, "upsert")) {
			e, err := upsert(filter, change)
			if err != nil {
				return err
			}
			c.insert(e)
			upserts++
			upserted.AppendDocument(bsoncore.NewDocumentBuilder().AppendInt32("index", int32(i)).AppendValue("_id", e.id).Build())
		}
		for _, e := range found {
			fresh, err := change(e.raw)
			if err != nil {
				return err
			}
			if len(fresh) > maxDocument && len(fresh) > len(e.raw) {
				return &commandError{17419, "Location17419", "Resulting document after update is larger than 16777216"}
			}
			matched++
			if string(fresh) != string(e.raw) {
				modified++
				// Use the _id of the new bytes. The old bytes can then be freed.
				e.raw, e.id = fresh, get(fresh, "_id")
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	b := bsoncore.NewDocumentBuilder().AppendInt32("nModified", int32(modified))
	if upserts > 0 {
		b.AppendArray("upserted", upserted.Build())
	}
	return written(b, matched+upserts, failed), nil
}

// upsert returns the document that an update inserts if none matches.
func upsert(filter bsoncore.Document, change update) (*entry, error) {
	start, out := bsoncore.AppendDocumentStart(nil)
	for e := range elements(filter) {
		if !strings.HasPrefix(e.Key(), "$") && !operators(e.Value()) {
			out = append(out, e...)
		}
	}
	out, _ = bsoncore.AppendDocumentEnd(out, start)
	doc, err := change(out)
	if err != nil {
		return nil, err
	}
	if get(doc, "_id").Type == 0 {
		doc = withID(doc)
	}
	return newEntry(doc)
}

// update returns the new content of a document.
type update func(bsoncore.Document) (bsoncore.Document, error)

// parseUpdate parses an update: a replacement, or $set, $unset and $inc of top-level fields.
func parseUpdate(u bsoncore.Value) (update, error) {
	doc, ok := u.DocumentOK()
	if !ok {
		return nil, badValue("updates by a pipeline are not known here")
	}
	if !operators(u) {
		return func(old bsoncore.Document) (bsoncore.Document, error) { return replace(old, doc), nil }, nil
	}
	set := map[string]bsoncore.Value{}
	var order []string
	unset := map[string]bool{}
	for e := range elements(doc) {
		fields, ok := e.Value().DocumentOK()
		if !ok {
			return nil, &commandError{9, "FailedToParse", "Modifiers operate on fields"}
		}
		for f := range elements(fields) {
			name := f.Key()
			if strings.ContainsAny(name, ".$") {
				return nil, badValue("%s of %q: only whole fields are known here", e.Key(), name)
			}
			if name == "_id" {
				return nil, &commandError{66, "ImmutableField", "Performing an update on the path '_id' would modify the immutable field '_id'"}
			}
			switch e.Key() {
			case "$set":
				set[name] = f.Value()
				order = append(order, name)
			case "$unset":
				unset[name] = true
			default:
				return nil, &commandError{9, "FailedToParse", "Unknown modifier: " + e.Key()}
			}
		}
	}
	slices.Sort(order) // new fields are added in the order of their names
	return func(old bsoncore.Document) (bsoncore.Document, error) {
		start, out := bsoncore.AppendDocumentStart(make([]byte, 0, len(old)+64))
		done := map[string]bool{}
		for e := range elements(old) {
			name := e.KeyBytes()
			v, found := set[string(name)]
			switch {
			case !found && !unset[string(name)], done[string(name)]: // a second field with the same name is unchanged
				out = append(out, e...)
			case found:
				out = bsoncore.AppendValueElement(out, string(name), v)
				done[string(name)] = true
			default:
				done[string(name)] = true
			}
		}
		for _, name := range order {
			if !done[name] {
				out = bsoncore.AppendValueElement(out, name, set[name])
			}
		}
		out, _ = bsoncore.AppendDocumentEnd(out, start)
		return out, nil
	}, nil
}

// replace returns the fresh document with the _id of the old one.
func replace(old, fresh bsoncore.Document) bsoncore.Document {
	start, out := bsoncore.AppendDocumentStart(nil)
	if id := get(old, "_id"); id.Type != 0 && get(fresh, "_id").Type == 0 {
		out = bsoncore.AppendValueElement(out, "_id", id)
	}
	out = append(out, fresh[4:len(fresh)-1]...)
	out, _ = bsoncore.AppendDocumentEnd(out, start)
	return out
}

func (s *Server) delete(call *Call, m *message) (bsoncore.Document, error) {
	s.data.Lock()
	defer s.data.Unlock()
	c := s.collection(call.Database, call.Collection, true)
	n := 0
	failed, err := statements(call, m.documents("deletes"), func(_ int, statement bsoncore.Document) error {
		filter, _ := get(statement, "q").DocumentOK()
		found, err := c.matching(filter, number(statement, "limit") == 0)
		if err != nil {
			return err
		}
		gone := map[*entry]bool{}
		for _, e := range found {
			gone[e] = true
		}
		c.remove(gone)
		n += len(found)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return written(bsoncore.NewDocumentBuilder(), n, failed), nil
}

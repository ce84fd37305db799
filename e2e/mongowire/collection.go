package mongowire

import (
	"errors"
	"fmt"
	"slices"
	"sort"

	"go.mongodb.org/mongo-driver/v2/x/bsonx/bsoncore"
)

// entry is one document. Its bytes are replaced but never changed, so a slice of them can be used without a lock.
type entry struct {
	raw     bsoncore.Document
	id      bsoncore.Value
	deleted bool
}

func newEntry(raw bsoncore.Document) (*entry, error) {
	size, _, ok := bsoncore.ReadLength(raw)
	if !ok || int(size) != len(raw) || len(raw) < 5 || raw[len(raw)-1] != 0 {
		return nil, errors.New("not a BSON document")
	}
	id := get(raw, "_id")
	if id.Type == 0 {
		return nil, fmt.Errorf("no _id in %s", raw)
	}
	return &entry{raw: raw, id: id}, nil
}

// collection has its documents in two orders: by arrival, for a find without sort, and by _id.
type collection struct {
	arrived []*entry // includes entries that are deleted but not removed yet
	byID    []*entry
}

// seek returns the index in byID of the first entry whose _id is not less than id. With after, it returns that of the first greater one.
func (c *collection) seek(id bsoncore.Value, after bool) int {
	return sort.Search(len(c.byID), func(i int) bool {
		d := compare(c.byID[i].id, id)
		return d > 0 || d == 0 && !after
	})
}

// find returns the entry with that _id, or nil.
func (c *collection) find(id bsoncore.Value) *entry {
	if i := c.seek(id, false); i < len(c.byID) && compare(c.byID[i].id, id) == 0 {
		return c.byID[i]
	}
	return nil
}

// insert adds an entry. Its _id must be new.
func (c *collection) insert(e *entry) {
	c.arrived = append(c.arrived, e)
	if n := len(c.byID); n == 0 || compare(c.byID[n-1].id, e.id) < 0 {
		c.byID = append(c.byID, e)
		return
	}
	c.byID = slices.Insert(c.byID, c.seek(e.id, false), e)
}

// put adds entries. An entry replaces an existing one with the same _id. Many unsorted entries are sorted once.
func (c *collection) put(entries []*entry) {
	inOrder := true
	for i := 1; i < len(entries) && inOrder; i++ {
		inOrder = compare(entries[i-1].id, entries[i].id) < 0
	}
	if !inOrder && len(c.byID) == 0 && len(entries) > 1000 {
		sorted := slices.Clone(entries)
		slices.SortStableFunc(sorted, func(a, b *entry) int { return compare(a.id, b.id) })
		if c.byID = slices.CompactFunc(sorted, func(a, b *entry) bool { return compare(a.id, b.id) == 0 }); len(c.byID) == len(entries) {
			c.arrived = slices.Clone(entries)
			return
		}
		c.byID = nil // there are duplicates: add the entries one by one
	}
	for _, e := range entries {
		if there := c.find(e.id); there != nil {
			there.raw, there.id = e.raw, e.id
		} else {
			c.insert(e)
		}
	}
}

// remove deletes entries.
func (c *collection) remove(gone map[*entry]bool) {
	for e := range gone {
		e.deleted = true
	}
	c.byID = slices.DeleteFunc(c.byID, func(e *entry) bool { return gone[e] })
	c.arrived = slices.DeleteFunc(slices.Clone(c.arrived), func(e *entry) bool { return gone[e] })
}

// get returns the first field with that name, or the zero Value.
func get(doc bsoncore.Document, name string) bsoncore.Value {
	if len(doc) < 5 {
		return bsoncore.Value{}
	}
	rest := doc[4 : len(doc)-1]
	for len(rest) > 0 {
		e, after, ok := bsoncore.ReadElement(rest)
		if !ok {
			break
		}
		if string(e.KeyBytes()) == name {
			return e.Value()
		}
		rest = after
	}
	return bsoncore.Value{}
}

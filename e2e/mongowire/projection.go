package mongowire

import (
	"strings"

	"go.mongodb.org/mongo-driver/v2/x/bsonx/bsoncore"
)

// projection returns the part of a document that a client asked for.
type projection func(bsoncore.Document) bsoncore.Document

// parseProjection parses a projection that includes or excludes top-level fields. It returns nil for the whole document.
func parseProjection(fields bsoncore.Document) (projection, error) {
	listed := map[string]bool{}
	include, exclude, id := false, false, true
	for e := range elements(fields) {
		name, v := e.Key(), e.Value()
		if strings.ContainsAny(name, ".$") || rank(v) != rankNumber && rank(v) != rankBoolean {
			return nil, badValue("projection of %q: only inclusion and exclusion of whole fields are supported here", name)
		}
		if name == "_id" {
			id = truthy(v)
			continue
		}
		listed[name] = true
		if truthy(v) {
			include = true
		} else {
			exclude = true
		}
	}
	if include && exclude {
		return nil, badValue("Cannot do inclusion and exclusion at once")
	}
	if get(fields, "_id").Type == 0 && len(listed) == 0 {
		return nil, nil
	}
	include = include || !exclude && id
	return func(doc bsoncore.Document) bsoncore.Document {
		start, out := bsoncore.AppendDocumentStart(make([]byte, 0, len(doc)))
		for e := range elements(doc) {
			keep := listed[e.Key()] == include
			if e.Key() == "_id" {
				keep = id
			}
			if keep {
				out = append(out, e...)
			}
		}
		out, _ = bsoncore.AppendDocumentEnd(out, start)
		return out
	}, nil
}

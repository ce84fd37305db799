package main

import "fmt"

// refusal says why a document cannot become a row.
type refusal struct {
	reason string // nul, invalid_utf8, duplicate_key, ...
	path   string // of the value at fault: payload.readings.3
	detail string
	text   string // all of it, if another stage has found it
}

// errCorrupt is a document that is not BSON.
var errCorrupt = &refusal{reason: "corrupt_bson"}

// at returns the same refusal of a value that is inside of a field.
func (r *refusal) at(name string) *refusal {
	inside := *r
	switch {
	case len(inside.path) > 200: // deep nesting makes no better message
	case inside.path == "":
		inside.path = name
	default:
		inside.path = name + "." + inside.path
	}
	return &inside
}

func (r *refusal) Error() string {
	if r.text != "" {
		return r.text
	}
	text, ok := map[string]string{
		"nul":                    "holds a NUL character, which PostgreSQL cannot store",
		"invalid_utf8":           "holds text that is not UTF-8 (or half a surrogate pair)",
		"duplicate_key":          "is there twice, of which PostgreSQL would keep one",
		"too_deep":               fmt.Sprintf("is nested deeper than %d levels", maxDepth),
		"corrupt_bson":           "is not well-formed BSON",
		"bad_timestamp":          "is not one plain moment: a date, a text that PostgreSQL reads, or seconds or milliseconds since 1970",
		"timestamp_out_of_range": "is a time that PostgreSQL does not have",
		"number_out_of_range":    "is a number that PostgreSQL does not have",
		"id_too_long":            fmt.Sprintf("is longer than %d bytes, more than a unique index takes", maxID),
		"ambiguous_id":           "has the text of another id in Extended JSON, as its keys begin with $",
		"no_id":                  "is missing",
		"bad_json":               "is not what JSON allows",
		"refused":                "is refused by PostgreSQL",
	}[r.reason]
	if !ok {
		text = r.reason
	}
	if r.path != "" {
		text = r.path + " " + text
	}
	if r.detail != "" {
		text += ": " + r.detail
	}
	return text
}

// keySet finds keys that an object has twice. It is one stack for all objects
// that are open.
type keySet struct {
	keys [][]byte
	many map[int]map[string]struct{} // by frame, of large objects
}

// few is up to how many keys comparing them all is faster than hashing.
const few = 24

func (k *keySet) reset()    { k.keys = k.keys[:0] }
func (k *keySet) open() int { return len(k.keys) }

// add reports whether key is new in the object opened at frame.
func (k *keySet) add(frame int, key []byte) bool {
	n := len(k.keys) - frame
	if n < few {
		for _, other := range k.keys[frame:] {
			if string(other) == string(key) {
				return false
			}
		}
	} else {
		seen := k.many[frame]
		if seen == nil {
			if k.many == nil {
				k.many = map[int]map[string]struct{}{}
			}
			seen = make(map[string]struct{}, 4*few)
			k.many[frame] = seen
			for _, other := range k.keys[frame:] {
				seen[string(other)] = struct{}{}
			}
		}
		if _, there := seen[string(key)]; there {
			return false
		}
		seen[string(key)] = struct{}{}
	}
	k.keys = append(k.keys, key)
	return true
}

// close forgets the keys of the object opened at frame.
func (k *keySet) close(frame int) {
	k.keys = k.keys[:frame]
	delete(k.many, frame)
}

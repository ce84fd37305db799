package extjson

import "fmt"

// Refusal is the error of a document that cannot become a row.
type Refusal struct {
	Reason string // nul, invalid_utf8, duplicate_key, ...
	Path   string // of the bad value: payload.readings.3
	Detail string
	Text   string // the complete text, if it comes from the record of another stage
}

// ErrCorrupt is the refusal of a document that is not well-formed BSON.
var ErrCorrupt = &Refusal{Reason: "corrupt_bson"}

// At returns the refusal with the name of an enclosing field before its path.
func (r *Refusal) At(name string) *Refusal {
	inside := *r
	switch {
	case len(inside.Path) > 200: // a longer path does not make the message clearer
	case inside.Path == "":
		inside.Path = name
	default:
		inside.Path = name + "." + inside.Path
	}
	return &inside
}

func (r *Refusal) Error() string {
	if r.Text != "" {
		return r.Text
	}
	text, ok := map[string]string{
		"nul":                    "holds a NUL character, which PostgreSQL cannot store",
		"invalid_utf8":           "holds text that is not UTF-8 (or half a surrogate pair)",
		"duplicate_key":          "occurs twice, and PostgreSQL would keep only one",
		"too_deep":               fmt.Sprintf("is nested deeper than %d levels", MaxDepth),
		"corrupt_bson":           "is not well-formed BSON",
		"bad_timestamp":          "is not one plain moment: a date, a text that PostgreSQL reads, or seconds or milliseconds since 1970",
		"timestamp_out_of_range": "is a time that PostgreSQL cannot store",
		"number_out_of_range":    "is a number that PostgreSQL cannot store",
		"id_too_long":            fmt.Sprintf("is longer than %d bytes, too long for a unique index", MaxID),
		"ambiguous_id":           "has the text of another id in Extended JSON, because its keys begin with $",
		"no_id":                  "is missing",
		"bad_json":               "is not valid JSON",
		"refused":                "is refused by PostgreSQL",
	}[r.Reason]
	if !ok {
		text = r.Reason
	}
	if r.Path != "" {
		text = r.Path + " " + text
	}
	if r.Detail != "" {
		text += ": " + r.Detail
	}
	return text
}

// AsRefusal returns err if it is a refusal. Otherwise it returns a refusal with the
// reason bad_json.
func AsRefusal(err error) *Refusal {
	if r, ok := err.(*Refusal); ok {
		return r
	}
	return &Refusal{Reason: "bad_json", Detail: err.Error()}
}

package main

import (
	"errors"
	"fmt"

	"observability-hub/lib/record"
	"observability-hub/readsync/internal/deadletter"
	"observability-hub/readsync/internal/extjson"
	"observability-hub/readsync/internal/moment"
	"observability-hub/readsync/internal/rawbson"
	"observability-hub/readsync/internal/reading"
	"observability-hub/readsync/internal/stage"
)

// extracted is the origin of a row that load makes of a record of extract.
type extracted struct {
	digest string // of the document
	letter []byte // the record, if it contains the document
}

// recordRow parses a line of extract's output and returns its row.
func recordRow(in stage.Line, nul extjson.NULPolicy) (*row, error) {
	if in.Err != nil {
		return nil, in.Err
	}
	from := &extracted{}
	r := &row{from: from}
	isLetter, hasDocument := false, false
	var failed *extjson.Refusal
	err := extjson.Fields(in.Text, func(key string, raw []byte) (err error) {
		switch key {
		case "mongo_id":
			r.id, err = extjson.String(raw)
		case "guard":
			from.digest, err = extjson.String(raw)
		case "reason":
			isLetter = true
		case "document", "bson":
			hasDocument = true
		}
		for i, name := range reading.ColumnNames {
			if key != name || string(raw) == "null" {
				continue
			}
			switch i {
			case reading.Payload, reading.Meta:
				if err := extjson.CheckJSON(raw, nul); err != nil {
					failed = extjson.AsRefusal(err).At(name)
				} else if nul != extjson.KeepNUL {
					raw = extjson.Unescape(raw)
				}
				r.columns[i] = oneLine(raw)
			default:
				text, err := extjson.String(raw)
				if err != nil {
					return fmt.Errorf("%s: %w", name, err)
				}
				column, err := extjson.CheckText([]byte(text), nul)
				if err == nil && extjson.HalfSurrogate(raw) {
					err = &extjson.Refusal{Reason: "invalid_utf8"}
				}
				if err == nil && i == reading.Timestamp {
					var plain []byte
					if plain, err = moment.Parse(nil, column); err == nil {
						column = plain
					} else if moment.Readable(column) {
						r.unread, err = true, nil
					}
				}
				if r.columns[i] = column; err != nil {
					failed = extjson.AsRefusal(err).At(name)
					r.columns[i] = []byte(text)
				}
			}
		}
		return err
	})
	switch {
	case err != nil:
		return nil, fmt.Errorf("not a record: %w", err)
	case r.id == "" && !isLetter:
		return nil, errors.New("no mongo_id")
	case isLetter:
		l, err := deadletter.Parse(in.Text)
		if err != nil {
			return nil, fmt.Errorf("not a record: %w", err)
		}
		r.id = l.ID
		from.letter, r.refused = in.Text, &extjson.Refusal{Reason: l.Reason, Text: l.Detail}
	case len(r.id) > extjson.MaxID:
		r.refused = (&extjson.Refusal{Reason: "id_too_long"}).At("mongo_id")
	default:
		r.refused = failed
		if _, err := extjson.CheckText([]byte(r.id), extjson.RejectNUL); err != nil {
			r.refused = extjson.AsRefusal(err).At("mongo_id")
		}
		if hasDocument {
			from.letter = in.Text
		}
	}
	return r, nil
}

// oneLine replaces the tabs and carriage returns between the tokens of JSON by blanks.
// Valid JSON has none of them inside strings.
func oneLine(raw []byte) []byte {
	for i, c := range raw {
		if c < ' ' {
			raw[i] = ' '
		}
	}
	return raw
}

func (x *extracted) Guard() string { return x.digest }

func (x *extracted) content(r *row) (text, raw []byte) {
	if x.letter == nil {
		return assembled(r), nil
	}
	if l, err := deadletter.Parse(x.letter); err == nil {
		return l.Document, l.BSON
	}
	return []byte("null"), nil
}

// value parses the text of a column, because the document is not available.
func (x *extracted) value(r *row, column int) (rawbson.Value, error) {
	text := r.columns[column]
	switch {
	case text == nil:
		return rawbson.Value{}, nil
	case column == reading.Payload || column == reading.Meta:
		doc, err := extjson.Parse(append(append([]byte(`{"v":`), text...), '}'))
		return rawbson.Lookup(doc, "v"), err
	}
	return rawbson.String(string(text)), nil
}

// assembled returns a document, in canonical Extended JSON, that has the content of the
// row's columns.
func assembled(r *row) []byte {
	b := append([]byte(nil), `{"_id":`...)
	if len(r.id) == 24 && r.id[0] != '"' && r.id[0] != '{' {
		b = append(append(append(b, `{"$oid":"`...), r.id...), `"}`...)
	} else {
		b = append(b, r.id...)
	}
	for i, c := range r.columns {
		if c == nil {
			continue
		}
		b = append(append(append(b, ',', '"'), reading.Fields[i]...), '"', ':')
		if i == reading.Payload || i == reading.Meta {
			b = append(b, c...)
		} else {
			b = record.AppendString(b, string(c))
		}
	}
	b = append(b, '}')
	// If the text is not valid Extended JSON, it is returned as a JSON string.
	if doc, err := extjson.Parse(b); err == nil {
		c := extjson.Converter{Dialect: extjson.Canonical}
		if text, err := c.Append(nil, rawbson.Document(doc)); err == nil {
			return text
		}
	}
	return record.AppendString(nil, string(b))
}

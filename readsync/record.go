package main

import (
	"errors"
	"fmt"
)

// row makes a row of an extract record.
func (in streamLine) row(nul nulPolicy) (*row, error) {
	if in.err != nil {
		return nil, in.err
	}
	r := &row{}
	isLetter, hasDocument := false, false
	var failed *refusal
	err := objectFields(in.text, func(key string, raw []byte) (err error) {
		switch key {
		case "mongo_id":
			r.id, err = jsonString(raw)
		case "guard":
			r.guard, err = jsonString(raw)
		case "reason":
			isLetter = true
		case "document", "bson":
			hasDocument = true
		}
		for i, name := range columns {
			if key != name || string(raw) == "null" {
				continue
			}
			switch i {
			case atPayload, atMeta:
				if err := checkJSON(raw, nul); err != nil {
					failed = asRefusal(err).at(name)
				} else if nul != nulKeep {
					raw = plainText(raw)
				}
				r.columns[i] = oneLine(raw)
			default:
				text, err := jsonString(raw)
				if err != nil {
					return fmt.Errorf("%s: %w", name, err)
				}
				column, err := checkText([]byte(text), nul)
				if err == nil && halfSurrogate(raw) {
					err = &refusal{reason: "invalid_utf8"}
				}
				if err == nil && i == atTimestamp {
					var moment []byte
					if moment, err = parseMoment(nil, column); err == nil {
						column = moment
					} else if readable(column) {
						r.unread, err = true, nil
					}
				}
				if r.columns[i] = column; err != nil {
					failed = asRefusal(err).at(name)
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
		l, err := parseLetter(in.text)
		if err != nil {
			return nil, fmt.Errorf("not a record: %w", err)
		}
		r.id = l.id
		r.letter, r.refused = in.text, &refusal{reason: l.reason, text: l.detail}
	case len(r.id) > maxID:
		r.refused = (&refusal{reason: "id_too_long"}).at("mongo_id")
	default:
		r.refused = failed
		if _, err := checkText([]byte(r.id), nulReject); err != nil {
			r.refused = asRefusal(err).at("mongo_id")
		}
		if hasDocument {
			r.letter = in.text
		}
	}
	return r, nil
}

// oneLine makes blanks of the tabs and carriage returns between JSON's tokens; within
// its strings there are none.
func oneLine(raw []byte) []byte {
	for i, c := range raw {
		if c < ' ' {
			raw[i] = ' '
		}
	}
	return raw
}

// halfSurrogate reports whether a JSON string has half a surrogate pair, which
// decoders replace without a word.
func halfSurrogate(raw []byte) bool {
	s := &jsonText{b: raw, strict: true}
	_, err := s.str()
	return err != nil
}

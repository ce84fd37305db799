package readsync

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"go.mongodb.org/mongo-driver/v2/bson"
)

// letter is a line of the dead letter file.
type letter struct {
	MongoID  string `json:"mongo_id"`
	Reason   string
	Document json.RawMessage
	BSON     string
}

// letters returns the complete lines of the dead letter file, by id.
func (h *hub) letters() map[string][]letter {
	h.Helper()
	content, err := os.ReadFile(filepath.Join(h.state, "dead-letters.jsonl"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		h.Fatal(err)
	}
	all := map[string][]letter{}
	for line := range bytes.Lines(content) {
		if !bytes.HasSuffix(line, []byte("\n")) {
			break // the last line is incomplete after a kill and does not count
		}
		var l letter
		if err := json.Unmarshal(line, &l); err != nil {
			h.Fatalf("dead letter: %v in %s", err, clip(string(line)))
		}
		id := normal(h, l.MongoID)
		all[id] = append(all[id], l)
	}
	return all
}

// raw returns the document in a letter.
func (l letter) raw() ([]byte, error) {
	if l.BSON != "" {
		return base64.StdEncoding.DecodeString(l.BSON)
	}
	var d bson.D
	if err := bson.UnmarshalExtJSON(l.Document, true, &d); err != nil {
		return nil, err
	}
	return bson.Marshal(d)
}

// idText returns the mongo_id that the man page promises for an _id: the digits of an ObjectID, otherwise canonical Extended JSON.
func idText(h *hub, id bson.RawValue) string {
	if oid, ok := id.ObjectIDOK(); ok {
		return hex.EncodeToString(oid[:])
	}
	text, err := bson.MarshalExtJSON(bson.D{{Key: "v", Value: id}}, true, false)
	if err != nil {
		h.Fatal(err)
	}
	return strings.TrimSuffix(strings.TrimPrefix(string(text), `{"v":`), "}")
}

// normal returns a mongo_id in the form of idText, because JSON does not define which characters are escaped.
func normal(h *hub, id string) string {
	var d bson.D
	if len(id) == 24 && id[0] != '"' && id[0] != '{' {
		return id
	}
	if err := bson.UnmarshalExtJSON([]byte(`{"v":`+id+"}"), true, &d); err != nil {
		return "not the text of an _id: " + id
	}
	raw, err := bson.Marshal(d)
	if err != nil {
		h.Fatal(err)
	}
	return idText(h, bson.Raw(raw).Lookup("v"))
}

// row is a row of the table.
type row struct{ micros, source, eventType, payload, meta string }

// table returns the rows by mongo_id.
func (h *hub) table() map[string]row {
	h.Helper()
	all := map[string]row{}
	for _, r := range h.rows(`SELECT mongo_id, coalesce((extract(epoch FROM event_timestamp) * 1000000)::numeric(30)::text, 'NULL'), source, event_type, payload, meta FROM reading_analytics`) {
		if _, twice := all[r[0]]; twice {
			h.Errorf("%s has two rows", clip(r[0]))
		}
		all[normal(h, r[0])] = row{r[1], r[2], r[3], r[4], r[5]}
	}
	return all
}

// check tests what must be true at any time and after any kill: marked documents have a row or a dead letter, no document has two dead
// letters, and none has both a row and a dead letter.
func (h *hub) check(event string) {
	h.Helper()
	table, letters := h.table(), h.letters()
	for _, doc := range h.documents() {
		id := idText(h, doc.Lookup("_id"))
		_, there := table[id]
		aside := len(letters[id])
		switch status := doc.Lookup("status").StringValue(); {
		case status == "processed" && !there:
			h.Errorf("%s: %s is marked processed and has no row", event, clip(id))
		case status == "rejected" && aside == 0:
			h.Errorf("%s: %s is marked rejected and has no dead letter", event, clip(id))
		case aside > 1:
			h.Errorf("%s: %s has %d dead letters", event, clip(id), aside)
		case there && aside > 0:
			h.Errorf("%s: %s has a row and a dead letter", event, clip(id))
		}
	}
	if h.Failed() {
		h.FailNow()
	}
}

// settled tests the final state: each document has one row or one dead letter and is marked accordingly, and there are no other rows and
// letters.
func (h *hub) settled(event string) (rows, aside int) {
	h.Helper()
	h.check(event)
	table, letters := h.table(), h.letters()
	documents := h.documents()
	for _, doc := range documents {
		id := idText(h, doc.Lookup("_id"))
		_, there := table[id]
		switch status := doc.Lookup("status").StringValue(); {
		case there && status == "processed":
			rows++
		case len(letters[id]) == 1 && status == "rejected":
			aside++
		default:
			h.Errorf("%s: %s is %s, row %v, %d dead letters", event, clip(id), status, there, len(letters[id]))
		}
	}
	if rows != len(table) || aside != len(letters) {
		h.Errorf("%s: %d rows and %d dead letters for %d and %d documents", event, len(table), len(letters), rows, aside)
	}
	return rows, aside
}

// faithful compares a row with its document, in canonical Extended JSON.
func (h *hub) faithful(doc bson.Raw, got row) {
	h.Helper()
	id := clip(idText(h, doc.Lookup("_id")))
	for name, text := range map[string]string{"payload": got.payload, "meta": got.meta} {
		want, err := canonical(doc.Lookup(name))
		if err != nil {
			h.Fatalf("%s: %s: %v", id, name, err)
		}
		stored, err := canonicalText(text)
		if err != nil {
			h.Errorf("%s: %s: %v in %s", id, name, err, clip(text))
		} else if stored != want {
			h.Errorf("%s: %s = %s; want %s", id, name, clip(stored), clip(want))
		}
	}
	for name, text := range map[string]string{"source": got.source, "event_type": got.eventType} {
		v := doc.Lookup(name)
		want, isText := v.StringValueOK()
		switch {
		case v.IsZero() || v.Type == bson.TypeNull || v.Type == bson.TypeUndefined:
			want = "NULL"
		case !isText: // as canonical Extended JSON
			b, err := bson.MarshalExtJSON(bson.D{{Key: "v", Value: v}}, true, false)
			if err != nil {
				h.Fatal(err)
			}
			want = strings.TrimSuffix(strings.TrimPrefix(string(b), `{"v":`), "}")
		}
		if text != want {
			h.Errorf("%s: %s = %s; want %s", id, name, clip(text), clip(want))
		}
	}
	if want, known := micros(doc.Lookup("timestamp")); known && got.micros != want {
		h.Errorf("%s: event_timestamp is at %s µs; want %s", id, got.micros, want)
	}
}

// micros returns a document's time in microseconds since 1970, if its type has a plain conversion.
func micros(v bson.RawValue) (string, bool) {
	switch v.Type {
	case bson.TypeNull, bson.TypeUndefined, 0:
		return "NULL", true
	case bson.TypeDateTime:
		return strconv.FormatInt(v.DateTime(), 10) + "000", true
	case bson.TypeInt32:
		return strconv.FormatInt(int64(v.Int32())*1000000, 10), true
	}
	return "", false
}

// canonical returns a value in canonical Extended JSON, with sorted keys, because jsonb does not preserve their order, and with integers
// without their width, because relaxed Extended JSON does not preserve it.
func canonical(v bson.RawValue) (string, error) {
	if v.IsZero() || v.Type == bson.TypeUndefined { // an undefined field is stored as NULL
		return "null", nil
	}
	var b strings.Builder
	err := appendCanonical(&b, v)
	return b.String(), err
}

// canonicalText returns the text of a column in the form of canonical.
func canonicalText(text string) (string, error) {
	if text == "NULL" {
		return "null", nil
	}
	var d bson.D
	if err := bson.UnmarshalExtJSON([]byte(`{"v":`+text+`}`), false, &d); err != nil {
		return "", err
	}
	raw, err := bson.Marshal(d)
	if err != nil {
		return "", err
	}
	return canonical(bson.Raw(raw).Lookup("v"))
}

func appendCanonical(b *strings.Builder, v bson.RawValue) error {
	switch v.Type {
	case bson.TypeEmbeddedDocument:
		elements, err := v.Document().Elements()
		if err != nil {
			return err
		}
		slices.SortFunc(elements, func(a, b bson.RawElement) int { return cmp.Compare(a.Key(), b.Key()) })
		b.WriteString("{")
		for _, e := range elements {
			fmt.Fprintf(b, "%q:", e.Key())
			if err := appendCanonical(b, e.Value()); err != nil {
				return err
			}
			b.WriteString(",")
		}
		b.WriteString("}")
	case bson.TypeArray:
		values, err := v.Array().Values()
		if err != nil {
			return err
		}
		b.WriteString("[")
		for _, e := range values {
			if err := appendCanonical(b, e); err != nil {
				return err
			}
			b.WriteString(",")
		}
		b.WriteString("]")
	case bson.TypeNull:
		b.WriteString("null")
	case bson.TypeInt32, bson.TypeInt64:
		fmt.Fprintf(b, `{"$number":"%d"}`, v.AsInt64())
	case bson.TypeDouble:
		fmt.Fprintf(b, `{"$numberDouble":"%x"}`, math.Float64bits(v.Double()))
	case bson.TypeCodeWithScope:
		code, scope := v.CodeWithScope()
		fmt.Fprintf(b, `{"$code":%q,"$scope":`, code)
		if err := appendCanonical(b, bson.RawValue{Type: bson.TypeEmbeddedDocument, Value: scope}); err != nil {
			return err
		}
		b.WriteString("}")
	default:
		text, err := bson.MarshalExtJSON(bson.D{{Key: "v", Value: v}}, true, false)
		if err != nil {
			return err
		}
		b.Write(text)
	}
	return nil
}

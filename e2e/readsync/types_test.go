package readsync

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/x/bsonx/bsoncore"

	"observability-hub/e2e/mongowire"
)

// sample is a value that a document may have.
type sample struct {
	name  string
	value any
	// poison is true if neither a jsonb column nor a text column can store the value.
	poison bool
}

func text(s string) bson.RawValue {
	return bson.RawValue{Type: bson.TypeString, Value: bsoncore.AppendString(nil, s)}
}

func decimal(s string) bson.Decimal128 {
	d, err := bson.ParseDecimal128(s)
	if err != nil {
		panic(err)
	}
	return d
}

// nested returns a document with that many levels.
func nested(levels int) any {
	var v any = int32(1)
	for range levels {
		v = bson.D{{Key: "n", Value: v}}
	}
	return v
}

// samples returns values of each BSON type, including difficult ones.
func samples() []sample {
	twice := bson.RawValue{Type: bson.TypeEmbeddedDocument, Value: bsoncore.NewDocumentBuilder().AppendInt32("a", 1).AppendInt32("a", 2).Build()}
	return []sample{
		{"double", 1.5, false},
		{"double whole", 3.0, false},
		{"double large", 1e300, false},
		{"double small", 5e-324, false},
		{"double third", 1.0 / 3, false},
		{"double negative zero", math.Copysign(0, -1), false},
		{"NaN", math.NaN(), false},
		{"infinity", math.Inf(1), false},
		{"negative infinity", math.Inf(-1), false},
		{"string", "text", false},
		{"string empty", "", false},
		{"string JSON", "{\"a\": \"b\\u0000\\\\\"}\n\t\x01\x7f\u2028", false},
		{"string COPY", "\\.\n\\N\t\r\n\\x", false},
		{"string astral", "😀\U0010ffff", false},
		{"string NUL", "a\x00b", true},
		{"string not UTF-8", text("a\xff"), true},
		{"string lone surrogate", text("\xed\xa0\x80"), true},
		{"document", bson.D{{Key: "b", Value: int32(1)}, {Key: "a", Value: bson.A{int32(1), "x", nil}}}, false},
		{"document empty", bson.D{}, false},
		{"document odd keys", bson.D{{Key: "", Value: int32(1)}, {Key: "$a.b", Value: int32(2)}, {Key: "\"\\\n", Value: int32(3)}}, false},
		{"document NUL inside", bson.D{{Key: "a", Value: bson.A{"x", bson.D{{Key: "b", Value: "\x00"}}}}}, true},
		{"document twice", twice, true},
		{"document deep", nested(95), false},
		{"array", bson.A{int32(1), int32(2)}, false},
		{"array empty", bson.A{}, false},
		{"binary", bson.Binary{Subtype: 0, Data: []byte{0, 1, 255}}, false},
		{"binary empty", bson.Binary{Subtype: 0x80}, false},
		{"binary old", bson.Binary{Subtype: 2, Data: []byte{1, 2, 3}}, false},
		{"UUID", bson.Binary{Subtype: 4, Data: []byte("0123456789abcdef")}, false},
		{"undefined", bson.Undefined{}, false},
		{"ObjectID", bson.ObjectID{1, 2, 3}, false},
		{"string like an ObjectID", bson.ObjectID{1, 2, 3}.Hex(), false},
		{"true", true, false},
		{"false", false, false},
		{"date", bson.DateTime(1772366400123), false},
		{"date before 1970", bson.DateTime(-1), false},
		{"date of year 1", bson.DateTime(-62135596800000), false},
		{"date before Christ", bson.DateTime(-62135596800001), false},
		{"date of year 9999", bson.DateTime(253402300799999), false},
		{"date of year 10000", bson.DateTime(253402300800000), false},
		{"date of year 294277", bson.DateTime(9224318016000000), false},
		{"date first", bson.DateTime(math.MinInt64), false},
		{"date last", bson.DateTime(math.MaxInt64), false},
		{"null", nil, false},
		{"regex", bson.Regex{Pattern: "^a\"\\", Options: "imx"}, false},
		{"DBPointer", bson.DBPointer{DB: "a.b", Pointer: bson.ObjectID{9}}, false},
		{"code", bson.JavaScript("f(\"\")"), false},
		{"code NUL", bson.JavaScript("\x00"), true},
		{"symbol", bson.Symbol("s"), false},
		{"symbol NUL", bson.Symbol("\x00"), true},
		{"code with scope", bson.CodeWithScope{Code: "g()", Scope: bson.D{{Key: "x", Value: math.NaN()}}}, false},
		{"int32", int32(7), false},
		{"int32 least", int32(math.MinInt32), false},
		{"timestamp", bson.Timestamp{T: 1772366400, I: 7}, false},
		{"timestamp last", bson.Timestamp{T: math.MaxUint32, I: math.MaxUint32}, false},
		{"int64", int64(1772366400000), false},
		{"int64 just exact", int64(1 << 53), false},
		{"int64 beyond", int64(1<<53 + 1), false},
		{"int64 least", int64(math.MinInt64), false},
		{"int64 most", int64(math.MaxInt64), false},
		{"decimal", decimal("1.10"), false},
		{"decimal digits", decimal("9.999999999999999999999999999999999E+6144"), false},
		{"decimal small", decimal("1E-6176"), false},
		{"decimal NaN", decimal("NaN"), false},
		{"decimal infinity", decimal("-Infinity"), false},
		{"MinKey", bson.MinKey{}, false},
		{"MaxKey", bson.MaxKey{}, false},
	}
}

// types puts each sample into each field and into _id. It returns which of the documents cannot become rows.
func types(h *hub) (poisoned map[string]bool) {
	poisoned = map[string]bool{}
	n := 0
	add := func(poison bool, id any, fields ...bson.E) {
		n++
		if id == nil {
			id = objectID(n)
		}
		doc := document(h, id, fields...)
		poisoned[idText(h, bson.Raw(doc).Lookup("_id"))] = poison
		h.put(doc)
	}
	for _, s := range samples() {
		for _, field := range []string{"payload", "meta"} {
			add(s.poison, nil, bson.E{Key: field, Value: s.value})
		}
		// Text columns and mongo_id store a string unchanged, and anything else as canonical Extended JSON, which escapes NUL.
		harmless := strings.HasSuffix(s.name, "NUL") && s.name != "string NUL" || s.name == "document NUL inside"
		for _, field := range []string{"source", "event_type"} {
			add(s.poison && !harmless, nil, bson.E{Key: field, Value: s.value})
		}
		add(s.poison, nil, bson.E{Key: "payload", Value: bson.A{bson.D{{Key: "deep", Value: s.value}}}})
		add(s.poison || !isMoment(s.name), nil, bson.E{Key: "timestamp", Value: s.value})
		switch v, _ := s.value.(bson.RawValue); {
		case strings.HasPrefix(s.name, "array"), s.name == "regex", s.name == "undefined", s.name == "document odd keys":
			// No server accepts these as an _id.
		case s.value == nil:
			add(s.poison, bson.RawValue{Type: bson.TypeNull})
		case v.Type == bson.TypeString || s.name == "document twice":
			// TestIDsWithoutText tests these, which have no unique text.
		default:
			add(false, s.value)
		}
	}
	// Documents without one of the fields, without all of them, and with an additional field.
	for _, field := range []string{"payload", "meta", "source", "event_type", "timestamp"} {
		n++
		doc := bsoncore.NewDocumentBuilder().AppendObjectID("_id", objectID(n)).AppendString("status", "ingested")
		if field != "source" {
			doc.AppendString("source", "without "+field)
		}
		h.put(doc.Build())
		poisoned[objectID(n).Hex()] = false
	}
	add(false, nil, bson.E{Key: "other", Value: "\x00"})
	// Long ids: a key of an index has at most about 2,700 bytes.
	add(false, strings.Repeat("ä", 1200))
	add(true, strings.Repeat("x", 3000))
	add(true, strings.Repeat("x", 100000))
	// Large documents: 15 MiB of text, and 200,000 small values.
	add(false, nil, bson.E{Key: "payload", Value: strings.Repeat("x", 15<<20)})
	var values bson.A
	for i := range 200000 {
		values = append(values, float64(i)+0.5)
	}
	add(false, nil, bson.E{Key: "payload", Value: values})
	// Ids of several types are equal, such as the NaN of double and of Decimal128. The last one replaces the others.
	there := map[string]bool{}
	for _, doc := range h.documents() {
		there[idText(h, doc.Lookup("_id"))] = true
	}
	maps.DeleteFunc(poisoned, func(id string, _ bool) bool { return !there[id] })
	return poisoned
}

// isMoment reports whether PostgreSQL can store a sample as a time. Numbers are seconds or milliseconds since 1970.
func isMoment(name string) bool {
	switch name {
	case "date", "date before 1970", "date of year 1", "date before Christ", "date of year 9999", "date of year 10000", "null", "timestamp", "timestamp last",
		"int32", "int32 least", "int64", "double", "double whole", "double small", "double third", "double negative zero", "decimal", "decimal small", "undefined":
		return true
	}
	return false
}

// checkTypes tests that each document has the expected outcome.
func checkTypes(h *hub, poisoned map[string]bool, sameDocument func(*hub, bson.Raw, letter)) {
	h.Helper()
	rows, aside := h.settled("types")
	h.Logf("%d documents: %d rows, %d dead letters", rows+aside, rows, aside)
	table, letters := h.table(), h.letters()
	for _, doc := range h.documents() {
		id := idText(h, doc.Lookup("_id"))
		r, there := table[id]
		switch {
		case there && poisoned[id]:
			h.Errorf("%s is a row; want a dead letter: %s", clip(id), clip(doc.String()))
		case !there && !poisoned[id]:
			h.Errorf("%s is a dead letter, %s: %s", clip(id), letters[id][0].Reason, clip(doc.String()))
		case there:
			h.faithful(doc, r)
		default:
			sameDocument(h, doc, letters[id][0])
		}
	}
	want := account{Read: len(poisoned)}
	for _, p := range poisoned {
		if p {
			want.Rejected++
		}
	}
	want.Inserted = want.Read - want.Rejected
	if aside != want.Rejected || rows != want.Inserted {
		h.Errorf("%d rows and %d dead letters; want %d and %d", rows, aside, want.Inserted, want.Rejected)
	}
}

// exact tests that a dead letter contains exactly the bytes of the document, except its status.
func (h *hub) exact(doc bson.Raw, l letter) {
	h.Helper()
	raw, err := l.raw()
	if err != nil {
		h.Errorf("dead letter of %s: %v", clip(l.MongoID), err)
		return
	}
	now := strings.Replace(string(doc), "\x02status\x00\x09\x00\x00\x00rejected\x00", "\x02status\x00\x09\x00\x00\x00ingested\x00", 1)
	if string(raw) != now {
		h.Errorf("dead letter of %s:\n%s\nwant:\n%s", clip(l.MongoID), clip(fmt.Sprintf("%q", raw)), clip(fmt.Sprintf("%q", now)))
	}
}

// sameFields tests that a dead letter contains the synced fields. load does not have more of a document that it rejects.
func (h *hub) sameFields(doc bson.Raw, l letter) {
	h.Helper()
	raw, err := l.raw()
	if err != nil {
		h.Errorf("dead letter of %s: %v", clip(l.MongoID), err)
		return
	}
	for _, name := range []string{"_id", "source", "event_type", "payload", "meta"} {
		got, err := canonical(bson.Raw(raw).Lookup(name))
		if want, wantErr := canonical(doc.Lookup(name)); got != want || err != nil || wantErr != nil {
			h.Errorf("dead letter of %s: %s = %s, %v; want %s, %v", clip(l.MongoID), name, clip(got), err, clip(want), wantErr)
		}
	}
}

func TestTypesThroughRun(t *testing.T) {
	t.Parallel()
	h := newHub(t, mongowire.Config{})
	poisoned := types(h)
	got := h.want(exitPartial, h.command("run", "--max-rejects", "100000"))
	checkTypes(h, poisoned, (*hub).exact)
	if a := got.account(t); a.Read != len(poisoned) || a.Read != a.Inserted+a.Rejected {
		t.Errorf("account %+v of %d documents", a, len(poisoned))
	}
	// A second run has nothing to do.
	again := h.want(0, h.command("run"))
	if a := again.account(t); a.Read != 0 {
		t.Errorf("a second run: %+v", a)
	}
}

func TestTypesThroughPipe(t *testing.T) {
	t.Parallel()
	h := newHub(t, mongowire.Config{})
	poisoned := types(h)
	h.want(exitPartial, h.shell("readsync extract | readsync load --max-rejects 100000 | readsync mark"))
	checkTypes(h, poisoned, (*hub).sameFields)
}

// TestTypesAgain has the row of every document already, as after a run that was killed before it could mark. All are identical.
func TestTypesAgain(t *testing.T) {
	t.Parallel()
	h := newHub(t, mongowire.Config{})
	poisoned := types(h)
	for id, poison := range maps.Clone(poisoned) {
		if poison {
			delete(poisoned, id)
		}
	}
	// Keep only the documents that can become rows.
	all := h.documents()
	h.mongo.Drop(database, collection)
	for _, doc := range all {
		if _, ok := poisoned[idText(h, doc.Lookup("_id"))]; ok {
			h.put(slices.Clone(doc))
		}
	}
	h.want(0, h.shell("readsync extract | readsync load"))
	got := h.want(0, h.command("run"))
	if a := got.account(t); a.Identical != len(poisoned) || a.Read != a.Identical {
		t.Errorf("account %+v; want all %d identical", a, len(poisoned))
	}
	h.settled("again")
}

// TestIDsWithoutText uses different ids that have the same text in Extended JSON.
func TestIDsWithoutText(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"run", "pipe"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			h := newHub(t, mongowire.Config{})
			for _, id := range []any{
				text("a\xff"), text("a\xfe"), text("\xed\xa0\x80"), text("\xed\xb0\x80"), "a\ufffd",
				bson.RawValue{Type: bson.TypeEmbeddedDocument, Value: bsoncore.NewDocumentBuilder().AppendInt32("a", 1).AppendInt32("a", 2).Build()},
				bson.D{{Key: "a", Value: int32(2)}},
			} {
				h.put(document(t, id))
			}
			cmd := h.command("run", "--max-rejects", "10")
			if how == "pipe" {
				cmd = h.shell("readsync extract | readsync load --max-rejects 10 | readsync mark")
			}
			h.want(exitPartial, cmd)
			if rows := h.count(); rows != 2 {
				t.Errorf("%d rows; want 2", rows)
			}
			statuses := h.statuses()
			if how == "run" && (statuses["processed"] != 2 || statuses["rejected"] != 5) || statuses["processed"] > 2 {
				t.Errorf("statuses %v; want 2 processed and 5 rejected", statuses)
			}
			letters := map[string]bool{}
			for _, same := range h.letters() {
				for _, l := range same {
					raw, err := l.raw()
					if err != nil || letters[string(raw)] {
						t.Errorf("dead letter %s: %v, or a second time", l.MongoID, err)
					}
					letters[string(raw)] = true
				}
			}
			if len(letters) != 5 {
				t.Errorf("%d dead letters; want 5", len(letters))
			}
		})
	}
}

// TestIDsWithTheTextOfOthers uses ids that are objects with the keys of Extended JSON. Older versions of MongoDB and other servers accept
// them.
func TestIDsWithTheTextOfOthers(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"run", "pipe"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			h := newHub(t, mongowire.Config{})
			oid := bson.ObjectID{10}
			plain := []any{int32(5), oid, bson.DateTime(5), bson.D{{Key: "a", Value: int32(7)}}, `{"$numberInt":"5"}`, bson.D{{Key: "$odd", Value: "x"}}, bson.D{{Key: "a.b", Value: math.NaN()}}}
			ambiguous := []any{
				bson.D{{Key: "$numberInt", Value: "5"}}, bson.D{{Key: "$oid", Value: oid.Hex()}}, bson.D{{Key: "$date", Value: bson.D{{Key: "$numberLong", Value: "5"}}}},
				bson.D{{Key: "a", Value: bson.D{{Key: "$numberInt", Value: "7"}}}}, bson.D{{Key: "$minKey", Value: int32(1)}},
			}
			for i, id := range slices.Concat(plain, ambiguous) {
				h.put(document(t, id, bson.E{Key: "payload", Value: int32(i)}))
			}
			cmd := h.command("run", "--max-rejects", "10")
			if how == "pipe" {
				cmd = h.shell("readsync extract | readsync load --max-rejects 10 | readsync mark")
			}
			h.want(exitPartial, cmd)
			if rows := h.rows("SELECT count(*), count(*) FILTER (WHERE payload::int < 7) FROM reading_analytics"); fmt.Sprint(rows) != "[[7 7]]" {
				t.Errorf("rows, and rows of unambiguous ids: %v; want 7 and 7", rows)
			}
			for _, doc := range h.documents() {
				status, n := doc.Lookup("status").StringValue(), doc.Lookup("payload").Int32()
				// mark knows only the text of an id, so rejected documents may stay ingested.
				if n < 7 && status != "processed" || n >= 7 && status != "rejected" && (how == "run" || status != "ingested") {
					t.Errorf("%s is %s", doc.Lookup("_id"), status)
				}
			}
			aside := 0
			for _, same := range h.letters() {
				for _, l := range same {
					if aside++; l.Reason != "ambiguous_id" {
						t.Errorf("%s: %s", l.MongoID, l.Reason)
					}
				}
			}
			if aside != len(ambiguous) {
				t.Errorf("%d dead letters; want %d", aside, len(ambiguous))
			}
		})
	}
}

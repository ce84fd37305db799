package guard

import (
	"testing"

	"go.mongodb.org/mongo-driver/v2/bson"

	"observability-hub/readsync/internal/rawbson"
)

var names = []string{"timestamp", "source", "payload", "meta"}

// read returns the Document of a document.
func read(t *testing.T, doc bson.D) Document {
	t.Helper()
	raw, err := bson.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	d := Document{ID: rawbson.Lookup(raw, "_id")}
	for _, name := range names {
		d.Fields = append(d.Fields, rawbson.Lookup(raw, name))
	}
	return d
}

func text(t *testing.T, doc []byte) string {
	t.Helper()
	got, err := bson.MarshalExtJSON(bson.Raw(doc), false, false)
	if err != nil {
		t.Fatal(err)
	}
	return string(got)
}

// The filter requires that every field is unchanged and that missing fields are still
// missing.
func TestFilter(t *testing.T) {
	for _, tc := range []struct {
		doc  bson.D
		want string
	}{
		{bson.D{{Key: "_id", Value: int32(5)}, {Key: "payload", Value: bson.D{{Key: "$gt", Value: 1}}}, {Key: "meta", Value: bson.Undefined{}}, {Key: "source", Value: nil}},
			`{"_id":5,"timestamp":{"$exists":false},"source":{"$eq":null},"payload":{"$eq":{"$gt":1}},"meta":{"$type":6}}`},
		{bson.D{{Key: "_id", Value: bson.D{{Key: "$in", Value: "x"}}}, {Key: "timestamp", Value: "t"}},
			`{"_id":{"$eq":{"$in":"x"}},"timestamp":{"$eq":"t"},"source":{"$exists":false},"payload":{"$exists":false},"meta":{"$exists":false}}`},
	} {
		d := read(t, tc.doc)
		if got := text(t, rawbson.AppendDocument(nil, func(b []byte) []byte { return AppendFilter(b, names, d) })); got != tc.want {
			t.Errorf("the guard of %v is %s; want %s", tc.doc, got, tc.want)
		}
	}
}

// The command has one statement for each document. The statements are independent of each
// other.
func TestUpdate(t *testing.T) {
	docs := []Document{read(t, bson.D{{Key: "_id", Value: "a"}}), read(t, bson.D{{Key: "_id", Value: "b"}, {Key: "source", Value: "s"}})}
	const set = `"u":{"$set":{"status":"processed"}},"multi":true}`
	want := `{"update":"readings","ordered":false,"writeConcern":{"w":"majority"},"updates":[` +
		`{"q":{"status":"ingested","_id":"a","timestamp":{"$exists":false},"source":{"$exists":false},"payload":{"$exists":false},"meta":{"$exists":false}},` + set + `,` +
		`{"q":{"status":"ingested","_id":"b","timestamp":{"$exists":false},"source":{"$eq":"s"},"payload":{"$exists":false},"meta":{"$exists":false}},` + set + `]}`
	if got := text(t, AppendUpdate(nil, "readings", names, docs, "ingested", "processed")); got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
	if err := bson.Raw(AppendUpdate(nil, "readings", names, docs, "ingested", "processed")).Validate(); err != nil {
		t.Errorf("the command is not valid BSON: %v", err)
	}
}

package mongowire

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/mongo/writeconcern"
)

// connect returns a collection of the server, through the real driver.
func connect(t *testing.T, s *Server, configure ...func(*options.ClientOptions)) *mongo.Collection {
	t.Helper()
	o := options.Client().ApplyURI(s.URI()).SetServerSelectionTimeout(5 * time.Second).SetWriteConcern(writeconcern.Majority())
	for _, f := range configure {
		f(o)
	}
	client, err := mongo.Connect(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := client.Disconnect(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return client.Database("hub").Collection("readings")
}

// find returns the _ids of the documents that a filter matches, as Extended JSON.
func find(t *testing.T, c *mongo.Collection, filter any, o ...options.Lister[options.FindOptions]) (ids []string) {
	t.Helper()
	ctx := t.Context()
	cur, err := c.Find(ctx, filter, o...)
	if err != nil {
		t.Fatalf("find %v: %v", filter, err)
	}
	defer cur.Close(ctx)
	for cur.Next(ctx) {
		ids = append(ids, cur.Current.Lookup("_id").String())
	}
	if err := cur.Err(); err != nil {
		t.Fatalf("find %v: %v", filter, err)
	}
	return ids
}

func TestWritesAndReads(t *testing.T) {
	for _, set := range []string{"", "rs0"} {
		t.Run("replica set "+set, func(t *testing.T) {
			s := Run(t, Config{ReplicaSet: set})
			c := connect(t, s)
			ctx := t.Context()
			var docs []any
			for i := range 2500 {
				docs = append(docs, bson.D{{Key: "_id", Value: i}, {Key: "status", Value: "ingested"}})
			}
			if _, err := c.InsertMany(ctx, docs); err != nil {
				t.Fatal(err)
			}
			if got := find(t, c, bson.D{}); len(got) != 2500 {
				t.Errorf("%d documents found; want 2500", len(got))
			}
			batch := find(t, c, bson.D{{Key: "status", Value: "ingested"}, {Key: "_id", Value: bson.D{{Key: "$gt", Value: 999}}}},
				options.Find().SetSort(bson.D{{Key: "_id", Value: 1}}).SetLimit(1000).SetBatchSize(300))
			if len(batch) != 1000 || batch[0] != `{"$numberInt":"1000"}` || batch[999] != `{"$numberInt":"1999"}` {
				t.Errorf("keyset batch: %d documents, %s to %s", len(batch), batch[0], batch[len(batch)-1])
			}
			many, err := c.UpdateMany(ctx, bson.D{{Key: "_id", Value: bson.D{{Key: "$in", Value: []int{1, 2, 3, 9999}}}}, {Key: "status", Value: "ingested"}},
				bson.D{{Key: "$set", Value: bson.D{{Key: "status", Value: "processed"}, {Key: "at", Value: 1}}}})
			if err != nil || many.MatchedCount != 3 || many.ModifiedCount != 3 {
				t.Errorf("UpdateMany = %+v, %v; want 3 matched and modified", many, err)
			}
			one, err := c.UpdateOne(ctx, bson.D{{Key: "_id", Value: 1}, {Key: "status", Value: "ingested"}}, bson.D{{Key: "$set", Value: bson.D{{Key: "status", Value: "x"}}}})
			if err != nil || one.MatchedCount != 0 {
				t.Errorf("guarded UpdateOne = %+v, %v; want no match", one, err)
			}
			bulk, err := c.BulkWrite(ctx, []mongo.WriteModel{
				mongo.NewUpdateOneModel().SetFilter(bson.D{{Key: "_id", Value: 5}}).SetUpdate(bson.D{{Key: "$set", Value: bson.D{{Key: "status", Value: "rejected"}}}}),
				mongo.NewUpdateManyModel().SetFilter(bson.D{{Key: "status", Value: "processed"}}).SetUpdate(bson.D{{Key: "$unset", Value: bson.D{{Key: "at", Value: ""}}}}),
				mongo.NewDeleteOneModel().SetFilter(bson.D{{Key: "_id", Value: 7}}),
				mongo.NewInsertOneModel().SetDocument(bson.D{{Key: "_id", Value: "new"}}),
				mongo.NewUpdateOneModel().SetFilter(bson.D{{Key: "_id", Value: "upserted"}}).SetUpdate(bson.D{{Key: "$set", Value: bson.D{{Key: "a", Value: 1}}}}).SetUpsert(true),
			})
			if err != nil || bulk.MatchedCount != 4 || bulk.DeletedCount != 1 || bulk.InsertedCount != 1 || bulk.UpsertedCount != 1 {
				t.Errorf("BulkWrite = %+v, %v", bulk, err)
			}
			n, err := c.CountDocuments(ctx, bson.D{{Key: "status", Value: "processed"}, {Key: "at", Value: bson.D{{Key: "$exists", Value: false}}}})
			if err != nil || n != 3 {
				t.Errorf("CountDocuments = %d, %v; want 3", n, err)
			}
			if n, err := c.EstimatedDocumentCount(ctx); err != nil || n != 2501 {
				t.Errorf("EstimatedDocumentCount = %d, %v; want 2501", n, err)
			}
			if n, err := c.CountDocuments(ctx, bson.D{{Key: "status", Value: "nothing"}}); err != nil || n != 0 {
				t.Errorf("CountDocuments = %d, %v; want 0", n, err)
			}
			_, err = c.InsertOne(ctx, bson.D{{Key: "_id", Value: "new"}})
			if !mongo.IsDuplicateKeyError(err) {
				t.Errorf("insert of a second document with the same _id: %v", err)
			}
			if _, err := c.Indexes().CreateOne(ctx, mongo.IndexModel{Keys: bson.D{{Key: "status", Value: 1}, {Key: "_id", Value: 1}}}); err != nil {
				t.Error(err)
			}
			var got bson.D
			err = c.FindOne(ctx, bson.D{{Key: "_id", Value: 2}}, options.FindOne().SetProjection(bson.D{{Key: "status", Value: 1}})).Decode(&got)
			if want := (bson.D{{Key: "_id", Value: int32(2)}, {Key: "status", Value: "processed"}}); err != nil || !slices.Equal(got, want) {
				t.Errorf("FindOne = %v, %v; want %v", got, err, want)
			}
			if s.Cursors() != 0 {
				t.Errorf("%d cursors are open", s.Cursors())
			}
		})
	}
}

// everyType has values of each BSON type, in MongoDB's sort order.
var everyType = []any{
	bson.MinKey{}, bson.Null{},
	math.NaN(), math.Inf(-1), int64(math.MinInt64), -1.5, int32(0), 0.5, must(bson.ParseDecimal128("0.75")), int32(1), int64(math.MaxInt64), must(bson.ParseDecimal128("9223372036854775807.5")), math.MaxFloat64, must(bson.ParseDecimal128("1E+6144")), math.Inf(1),
	"", "a", bson.Symbol("b"), "bb", "ä",
	bson.D{}, bson.D{{Key: "a", Value: 1}}, bson.D{{Key: "b", Value: 1}}, bson.D{{Key: "a", Value: "text"}},
	bson.Binary{Subtype: 0, Data: []byte{9}}, bson.Binary{Subtype: 4, Data: []byte{1}}, bson.Binary{Subtype: 0, Data: []byte{1, 2}},
	bson.ObjectID{1}, bson.ObjectID{2},
	false, true,
	bson.DateTime(math.MinInt64), bson.DateTime(0), bson.DateTime(math.MaxInt64),
	bson.Timestamp{T: 1, I: 2}, bson.Timestamp{T: math.MaxUint32, I: 0},
	bson.DBPointer{DB: "x", Pointer: bson.ObjectID{1}},
	bson.JavaScript("f()"),
	bson.CodeWithScope{Code: "f()", Scope: bson.D{}},
	bson.MaxKey{},
}

func must(d bson.Decimal128, err error) bson.Decimal128 {
	if err != nil {
		panic(err)
	}
	return d
}

func raw(t *testing.T, d bson.D) []byte {
	t.Helper()
	b, err := bson.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestOrderOfTypes(t *testing.T) {
	s := Run(t, Config{})
	c := connect(t, s)
	var want []string
	for i := range everyType {
		v := everyType[len(everyType)-1-i]
		if err := s.Put("hub", "readings", raw(t, bson.D{{Key: "_id", Value: v}, {Key: "status", Value: "ingested"}})); err != nil {
			t.Fatal(err)
		}
	}
	for _, v := range everyType {
		want = append(want, bson.Raw(raw(t, bson.D{{Key: "_id", Value: v}})).Lookup("_id").String())
	}
	if got := find(t, c, bson.D{}, options.Find().SetSort(bson.D{{Key: "_id", Value: 1}})); !slices.Equal(got, want) {
		t.Errorf("sorted:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	// A find without sort returns the documents in the order of their arrival.
	back := slices.Clone(want)
	slices.Reverse(back)
	if got := find(t, c, bson.D{{Key: "status", Value: "ingested"}}); !slices.Equal(got, back) {
		t.Errorf("unsorted: %q", got)
	}
	if got := find(t, c, bson.D{}, options.Find().SetSort(bson.D{{Key: "_id", Value: -1}})); !slices.Equal(got, back) {
		t.Errorf("backwards: %q", got)
	}
	// $expr and min compare values of all types.
	for i, v := range everyType {
		got := find(t, c, bson.D{{Key: "$expr", Value: bson.D{{Key: "$gt", Value: bson.A{"$_id", bson.D{{Key: "$literal", Value: v}}}}}}}, options.Find().SetSort(bson.D{{Key: "_id", Value: 1}}))
		if !slices.Equal(got, want[i+1:]) {
			t.Errorf("$expr above %s: %q; want %q", want[i], got, want[i+1:])
		}
		got = find(t, c, bson.D{}, options.Find().SetMin(bson.D{{Key: "_id", Value: v}}).SetHint(bson.D{{Key: "_id", Value: 1}}))
		if !slices.Equal(got, want[i:]) {
			t.Errorf("min %s: %q; want %q", want[i], got, want[i:])
		}
		if got := find(t, c, bson.D{{Key: "_id", Value: v}}); !slices.Equal(got, want[i:i+1]) {
			t.Errorf("equal to %s: %q", want[i], got)
		}
		if got := find(t, c, bson.D{{Key: "_id", Value: bson.D{{Key: "$in", Value: bson.A{v, 77}}}}}); !slices.Equal(got, want[i:i+1]) {
			t.Errorf("in %s: %q", want[i], got)
		}
	}
}

func TestFilters(t *testing.T) {
	s := Run(t, Config{})
	c := connect(t, s)
	docs := []bson.D{
		{{Key: "_id", Value: 1}, {Key: "a", Value: 1}},
		{{Key: "_id", Value: 2}, {Key: "a", Value: "1"}},
		{{Key: "_id", Value: 3}, {Key: "a", Value: nil}},
		{{Key: "_id", Value: 4}},
		{{Key: "_id", Value: 5}, {Key: "a", Value: bson.A{1, "x", nil}}},
		{{Key: "_id", Value: 6}, {Key: "a", Value: 1.0}},
		{{Key: "_id", Value: 7}, {Key: "a", Value: math.NaN()}},
		{{Key: "_id", Value: 8}, {Key: "a", Value: bson.D{{Key: "b", Value: bson.A{bson.D{{Key: "c", Value: 2}}}}}}},
		{{Key: "_id", Value: 9}, {Key: "a", Value: must(bson.ParseDecimal128("1.00"))}},
		{{Key: "_id", Value: "s"}, {Key: "a", Value: true}},
	}
	for _, d := range docs {
		if err := s.Put("hub", "readings", raw(t, d)); err != nil {
			t.Fatal(err)
		}
	}
	op := func(name string, v any) bson.D { return bson.D{{Key: name, Value: v}} }
	a := func(v any) bson.D { return op("a", v) }
	for _, test := range []struct {
		filter bson.D
		want   string
	}{
		{bson.D{}, "1 2 3 4 5 6 7 8 9 s"},
		{a(1), "1 5 6 9"},
		{a("1"), "2"},
		{a(nil), "3 4 5"},
		{a(op("$ne", nil)), "1 2 6 7 8 9 s"},
		{a(op("$exists", true)), "1 2 3 5 6 7 8 9 s"},
		{a(op("$exists", false)), "4"},
		{a(op("$gt", 0)), "1 5 6 9"},
		{a(op("$gte", math.NaN())), "7"},
		{a(op("$gt", math.NaN())), ""},
		{a(op("$lt", 5)), "1 5 6 9"},
		{a(op("$lt", "2")), "2"},
		{a(op("$gte", nil)), "3 4 5"},
		{a(op("$gt", nil)), ""},
		{a(op("$in", bson.A{"1", true, nil})), "2 3 4 5 s"},
		{a(op("$nin", bson.A{"1", true, nil})), "1 6 7 8 9"},
		{a(op("$type", "number")), "1 5 6 7 9"},
		{a(op("$type", bson.A{"string", 8})), "2 5 s"},
		{a(op("$type", "array")), "5"},
		{a(op("$type", 10)), "3 5"},
		{a(op("$not", op("$gt", 0))), "2 3 4 7 8 s"},
		{op("a.b.c", 2), "8"},
		{op("a.b.d", nil), "1 2 3 4 6 7 8 9 s"},
		{op("$or", bson.A{a("1"), a(true)}), "2 s"},
		{op("$nor", bson.A{a("1"), a(true), a(1)}), "3 4 7 8"},
		{op("$and", bson.A{a(1), op("_id", op("$gt", 1))}), "5 6 9"},
		{op("_id", bson.D{{Key: "$gte", Value: 3}, {Key: "$lt", Value: 6}}), "3 4 5"},
		{op("_id", op("$gt", "")), "s"},
		{op("$or", bson.A{op("_id", op("$gt", 8)), op("_id", op("$type", "string"))}), "9 s"},
		{op("_id", op("$gte", bson.MinKey{})), "1 2 3 4 5 6 7 8 9 s"},
		{op("_id", op("$lt", bson.MaxKey{})), "1 2 3 4 5 6 7 8 9 s"},
	} {
		var got []string
		for _, id := range find(t, c, test.filter, options.Find().SetSort(bson.D{{Key: "_id", Value: 1}})) {
			id = strings.TrimSuffix(strings.TrimPrefix(id, `{"$numberInt":"`), `"}`)
			got = append(got, strings.Trim(id, `"`))
		}
		if joined := strings.Join(got, " "); joined != test.want {
			t.Errorf("%v: %s; want %s", test.filter, joined, test.want)
		}
	}
	for _, bad := range []bson.D{op("$where", "1"), a(op("$regex", "x")), op("$or", bson.A{}), a(op("$in", 1))} {
		cur, err := c.Find(t.Context(), bad)
		var ce mongo.CommandError
		if !errors.As(err, &ce) || ce.Code != 2 {
			t.Errorf("%v: %v, %v; want error 2", bad, cur, err)
		}
	}
}

func TestRawDocuments(t *testing.T) {
	s := Run(t, Config{})
	c := connect(t, s)
	// The document has two fields with the same name, and text that is not UTF-8.
	odd := []byte("\x00\x00\x00\x00\x07_id\x00abcdefghijkl\x02a\x00\x02\x00\x00\x00\xff\x00\x02a\x00\x02\x00\x00\x00y\x00\x06u\x00\x02status\x00\x09\x00\x00\x00ingested\x00\x00")
	odd[0] = byte(len(odd))
	if err := s.Put("hub", "readings", odd); err != nil {
		t.Fatal(err)
	}
	got, err := c.FindOne(t.Context(), bson.D{}).Raw()
	if err != nil || string(got) != string(odd) {
		t.Errorf("FindOne = %x, %v; want %x", []byte(got), err, odd)
	}
	if _, err := c.UpdateOne(t.Context(), bson.D{{Key: "status", Value: "ingested"}}, bson.D{{Key: "$set", Value: bson.D{{Key: "status", Value: "rejected"}}}}); err != nil {
		t.Fatal(err)
	}
	want := strings.Replace(string(odd), "ingested", "rejected", 1)
	if all := s.Documents("hub", "readings"); len(all) != 1 || string(all[0]) != want {
		t.Errorf("after the update: %x; want %x", all, want)
	}
	if err := s.Put("hub", "readings", []byte("nonsense")); err == nil {
		t.Error("Put stored bytes that are not BSON")
	}
}

// TestLargeDocuments reads more documents than fit into one answer.
func TestLargeDocuments(t *testing.T) {
	s := Run(t, Config{})
	c := connect(t, s)
	padding := strings.Repeat("x", 7<<20)
	for i := range 7 {
		if err := s.Put("hub", "readings", raw(t, bson.D{{Key: "_id", Value: i}, {Key: "p", Value: padding}})); err != nil {
			t.Fatal(err)
		}
	}
	if got := find(t, c, bson.D{}); len(got) != 7 {
		t.Errorf("%d documents; want 7", len(got))
	}
	if n := s.Calls("getMore"); n != 3 {
		t.Errorf("%d calls of getMore; want 3, with two documents in each answer", n)
	}
	full := raw(t, bson.D{{Key: "_id", Value: "full"}, {Key: "status", Value: "ingested"}, {Key: "p", Value: ""}})
	full = raw(t, bson.D{{Key: "_id", Value: "full"}, {Key: "status", Value: "ingested"}, {Key: "p", Value: strings.Repeat("x", maxDocument-len(full))}})
	if err := s.Put("hub", "readings", full); err != nil {
		t.Fatal(err)
	}
	set := func(status string) error {
		_, err := c.UpdateOne(t.Context(), bson.D{{Key: "_id", Value: "full"}}, bson.D{{Key: "$set", Value: bson.D{{Key: "status", Value: status}}}})
		return err
	}
	if err := set("rejected"); err != nil {
		t.Errorf("a document of 16 MiB that does not grow: %v", err)
	}
	var we mongo.WriteException
	if err := set("processed"); !errors.As(err, &we) || we.WriteErrors[0].Code != 17419 {
		t.Errorf("a document of 16 MiB that grows: %v; want error 17419", err)
	}
}

// TestCursorAmongWrites reads from a cursor while documents before its position are changed, and others are deleted and inserted after it.
func TestCursorAmongWrites(t *testing.T) {
	s := Run(t, Config{})
	c := connect(t, s)
	for i := range 10 {
		if err := s.Put("hub", "readings", raw(t, bson.D{{Key: "_id", Value: i * 10}})); err != nil {
			t.Fatal(err)
		}
	}
	ctx := t.Context()
	cur, err := c.Find(ctx, bson.D{}, options.Find().SetSort(bson.D{{Key: "_id", Value: 1}}).SetBatchSize(3))
	if err != nil {
		t.Fatal(err)
	}
	defer cur.Close(ctx)
	var got []int32
	for cur.Next(ctx) {
		got = append(got, cur.Current.Lookup("_id").Int32())
		if len(got) == 3 {
			if err := s.Put("hub", "readings", raw(t, bson.D{{Key: "_id", Value: 5}}), raw(t, bson.D{{Key: "_id", Value: 25}})); err != nil {
				t.Fatal(err)
			}
			if _, err := c.DeleteMany(ctx, bson.D{{Key: "_id", Value: bson.D{{Key: "$in", Value: bson.A{0, 20, 40}}}}}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if want := []int32{0, 10, 20, 25, 30, 50, 60, 70, 80, 90}; !slices.Equal(got, want) {
		t.Errorf("read %v; want %v", got, want)
	}
}

func TestFaults(t *testing.T) {
	type result struct {
		err   error
		calls int
		value string
	}
	// update runs a server and sets a value to x. The n-th update command gets the action.
	update := func(t *testing.T, set string, many bool, n int, action Action) result {
		s := Run(t, Config{ReplicaSet: set})
		c := connect(t, s)
		if err := s.Put("hub", "readings", raw(t, bson.D{{Key: "_id", Value: 1}, {Key: "v", Value: "old"}})); err != nil {
			t.Fatal(err)
		}
		s.Intercept(func(call *Call) Action {
			if call.Command == "update" && call.OfCommand == n {
				return action
			}
			return Action{}
		})
		var r result
		change := bson.D{{Key: "$set", Value: bson.D{{Key: "v", Value: "x"}}}}
		if many {
			_, r.err = c.UpdateMany(t.Context(), bson.D{{Key: "v", Value: "old"}}, change)
		} else {
			_, r.err = c.UpdateOne(t.Context(), bson.D{{Key: "v", Value: "old"}}, change)
		}
		r.calls = s.Calls("update")
		r.value = bson.Raw(s.Documents("hub", "readings")[0]).Lookup("v").StringValue()
		return r
	}
	for _, test := range []struct {
		name   string
		set    string
		many   bool
		action Action
		fails  bool
		calls  int
		value  string
	}{
		{"call lost", "", true, Action{DropBefore: true}, true, 1, "old"},
		{"answer lost", "", true, Action{DropAfter: true}, true, 1, "x"},
		{"answer truncated", "", true, Action{Truncate: 20}, true, 1, "x"},
		{"answer truncated in its header", "", true, Action{Truncate: 3}, true, 1, "x"},
		{"answer too long", "", true, Action{Oversize: true}, true, 1, "x"},
		{"not an answer", "", true, Action{Raw: []byte("HTTP/1.1 400 Bad Request\r\n\r\n")}, true, 1, "x"},
		{"error", "", true, Action{Fail: Unauthorized}, true, 1, "old"},
		{"write concern", "", true, Action{WriteConcernError: WriteConcernFailed}, true, 1, "x"},
		{"slow", "", true, Action{Delay: 20 * time.Millisecond, Trickle: 20 * time.Millisecond}, false, 1, "x"},
		// On a replica set the driver retries a write of one document, and the server executes it once.
		{"one, call lost", "rs0", false, Action{DropBefore: true}, false, 2, "x"},
		{"one, answer lost", "rs0", false, Action{DropAfter: true}, false, 2, "x"},
		{"one, stepped down", "rs0", false, Action{Fail: NotWritablePrimary}, false, 2, "x"},
		{"many, stepped down", "rs0", true, Action{Fail: NotWritablePrimary}, true, 1, "old"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := update(t, test.set, test.many, 1, test.action)
			if (got.err != nil) != test.fails || got.calls != test.calls || got.value != test.value {
				t.Errorf("got %+v; want failure %v, %d calls, value %s", got, test.fails, test.calls, test.value)
			}
		})
	}
}

func TestInterceptSeesCalls(t *testing.T) {
	s := Run(t, Config{})
	c := connect(t, s)
	var seen []string
	s.Intercept(func(call *Call) Action {
		seen = append(seen, fmt.Sprintf("%d %s %s.%s", call.N, call.Command, call.Database, call.Collection))
		if call.Command == "find" { // the query finds the document that is put here
			if err := s.Put("hub", "readings", raw(t, bson.D{{Key: "_id", Value: "put"}})); err != nil {
				t.Error(err)
			}
		}
		return Action{}
	})
	if got := find(t, c, bson.D{}, options.Find().SetBatchSize(1)); len(got) != 1 {
		t.Errorf("found %q", got)
	}
	if _, err := c.DeleteMany(t.Context(), bson.D{}); err != nil {
		t.Fatal(err)
	}
	if want := []string{"1 find hub.readings", "2 getMore hub.readings", "3 delete hub.readings"}; !slices.Equal(seen, want) {
		t.Errorf("the interceptor saw %q; want %q", seen, want)
	}
}

func TestConcurrentClients(t *testing.T) {
	s := Run(t, Config{})
	c := connect(t, s)
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := range 50 {
				if _, err := c.InsertOne(context.Background(), bson.D{{Key: "_id", Value: i*8 + w}, {Key: "v", Value: 0}}); err != nil {
					t.Error(err)
					return
				}
				if _, err := c.UpdateMany(context.Background(), bson.D{{Key: "_id", Value: i*8 + w}}, bson.D{{Key: "$set", Value: bson.D{{Key: "v", Value: 1}}}}); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if n, err := c.CountDocuments(t.Context(), bson.D{{Key: "v", Value: 1}}); err != nil || n != 400 {
		t.Errorf("CountDocuments = %d, %v; want 400", n, err)
	}
}

func TestDisconnect(t *testing.T) {
	s := Run(t, Config{})
	c := connect(t, s)
	for i := range 10 {
		if err := s.Put("hub", "readings", raw(t, bson.D{{Key: "_id", Value: i}})); err != nil {
			t.Fatal(err)
		}
	}
	cur, err := c.Find(t.Context(), bson.D{}, options.Find().SetBatchSize(2))
	if err != nil {
		t.Fatal(err)
	}
	defer cur.Close(t.Context())
	s.Disconnect()
	n := 0
	for cur.Next(t.Context()) {
		n++
	}
	if cur.Err() == nil || n != 2 {
		t.Errorf("%d documents and %v; want the 2 of the first batch and an error", n, cur.Err())
	}
	if got := find(t, c, bson.D{}); len(got) != 10 {
		t.Errorf("%d documents after the driver has connected again; want 10", len(got))
	}
}

// BenchmarkCursor measures how fast a client can read at most.
func BenchmarkCursor(b *testing.B) {
	s := Run(b, Config{})
	doc := func(i int) []byte {
		raw, err := bson.Marshal(bson.D{{Key: "_id", Value: i}, {Key: "status", Value: "ingested"}, {Key: "payload", Value: strings.Repeat("x", 950)}})
		if err != nil {
			b.Fatal(err)
		}
		return raw
	}
	const n = 100000
	for i := range n {
		if err := s.Put("hub", "readings", doc(i)); err != nil {
			b.Fatal(err)
		}
	}
	client, err := mongo.Connect(options.Client().ApplyURI(s.URI()))
	if err != nil {
		b.Fatal(err)
	}
	defer client.Disconnect(context.Background())
	c := client.Database("hub").Collection("readings")
	for b.Loop() {
		cur, err := c.Find(b.Context(), bson.D{{Key: "status", Value: "ingested"}}, options.Find().SetSort(bson.D{{Key: "_id", Value: 1}}))
		if err != nil {
			b.Fatal(err)
		}
		got := 0
		for cur.Next(b.Context()) {
			got++
		}
		if got != n || cur.Err() != nil {
			b.Fatalf("%d documents, %v", got, cur.Err())
		}
	}
	b.ReportMetric(n*float64(b.N)/b.Elapsed().Seconds(), "docs/s")
}

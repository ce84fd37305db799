package readsync

import (
	"bufio"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"observability-hub/e2e/mongowire"
	"observability-hub/e2e/workspace"
)

// ferret starts FerretDB and makes it the hub's MongoDB.
func (h *hub) ferret() *mongo.Collection {
	h.Helper()
	path, err := workspace.Build(filepath.Join("..", "ferret"), "ferret")
	if err != nil {
		h.Fatal(err)
	}
	cmd := exec.Command(path)
	stdin, err := cmd.StdinPipe() // FerretDB ends when stdin ends
	if err != nil {
		h.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		h.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		h.Fatal(err)
	}
	h.Cleanup(func() {
		_ = stdin.Close()
		_ = cmd.Wait()
	})
	uri, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		h.Fatalf("FerretDB prints no URI: %v", err)
	}
	uri = strings.TrimSpace(uri)
	h.env = append(h.env, "MONGO_URI="+uri)
	client, err := mongo.Connect(options.Client().ApplyURI(uri))
	if err != nil {
		h.Fatal(err)
	}
	h.Cleanup(func() { _ = client.Disconnect(h.Context()) })
	return client.Database(database).Collection(collection)
}

// TestFerretDB syncs from a server that was not written for these tests. The documents have ids of several types.
func TestFerretDB(t *testing.T) {
	t.Parallel()
	h := newHub(t, mongowire.Config{})
	docs := h.ferret()
	const n = 400 // FerretDB opens a query for each statement, and can have about a hundred open
	ids := func(i int) any {
		switch i % 4 {
		case 1:
			return fmt.Sprintf("text %04d", i)
		case 2:
			return int64(i)
		case 3:
			return bson.DateTime(i)
		}
		return objectID(i)
	}
	var all []any
	for i := range n {
		all = append(all, bson.Raw(document(t, ids(i), bson.E{Key: "payload", Value: bson.D{{Key: "n", Value: int32(i)}, {Key: "list", Value: bson.A{"a", 1.5, nil}}}})))
	}
	if _, err := docs.InsertMany(t.Context(), all[:n/2]); err != nil {
		t.Fatal(err)
	}
	got := h.want(0, h.command("run"))
	if a := got.account(t); a.Inserted != n/2 || a.Marked != n/2 {
		t.Errorf("account %+v; want %d inserted and marked", a, n/2)
	}
	if _, err := docs.InsertMany(t.Context(), all[n/2:]); err != nil {
		t.Fatal(err)
	}
	if _, err := docs.InsertOne(t.Context(), bson.Raw(document(t, "poison", bson.E{Key: "source", Value: "a\x00"}))); err != nil {
		t.Fatal(err)
	}
	h.want(exitPartial, h.shell("readsync extract | readsync load --max-rejects 1 | readsync mark"))
	for status, want := range map[string]int64{"processed": n, "rejected": 1, "ingested": 0} {
		if count, err := docs.CountDocuments(t.Context(), bson.D{{Key: "status", Value: status}}); err != nil || count != want {
			t.Errorf("%d documents are %s, %v; want %d", count, status, err, want)
		}
	}
	table := h.table()
	if len(table) != n {
		t.Errorf("%d rows; want %d", len(table), n)
	}
	for _, doc := range all {
		h.faithful(doc.(bson.Raw), table[idText(h, doc.(bson.Raw).Lookup("_id"))])
	}
	h.want(0, h.command("verify"))
}

package readsync

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/x/bsonx/bsoncore"

	"observability-hub/e2e/events"
	"observability-hub/e2e/mongowire"
)

// TestEvents provokes each event of the stages, run, retry and verify, and compares every line with its documentation. TestHTTPEvents
// does the same for trigger and serve.
func TestEvents(t *testing.T) {
	t.Parallel()
	docs := events.Read(t)
	h := newHub(t, mongowire.Config{})
	trailers := regexp.MustCompile(`(?m)^\{"_eof":true,"n":\d+\}\n`) // trailers are the only lines without an envelope
	letters := filepath.Join(h.state, "dead-letters.jsonl")
	// provoke runs a line of bash and fails the test if it does not print the event.
	provoke := func(event, script string, env ...string) (stdout string) {
		t.Helper()
		cmd := h.shell(script)
		cmd.Env = append(cmd.Env, env...)
		got := finish(t, cmd)
		docs.Check(t, event, trailers.ReplaceAllString(got.stdout, ""))
		docs.Check(t, event, got.stderr)
		if !strings.Contains(got.stdout+got.stderr, `"msg":"`+event+`"`) {
			t.Errorf("%s does not print %s: status %d\n%s\n%s", script, event, got.status, clip(got.stdout), clip(got.stderr))
		}
		return got.stdout
	}
	answer := func(command string, action mongowire.Action) {
		h.mongo.Intercept(func(call *mongowire.Call) mongowire.Action {
			if call.Command == command {
				return action
			}
			return mongowire.Action{}
		})
	}
	poison := func(n int) []byte { return document(t, objectID(n), bson.E{Key: "source", Value: "\x00"}) }

	provoke("bad_configuration", "readsync run", "MONGO_URI=")
	provoke("database_refused", "readsync run", "DATABASE_URL="+h.pg.SocketURL("hub", "missing"))
	provoke("database_unavailable", "readsync run", "DATABASE_URL=postgres://hub@127.0.0.1:1/hub?sslmode=disable")
	answer("find", mongowire.Action{Fail: mongowire.WriteConcernFailed})
	provoke("source_unavailable", "readsync run")
	answer("find", mongowire.Action{Fail: mongowire.Unauthorized})
	provoke("source_refused", "readsync run")
	h.mongo.Intercept(nil)

	provoke("collection_missing", "readsync run")

	h.fill(3)
	provoke("extract", "readsync extract")
	provoke("stream_incomplete", "readsync extract | head -n 1 | readsync load")
	provoke("bad_record", "echo junk | readsync load")
	provoke("bad_input", "echo junk | readsync mark")
	provoke("load", "readsync extract | readsync load")
	provoke("loaded", "readsync extract | readsync load")
	// A validation rule of the collection refuses the second of three marks.
	answer("update", mongowire.Action{Rewrite: func(bsoncore.Document) bsoncore.Document {
		failed := bsoncore.NewDocumentBuilder().AppendInt32("index", 1).AppendInt32("code", 121).AppendString("errmsg", "Document failed validation").Build()
		return bsoncore.NewDocumentBuilder().AppendDouble("ok", 1).AppendInt32("n", 2).
			AppendArray("writeErrors", bsoncore.NewArrayBuilder().AppendDocument(failed).Build()).Build()
	}})
	if stdout := provoke("marks_refused", "readsync run"); !strings.Contains(stdout, `"marked":2,"unmarked":1`) {
		t.Errorf("marks refused: %s", stdout)
	}
	h.mongo.Intercept(nil)
	h.fill(3)
	provoke("marked", "readsync extract | readsync load | readsync mark")
	provoke("synced", "readsync run")
	provoke("verified", "readsync verify")
	provoke("dead_letter_status", "readsync status")

	if err := os.WriteFile(letters, []byte(`{"msg":"dead_let`), 0o600); err != nil {
		t.Fatal(err)
	}
	h.put(poison(1), document(t, objectID(2), bson.E{Key: "source", Value: "edited"}))
	provoke("dead_letters_torn", "readsync run --max-rejects 1")
	h.put(poison(3))
	provoke("documents_rejected", "readsync run --max-rejects 1")
	provoke("document_differs", "readsync run")
	provoke("documents_differ", "readsync run --dry-run")
	h.put(poison(4))
	provoke("document_rejected", "readsync run --dry-run")
	provoke("too_many_rejects", "readsync run")
	provoke("dead_letter", "cat "+letters)
	provoke("retried", "readsync retry "+letters)
	provoke("dead_letters_missing", "readsync verify --dead-letters /missing")
	if err := os.Truncate(letters, 0); err != nil {
		t.Fatal(err)
	}
	provoke("mismatch", "readsync verify")
	provoke("verification_failed", "readsync verify")

	provoke("state_unwritable", "readsync run --state-dir /proc/nowhere")
	provoke("locked", "exec 9<"+h.state+"; flock 9; readsync run")

	// The server returns the same document again.
	answer("find", mongowire.Action{Rewrite: func(bsoncore.Document) bsoncore.Document {
		return bsoncore.NewDocumentBuilder().AppendDouble("ok", 1).AppendDocument("cursor", bsoncore.NewDocumentBuilder().
			AppendInt64("id", 0).AppendString("ns", database+"."+collection).
			AppendArray("firstBatch", bsoncore.NewArrayBuilder().AppendDocument(document(t, objectID(9))).Build()).Build()).Build()
	}})
	provoke("read_stuck", "readsync run")
	docs.Excuse("unbalanced")

	sources, err := filepath.Glob("../../readsync/*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range sources {
		switch name := filepath.Base(path); name {
		case "trigger.go", "answer.go", "serve.go", "endpoint.go":
		default:
			docs.Demand(t, "readsync/"+name)
		}
	}
}

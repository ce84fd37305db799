package readsync

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/x/bsonx/bsoncore"

	"observability-hub/e2e/mongowire"
	"observability-hub/e2e/postgres"
)

// complaint is an error of a run with its hint.
type complaint struct{ Msg, Error, Hint string }

func (o outcome) complaint(tb testing.TB) (c complaint) {
	tb.Helper()
	for line := range strings.Lines(o.stderr) {
		var next complaint
		if err := json.Unmarshal([]byte(line), &next); err != nil {
			tb.Fatalf("%v: %s", err, line)
		}
		if next.Hint != "" {
			c = next
		}
	}
	return c
}

// TestSourceAnswers makes MongoDB answer with errors that neither TLS nor a stopped server causes. Each has its exit status and its hint.
func TestSourceAnswers(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		fail   mongowire.Failure
		status int
		hint   string
	}{
		{"unauthorized", mongowire.Failure{Code: 13, Name: "Unauthorized", Message: "not authorized on hub to execute command"}, exitConfig, "allowed to find and update in hub.readings"},
		{"Atlas", mongowire.Failure{Code: 8000, Name: "AtlasError", Message: "user is not allowed to do action [find] on [hub.readings]"}, exitConfig, "allowed to find and update"},
		{"authentication", mongowire.Failure{Code: 18, Name: "AuthenticationFailed", Message: "Authentication failed."}, exitConfig, "password"},
		{"view", mongowire.Failure{Code: 166, Name: "CommandNotSupportedOnView", Message: "Namespace hub.readings is a view, not a collection"}, exitConfig, "not a view"},
		{"namespace", mongowire.Failure{Code: 26, Name: "NamespaceNotFound", Message: "ns does not exist"}, exitConfig, "MONGO_COLLECTION"},
		{"time", mongowire.Failure{Code: 50, Name: "MaxTimeMSExpired", Message: "operation exceeded time limit"}, exitUnavailable, "--timeout 1s: an index"},
		{"time limit", mongowire.Failure{Code: 262, Name: "ExceededTimeLimit", Message: "operation exceeded time limit"}, exitUnavailable, "--timeout 1s: an index"},
		{"other", mongowire.Failure{Code: 96, Name: "OperationFailed", Message: "Sort exceeded memory limit"}, exitUnavailable, "read the log of MongoDB"},
	} {
		for _, command := range []string{"find", "update"} {
			t.Run(test.name+" "+command, func(t *testing.T) {
				t.Parallel()
				h := newHub(t, mongowire.Config{})
				h.fill(3)
				h.mongo.Intercept(func(call *mongowire.Call) mongowire.Action {
					if call.Command == command {
						return mongowire.Action{Fail: &test.fail}
					}
					return mongowire.Action{}
				})
				got := h.want(test.status, h.command("run", "--timeout", "1s"))
				if c := got.complaint(t); !strings.Contains(c.Hint, test.hint) || strings.Contains(c.Hint, "TLS") || test.fail.Code != 262 && !strings.Contains(c.Error, test.fail.Message) {
					t.Errorf("%+v; want a hint with %q", c, test.hint)
				}
			})
		}
	}
}

// TestSourceSlow uses a server that answers after --timeout.
func TestSourceSlow(t *testing.T) {
	t.Parallel()
	h := newHub(t, mongowire.Config{})
	h.fill(3)
	h.mongo.Intercept(func(call *mongowire.Call) mongowire.Action {
		if call.Command == "find" {
			return mongowire.Action{Delay: 5 * time.Second}
		}
		return mongowire.Action{}
	})
	if c := h.want(exitUnavailable, h.command("run", "--timeout", "1s")).complaint(t); !strings.Contains(c.Hint, "--timeout 1s: an index on {status: 1, _id: 1}") {
		t.Errorf("%+v", c)
	}
}

// TestSourceConfiguration uses bad connection strings and unreachable servers. Each has its own message or hint. No output contains a
// part of a password.
func TestSourceConfiguration(t *testing.T) {
	t.Parallel()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := closed.Addr().String()
	closed.Close()
	set := mongowire.Run(t, mongowire.Config{ReplicaSet: "rs0", Hosts: []string{"mongo1.invalid:27017"}})
	old := mongowire.Run(t, mongowire.Config{WireVersion: 6})
	plain := mongowire.Run(t, mongowire.Config{})
	empty := filepath.Join(t.TempDir(), "empty.pem")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	server := secure(t)
	h := newHub(t, mongowire.Config{})
	for _, test := range []struct {
		uri    string
		status int
		says   string
	}{
		{"mongodb://" + set.Address() + "/?replicaSet=rs0", exitUnavailable, "mongo1.invalid:27017, which this machine cannot reach"},
		{"mongodb://" + set.Address() + "/?replicaSet=rs0", exitUnavailable, "directConnection=true"},
		{old.URI(), exitConfig, "4.4"},
		{"mongodb://" + nobody + "/", exitUnavailable, "check that MongoDB runs"},
		{"mongodb://nowhere.invalid/?tls=false", exitUnavailable, "cannot be looked up"},
		{"mongodb+srv://nowhere.invalid/", exitUnavailable, "SRV"},
		{"mongodb://" + plain.Address() + "/?tls=true", exitUnavailable, "if it does not speak TLS"},
		{"mongodb://" + server + "/?tls=true", exitConfig, "tlsCAFile"},
		{"mongodb://" + server + "/?tls=false", exitUnavailable, "if it requires TLS"},
		{"mongodb://localhost/?tls=true&tlsCAFile=/missing/ca.pem", exitConfig, "/missing/ca.pem"},
		{"mongodb://localhost/?tls=true&tlsCAFile=" + empty, exitConfig, "no certificate"},
		{"mongodb://localhost/?tls=true&tlsCertificateKeyFile=/missing/key.pem", exitConfig, "/missing/key.pem"},
		{"mongodb://hub:hunter2@" + plain.Address() + "/", exitConfig, "authSource"},
		{"mongodb://hub:hunt@hunter2@localhost/", exitConfig, "%40"},
		{"mongodb://hub:hunt:hunter2@localhost/", exitConfig, "%3A"},
		{"mongodb://hub:12/hunter2@localhost/", exitConfig, "%2F"},
		{"mongodb://hub:12?hunter2@localhost/", exitConfig, "%3F"},
		{"mongodb://hub:hunter2#@localhost/", exitConfig, "%23"},
		{"mongodb://hub:hunter2%zz@localhost/", exitConfig, "%25"},
		{"mongodb://hub:hunter2[@localhost/", exitConfig, "percent-encoded"},
		{"mongo://hub:hunter2@localhost/", exitConfig, "mongodb://user"},
	} {
		t.Run(test.uri, func(t *testing.T) {
			t.Parallel()
			cmd := h.command("run", "--timeout", "2s")
			cmd.Env = append(cmd.Env, "MONGO_URI="+test.uri, fmt.Sprintf("READSYNC_STATE_DIR=%s", t.TempDir()))
			got := finish(t, cmd)
			c := got.complaint(t)
			if got.status != test.status || !strings.Contains(c.Hint+c.Error, test.says) || strings.Contains(got.stderr+got.stdout, "hunter2") {
				t.Errorf("exit status %d, %s; want %d and %q", got.status, got.stderr, test.status, test.says)
			}
		})
	}
}

// secure starts a TLS server whose authority is not trusted.
func secure(tb testing.TB) string {
	tb.Helper()
	authority, key, err := postgres.WriteAuthority(filepath.Join(tb.TempDir(), "ca.pem"))
	if err != nil {
		tb.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{authority.Raw}, PrivateKey: key}}})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				_ = c.(*tls.Conn).Handshake()
				c.Close()
			}()
		}
	}()
	return l.Addr().String()
}

// TestNotACollection uses views and time series, whose documents cannot be marked, and missing collections. Each command reports it.
func TestNotACollection(t *testing.T) {
	t.Parallel()
	commands := [][]string{{"run"}, {"run", "--dry-run"}, {"extract"}, {"verify"}}
	for _, kind := range []string{"view", "timeseries"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			h := newHub(t, mongowire.Config{})
			h.fill(3)
			h.mongo.SetKind(collection, kind)
			for _, args := range commands {
				got := h.want(exitConfig, h.command(args...))
				if c := got.complaint(t); !strings.Contains(c.Error, "hub.readings is a "+kind) {
					t.Errorf("%v: %+v", args, c)
				}
			}
		})
	}
	// The server does not let this user list collections, so a view is detected by its documents.
	for _, n := range []int{1, 5, 1500} {
		t.Run(fmt.Sprintf("%d documents without _id", n), func(t *testing.T) {
			t.Parallel()
			h := newHub(t, mongowire.Config{})
			h.fill(n)
			h.mongo.Intercept(func(call *mongowire.Call) mongowire.Action {
				switch call.Command {
				case "listCollections":
					return mongowire.Action{Fail: mongowire.Unauthorized}
				case "find":
					return mongowire.Action{Rewrite: withoutIDs}
				}
				return mongowire.Action{}
			})
			for _, args := range commands {
				got := h.want(exitConfig, h.command(args...))
				if c := got.complaint(t); !strings.Contains(c.Error, "readings contains a document without _id") {
					t.Errorf("%v: %+v", args, c)
				}
			}
			if s := h.statuses(); s["ingested"] != n {
				t.Errorf("%v", s)
			}
		})
	}
	t.Run("missing", func(t *testing.T) {
		t.Parallel()
		h := newHub(t, mongowire.Config{})
		// On a new hub, before the first document is written, a missing collection is a warning and not an error.
		if got := h.want(0, h.command("run")); !strings.Contains(got.stderr, "hub.readings does not exist") {
			t.Errorf("stderr lacks the warning: %s", got.stderr)
		}
		if err := h.mongo.Put(database, "reading", document(t, 1)); err != nil {
			t.Fatal(err)
		}
		for _, args := range commands {
			if c := h.want(exitConfig, h.command(args...)).complaint(t); !strings.Contains(c.Error, "hub.readings does not exist") {
				t.Errorf("%v: %+v", args, c)
			}
		}
	})
}

// withoutIDs returns an answer to find without _id, as a view with a projection gives it.
func withoutIDs(answer bsoncore.Document) bsoncore.Document {
	cursor, ok := answer.Lookup("cursor").DocumentOK()
	if !ok {
		return answer
	}
	docs, _ := cursor.Lookup("firstBatch").Array().Values()
	array := bsoncore.NewArrayBuilder()
	for _, v := range docs {
		elements, _ := v.Document().Elements()
		doc := bsoncore.NewDocumentBuilder()
		for _, e := range elements {
			if e.Key() != "_id" {
				doc.AppendValue(e.Key(), e.Value())
			}
		}
		array.AppendDocument(doc.Build())
	}
	return bsoncore.NewDocumentBuilder().AppendDouble("ok", 1).AppendDocument("cursor", bsoncore.NewDocumentBuilder().
		AppendInt64("id", 0).AppendString("ns", database+"."+collection).AppendArray("firstBatch", array.Build()).Build()).Build()
}

// TestNamed has more rejected and differing documents in the first batch than a run names. The first 20 of each kind are named.
func TestNamed(t *testing.T) {
	t.Parallel()
	for _, n := range []int{20, 21, 300} {
		h := newHub(t, mongowire.Config{})
		for i := range n {
			h.put(document(t, objectID(i), bson.E{Key: "source", Value: "\x00"}), document(t, objectID(i+1000)))
		}
		h.want(exitPartial, h.command("run", "--max-rejects", "1000"))
		for i := range n {
			h.put(document(t, objectID(i+1000), bson.E{Key: "source", Value: "other"}))
		}
		got := h.want(exitPartial, h.command("run"))
		again := h.want(exitPartial, h.shell("readsync extract | readsync load | readsync mark"))
		for _, stderr := range []string{got.stderr, again.stderr} {
			if named := strings.Count(stderr, `"document_differs"`); named != 20 {
				t.Errorf("%d of %d differing documents are named; want 20", named, n)
			}
		}
		for i := range n {
			h.put(document(t, objectID(i), bson.E{Key: "source", Value: "\x00"}))
		}
		if got := finish(t, h.command("run", "--dry-run", "--max-rejects", "1000")); strings.Count(got.stderr, `"document_rejected"`) != 20 {
			t.Errorf("%d of %d rejected documents are named; want 20", strings.Count(got.stderr, `"document_rejected"`), n)
		}
	}
}

package readsync

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/x/bsonx/bsoncore"

	"observability-hub/e2e/mongowire"
)

// fill puts n documents that every hub accepts.
func (h *hub) fill(n int) {
	h.Helper()
	docs := make([][]byte, n)
	for i := range docs {
		docs[i] = document(h, objectID(i), bson.E{Key: "payload", Value: bson.D{{Key: "n", Value: int32(i)}, {Key: "text", Value: strings.Repeat("x", 100)}}})
	}
	h.put(docs...)
}

// TestStageDiesInPipe ends the stream of extract or load early. The next stage reports it, and only documents with committed rows are
// marked.
func TestStageDiesInPipe(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, script string
		loads        bool // load detects it, not mark
	}{
		// The stream ends in the middle of a line, at the end of a line, or before the first one.
		{"extract cut", "readsync extract | head -c 700000 | readsync load | readsync mark", true},
		{"extract cut at a line", "readsync extract | head -n 1500 | readsync load | readsync mark", true},
		{"extract silent", "readsync extract | head -c 0 | readsync load | readsync mark", true},
		{"extract killed", `(readsync extract & pid=$!; kill -STOP $pid; kill -KILL $pid; wait $pid) | readsync load | readsync mark`, true},
		{"load cut", "readsync extract | readsync load | head -c 200000 | readsync mark", false},
		{"load cut at a line", "readsync extract | readsync load | head -n 1500 | readsync mark", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			h := newHub(t, mongowire.Config{})
			h.fill(3000)
			// The exit status of each stage is needed, which pipefail does not show.
			got := finish(t, h.shell(test.script+`; echo "${PIPESTATUS[@]}" >&2`))
			statuses := strings.Fields(got.stderr[strings.LastIndex(strings.TrimSpace(got.stderr), "\n")+1:])
			if len(statuses) < 3 {
				t.Fatalf("statuses %q in %s", statuses, got.stderr)
			}
			mark, load := statuses[len(statuses)-1], statuses[len(statuses)-2]
			if mark != strconv.Itoa(exitDataErr) || test.loads && load != strconv.Itoa(exitDataErr) {
				t.Errorf("load and mark exited with status %s and %s; want 65\n%s", load, mark, got.stderr)
			}
			if strings.Contains(got.stdout, `{"_eof"`) {
				t.Errorf("the last stage printed a trailer: %s", clip(got.stdout))
			}
			h.check(test.name)
			if n := h.statuses()["processed"]; n >= 3000 {
				t.Errorf("%d documents are marked, but the stream had fewer", n)
			}
			// The next pipe syncs the rest.
			h.want(0, h.shell("readsync extract | readsync load | readsync mark"))
			if rows, _ := h.settled(test.name); rows != 3000 {
				t.Errorf("%d rows; want 3000", rows)
			}
		})
	}
}

// TestEditedMeanwhile edits a document after it was read and before it is marked.
func TestEditedMeanwhile(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"run", "pipe"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			h := newHub(t, mongowire.Config{})
			h.fill(10)
			edited := document(t, objectID(3), bson.E{Key: "payload", Value: bson.D{{Key: "n", Value: "edited"}}})
			gone := document(t, objectID(4), bson.E{Key: "status", Value: "archived"})
			var once sync.Once
			h.mongo.Intercept(func(call *mongowire.Call) mongowire.Action {
				if call.Command == "update" {
					once.Do(func() {
						h.put(edited, bytes.Replace(gone, []byte("ingested"), []byte("archived"), 1))
					})
				}
				return mongowire.Action{}
			})
			cmd := h.command("run")
			if how == "pipe" {
				cmd = h.shell("readsync extract | readsync load | readsync mark")
			}
			got := h.want(0, cmd)
			statuses := h.statuses()
			if statuses["processed"] != 8 || statuses["ingested"] != 1 || statuses["archived"] != 1 {
				t.Errorf("statuses %v; want 8 processed, the edited document ingested, the archived one unchanged", statuses)
			}
			if a := got.account(t); a.Marked != 8 || a.Unmarked != 2 {
				t.Errorf("account %+v; want 8 marked, 2 not", a)
			}
			// The next run reports that the edited document differs from its row.
			h.mongo.Intercept(nil)
			again := h.want(exitPartial, h.command("run"))
			if a := again.account(t); a.Differing != 1 || a.Read != 1 {
				t.Errorf("account %+v; want 1 differing", a)
			}
			if n := h.statuses()["ingested"]; n != 1 {
				t.Errorf("%d documents are ingested; want 1, the one that differs", n)
			}
		})
	}
}

// TestTwoRuns starts a second run on a host during the first. The second one exits with status 75.
func TestTwoRuns(t *testing.T) {
	t.Parallel()
	h := newHub(t, mongowire.Config{})
	h.fill(100)
	reached, proceed := make(chan struct{}), make(chan struct{})
	var once sync.Once
	h.mongo.Intercept(func(call *mongowire.Call) mongowire.Action {
		if call.Command == "update" {
			once.Do(func() { close(reached); <-proceed })
		}
		return mongowire.Action{}
	})
	first := h.command("run")
	var stderr bytes.Buffer
	first.Stderr = &stderr
	if err := first.Start(); err != nil {
		t.Fatal(err)
	}
	<-reached
	h.want(exitTryLater, h.command("run"))
	close(proceed)
	if err := first.Wait(); err != nil {
		t.Errorf("the first run: %v\n%s", err, &stderr)
	}
	h.settled("two runs")
}

// TestTwoHosts lets several hosts sync one collection into one table at the same time. Some documents cannot become rows.
func TestTwoHosts(t *testing.T) {
	t.Parallel()
	h := newHub(t, mongowire.Config{})
	h.fill(5000)
	var hosts [3]*exec.Cmd
	var outputs [3]bytes.Buffer
	for i := range hosts {
		host := *h
		host.state = h.state + strconv.Itoa(i)
		hosts[i] = host.command("run")
		hosts[i].Stdout, hosts[i].Stderr = &outputs[i], &outputs[i]
	}
	for _, cmd := range hosts {
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
	}
	inserted := 0
	for i, cmd := range hosts {
		if err := cmd.Wait(); err != nil {
			t.Errorf("host %d: %v\n%s", i, err, &outputs[i])
			continue
		}
		inserted += outcome{stdout: outputs[i].String()}.account(t).Inserted
	}
	if rows, _ := h.settled("several hosts"); rows != 5000 || inserted != 5000 {
		t.Errorf("%d rows, %d inserted in all; want 5000", rows, inserted)
	}
}

// TestOldTable uses the table of an existing hub, with rows of the old service.
func TestOldTable(t *testing.T) {
	t.Parallel()
	h := newHub(t, mongowire.Config{})
	if err := h.pg.Exec(`SET ROLE hub; CREATE TABLE reading_analytics (
			id serial PRIMARY KEY, mongo_id text UNIQUE NOT NULL, event_timestamp timestamptz, source text, event_type text,
			payload jsonb, meta jsonb, created_at timestamptz DEFAULT now());
		INSERT INTO reading_analytics (mongo_id, event_timestamp, source, event_type, payload, meta, created_at)
			SELECT lpad(to_hex(n), 24, 'f'), '2020-01-01', 'old', 'old', '{"n": 1}', NULL, '2020-01-02' FROM generate_series(1, 50) n`); err != nil {
		t.Fatal(err)
	}
	before := h.rows("SELECT * FROM reading_analytics ORDER BY id")
	// These rows have the form that Go's encoding/json makes of bson.M: ids and times are plain text.
	oid := bson.ObjectID{7}
	at := bson.DateTime(1772366400123)
	h.fill(20)
	h.put(
		document(t, objectID(100)),
		document(t, objectID(101), bson.E{Key: "payload", Value: bson.D{{Key: "device", Value: oid}, {Key: "at", Value: at}, {Key: "n", Value: int64(5)}}}),
		document(t, objectID(102), bson.E{Key: "meta", Value: nil}, bson.E{Key: "source", Value: nil}),
		document(t, objectID(103)), // the row of this document has other content
	)
	if err := h.pg.Exec(fmt.Sprintf(`INSERT INTO reading_analytics (mongo_id, event_timestamp, source, event_type, payload, meta) VALUES
		('%s', '2026-03-01 12:00Z', 'sensor', 'reading', '{"value": 21.5, "unit": "°C"}', '{"v": 1}'),
		('%s', '2026-03-01 12:00Z', 'sensor', 'reading', '{"device": "%s", "at": "2026-03-01T12:00:00.123Z", "n": 5}', '{"v": 1}'),
		('%s', '2026-03-01 12:00Z', '', 'reading', '{"value": 21.5, "unit": "°C"}', 'null'),
		('%s', '2026-03-01 12:00Z', 'sensor', 'reading', '{"value": 99}', '{"v": 1}')`,
		objectID(100).Hex(), objectID(101).Hex(), oid.Hex(), objectID(102).Hex(), objectID(103).Hex())); err != nil {
		t.Fatal(err)
	}
	got := h.want(exitPartial, h.command("run"))
	if a := got.account(t); a.Inserted != 20 || a.Identical != 3 || a.Differing != 1 {
		t.Errorf("account %+v; want 20 inserted, 3 identical, 1 differing", a)
	}
	if !strings.Contains(got.stderr, objectID(103).Hex()) {
		t.Errorf("stderr does not name the document that differs: %s", got.stderr)
	}
	after := h.rows("SELECT * FROM reading_analytics ORDER BY id LIMIT 50")
	if fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("the old rows have changed:\n%v\nbefore:\n%v", after, before)
	}
	if s := h.statuses(); s["processed"] != 23 || s["ingested"] != 1 {
		t.Errorf("statuses %v; want 23 processed, 1 ingested", s)
	}
}

// TestRefusedByTheTable uses tables that refuse some rows. Only their documents are rejected.
func TestRefusedByTheTable(t *testing.T) {
	t.Parallel()
	for name, column := range map[string]string{
		"constraint": `text CHECK (source <> 'a source that is refused')`,
		"type":       `varchar(10)`,
		"trigger":    `text`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHub(t, mongowire.Config{})
			statements := `SET ROLE hub; CREATE TABLE reading_analytics (id serial PRIMARY KEY, mongo_id text UNIQUE NOT NULL,
				event_timestamp timestamptz, source ` + column + `, event_type text, payload jsonb, meta jsonb, created_at timestamptz DEFAULT now())`
			if name == "trigger" {
				statements += `; CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
					IF NEW.source = 'a source that is refused' THEN RAISE 'not here'; END IF; RETURN NEW; END $$;
					CREATE TRIGGER refuse BEFORE INSERT ON reading_analytics FOR EACH ROW EXECUTE FUNCTION refuse()`
			}
			if err := h.pg.Exec(statements); err != nil {
				t.Fatal(err)
			}
			h.fill(1500)
			for _, n := range []int{0, 7, 999, 1000, 1499} {
				h.put(document(t, objectID(n), bson.E{Key: "source", Value: "a source that is refused"}))
			}
			got := h.want(exitPartial, h.command("run", "--max-rejects", "10"))
			if a := got.account(t); a.Inserted != 1495 || a.Rejected != 5 {
				t.Errorf("account %+v; want 1495 inserted, 5 rejected", a)
			}
			if _, aside := h.settled(name); aside != 5 {
				t.Errorf("%d dead letters; want 5", aside)
			}
			// After the table is corrected, retry inserts them.
			if err := h.pg.Exec(`SET ROLE hub; ALTER TABLE reading_analytics DROP CONSTRAINT IF EXISTS reading_analytics_source_check, ALTER source TYPE text;
				DROP TRIGGER IF EXISTS refuse ON reading_analytics`); err != nil {
				t.Fatal(err)
			}
			h.want(0, h.command("retry", filepath.Join(h.state, "dead-letters.jsonl")))
			if rows, aside := h.settled(name + ", corrected"); rows != 1500 || aside != 0 {
				t.Errorf("after retry: %d rows, %d dead letters; want 1500 and none", rows, aside)
			}
		})
	}
}

// TestBatchesByBytes uses documents of several MiB, of which an answer and a batch hold fewer than a thousand.
func TestBatchesByBytes(t *testing.T) {
	t.Parallel()
	h := newHub(t, mongowire.Config{})
	for i := range 25 {
		h.put(document(t, objectID(i), bson.E{Key: "payload", Value: strings.Repeat("x", 3<<20)}))
	}
	var batches struct{ Batches int }
	got := h.want(0, h.command("run"))
	if err := json.Unmarshal([]byte(got.stdout), &batches); err != nil || batches.Batches < 9 {
		t.Errorf("%d batches, %v; want at least 9 of 8 MiB", batches.Batches, err)
	}
	h.settled("large")
	if n := h.mongo.Cursors(); n != 0 {
		t.Errorf("%d cursors are still open", n)
	}
}

// TestNoCursorWhileWriting counts open cursors whenever documents are marked, because a server closes idle cursors.
func TestNoCursorWhileWriting(t *testing.T) {
	t.Parallel()
	h := newHub(t, mongowire.Config{})
	h.fill(3500)
	open := 0
	h.mongo.Intercept(func(call *mongowire.Call) mongowire.Action {
		if call.Command == "update" {
			open = max(open, h.mongo.Cursors())
		}
		return mongowire.Action{}
	})
	h.want(0, h.command("run"))
	if open > 0 {
		t.Errorf("%d cursors were open while documents were marked", open)
	}
	if h.mongo.Calls("getMore") > 0 {
		t.Logf("%d calls of getMore", h.mongo.Calls("getMore"))
	}
	h.settled("no cursor")
}

// TestReaderGone closes the reader of extract's stdout. extract dies of SIGPIPE without a message.
func TestReaderGone(t *testing.T) {
	t.Parallel()
	h := newHub(t, mongowire.Config{})
	h.fill(3000)
	got := finish(t, h.shell(`readsync extract | head -n 1 >"$HOME/first"; echo "${PIPESTATUS[0]}"`))
	if got.stdout != "141\n" || got.stderr != "" {
		t.Errorf("extract exited with %q; want 141, quietly\n%s", got.stdout, got.stderr)
	}
}

// TestReadTwice uses a server that returns each document twice in one answer. It becomes one row, and the second copy is identical.
func TestReadTwice(t *testing.T) {
	t.Parallel()
	h := newHub(t, mongowire.Config{})
	h.fill(10)
	h.mongo.Intercept(func(call *mongowire.Call) mongowire.Action {
		if call.Command != "find" {
			return mongowire.Action{}
		}
		return mongowire.Action{Rewrite: func(answer bsoncore.Document) bsoncore.Document {
			docs, _ := answer.Lookup("cursor", "firstBatch").Array().Values()
			batch := bsoncore.NewArrayBuilder()
			for _, d := range docs {
				batch.AppendDocument(d.Document()).AppendDocument(d.Document())
			}
			return bsoncore.NewDocumentBuilder().AppendDouble("ok", 1).AppendDocument("cursor", bsoncore.NewDocumentBuilder().
				AppendInt64("id", 0).AppendString("ns", database+"."+collection).AppendArray("firstBatch", batch.Build()).Build()).Build()
		}}
	})
	if a := h.want(0, h.command("run")).account(t); a.Read != 20 || a.Inserted != 10 || a.Identical != 10 || a.Marked != 10 {
		t.Errorf("account %+v; want 20 read, 10 inserted and 10 identical", a)
	}
	h.settled("twice")
}

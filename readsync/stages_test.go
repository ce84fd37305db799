package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lib/pq"
	"go.mongodb.org/mongo-driver/v2/bson"

	"observability-hub/lib/sysexits"
)

// grep returns the lines that keep accepts, as a filter between two stages does.
func grep(text string, keep func(line string) bool) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if keep(line) {
			b.WriteString(line)
		}
	}
	return b.String()
}

// The three stages together do the same as run. A filter between them can remove
// documents.
func TestStages(t *testing.T) {
	h := newHub(t, append(many(20, true), doc(oid(50), "x", bson.E{Key: "timestamp", Value: "04/04/2026"}), doc("text", bson.DateTime(1)))...)
	h.table.rows[oid(1).Hex()] = fakeRow{`\N`, "s", `\N`, `"differs"`, `\N`}
	h.table.rows[`"text"`] = fakeRow{`\N`, "s", `\N`, `{"$date":"1970-01-01T00:00:00.001Z"}`, `\N`}
	extracted := h.run("extract")
	if extracted.status != 0 || strings.Count(extracted.stdout, "\n") != 23 || !strings.HasSuffix(extracted.stdout, `{"_eof":true,"n":22}`+"\n") {
		t.Fatalf("extract: %d\n%s%s", extracted.status, extracted.stdout, extracted.stderr)
	}
	left := oid(2).Hex()
	loaded := h.pipe(grep(extracted.stdout, func(line string) bool { return !strings.Contains(line, left) }), "load", "--max-rejects", "5")
	h.expect(loaded, sysexits.Partial, `{"msg":"loaded","read":21,"inserted":16,"identical":1,"differing":1,"rejected":3,"filtered":1,"bad":0}`)
	if got := h.statuses(); got[statusIngested] != 22 || len(h.letters()) != 3 {
		t.Errorf("load has marked documents, or written no letters: %v, %d", got, len(h.letters()))
	}
	h.expect(h.pipe(loaded.stdout, "mark"), 0, `{"msg":"marked","read":21,"marked":20,"unmarked":0,"rejected":3,"bad":0}`)
	if got := h.statuses(); got[statusIngested] != 2 || got[statusRejected] != 3 {
		t.Errorf("%v; want 2 ingested: the filtered document and the one that differs", got)
	}
	// A second run of load and mark finds everything done.
	h.expect(h.pipe(loaded.stdout, "mark"), 0, `{"read":21,"marked":0,"unmarked":20}`)
	h.expect(h.pipe(extracted.stdout, "load", "--max-rejects", "5"), sysexits.Partial, `{"inserted":1,"identical":17,"rejected":3}`)
	if len(h.letters()) != 3 {
		t.Errorf("%d letters; want 3, without duplicates", len(h.letters()))
	}
}

func TestExtractLimit(t *testing.T) {
	h := newHub(t, many(30, false)...)
	if r := h.run("extract", "--limit", "7"); r.status != 0 || !strings.HasSuffix(r.stdout, `{"_eof":true,"n":7}`+"\n") {
		t.Errorf("%d\n%s%s", r.status, r.stdout, r.stderr)
	}
	h.docs.kinds = map[string]string{"readings": "timeseries"}
	if r := h.run("extract"); r.status != sysexits.Config {
		t.Errorf("a time series: exit status %d", r.status)
	}
}

// Lines that are not records are reported and skipped. A stream without a trailer is an
// error, but its records are processed.
func TestOddStreams(t *testing.T) {
	const row = `{"mongo_id":"a","source":"s"}` + "\n"
	for name, tc := range map[string]struct {
		command, stdin string
		status         int
		want, event    string
	}{
		"load, no trailer":       {"load", row, sysexits.DataErr, `{"inserted":1,"bad":0}`, "stream_incomplete"},
		"load, a bad line":       {"load", row + "nonsense\n" + `{"_eof":true,"n":2}`, sysexits.DataErr, `{"inserted":1,"bad":1,"filtered":0}`, "bad_record"},
		"load, an id twice":      {"load", row + row + `{"mongo_id":"a","source":"t"}` + "\n" + `{"_eof":true,"n":3}`, sysexits.Partial, `{"read":3,"inserted":1,"identical":1,"differing":1}`, "documents_differ"},
		"load, nothing":          {"load", "", sysexits.DataErr, `{"read":0}`, "stream_incomplete"},
		"mark, no trailer":       {"mark", "", sysexits.DataErr, `{"read":0}`, "stream_incomplete"},
		"mark, no outcome":       {"mark", `{"mongo_id":"a"}` + "\n" + `{"_eof":true,"n":1}`, sysexits.DataErr, `{"read":0,"bad":1}`, "bad_record"},
		"mark, unknown outcome":  {"mark", `{"mongo_id":"a","outcome":"done"}` + "\n" + `{"_eof":true,"n":1}`, sysexits.DataErr, `{"read":0,"bad":1}`, "bad_record"},
		"mark, not an id":        {"mark", `{"mongo_id":"none","outcome":"inserted"}` + "\n" + `{"_eof":true,"n":1}`, 0, `{"read":1,"marked":0,"unmarked":1}`, ""},
		"mark, no such document": {"mark", `{"mongo_id":"\"none\"","outcome":"inserted"}` + "\n" + `{"_eof":true,"n":1}`, 0, `{"read":1,"marked":0,"unmarked":1}`, ""},
		"mark, loaded only":      {"mark", `{"msg":"loaded","read":0}` + "\n" + `{"_eof":true,"n":0}`, 0, `{"read":0,"marked":0}`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHub(t)
			r := h.pipe(tc.stdin, tc.command)
			h.expect(r, tc.status, tc.want)
			if !strings.Contains(r.stderr, tc.event) {
				t.Errorf("stderr lacks %s: %s", tc.event, r.stderr)
			}
		})
	}
}

// load stops after too many rejects. It does not report the rest of the stream as missing.
func TestLoadMaxRejects(t *testing.T) {
	h := newHub(t)
	var in strings.Builder
	for _, id := range []string{"a", "b", "c"} {
		in.WriteString(`{"mongo_id":"\"` + id + `\"","source":"\u0000"}` + "\n")
	}
	r := h.pipe(in.String()+`{"_eof":true,"n":3}`, "load", "--max-rejects", "2")
	h.expect(r, sysexits.DataErr, `{"read":3,"rejected":3}`)
	if strings.Contains(r.stderr, "stream_incomplete") || len(h.letters()) != 3 {
		t.Errorf("%d letters\n%s", len(h.letters()), r.stderr)
	}
	// The letter contains everything that the record contained.
	var l struct{ Document, Guard any }
	if err := json.Unmarshal([]byte(h.letters()[0]), &l); err != nil {
		t.Fatal(err)
	}
	if d, _ := json.Marshal(l.Document); !strings.Contains(string(d), `"source":"\u0000"`) {
		t.Errorf("the letter is %s", h.letters()[0])
	}
}

// mark detects an edit between the stages by the digest.
func TestMarkAfterEdit(t *testing.T) {
	h := newHub(t, doc(oid(1), "old"), doc(oid(2), "same"))
	loaded := h.pipe(h.run("extract").stdout, "load")
	h.docs.all[0] = marshal(t, doc(oid(1), "new"))
	h.expect(h.pipe(loaded.stdout, "mark"), 0, `{"read":2,"marked":1,"unmarked":1}`)
	// Older versions of load wrote no digest. Then only the id is compared.
	bare := `{"mongo_id":"` + oid(1).Hex() + `","outcome":"identical"}` + "\n" + `{"_eof":true,"n":1}`
	h.expect(h.pipe(bare, "mark"), 0, `{"marked":1}`)
}

// retry removes letters whose documents are rows now from the file, and keeps the others.
func TestRetry(t *testing.T) {
	h := newHub(t, doc(oid(1), "a\x00b"), doc(oid(2), "c\x00d"), doc(oid(3), "e\x00f"))
	h.expect(h.run("run"), sysexits.DataErr, `{"rejected":3,"marked":3}`)
	file := filepath.Join(h.state, "dead-letters.jsonl")
	f, err := os.OpenFile(file, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString("nonsense\n\n"); err != nil {
		t.Fatal(err)
	}
	f.Close()
	h.expect(h.run("retry", file), sysexits.DataErr, `{"msg":"retried","read":3,"rejected":3,"marked":0,"bad":1}`)
	if len(h.letters()) != 4 {
		t.Errorf("%d lines; want 3 letters and the invalid line", len(h.letters()))
	}
	h.table.rows[oid(2).Hex()] = fakeRow{`\N`, "s", `\N`, `"other"`, `\N`}
	r := h.run("retry", "--nul=replace", file)
	h.expect(r, sysexits.DataErr, `{"read":3,"inserted":2,"differing":1,"rejected":0,"marked":2,"unmarked":0,"bad":1}`)
	if got := h.statuses(); got[statusProcessed] != 2 || got[statusRejected] != 1 || len(h.letters()) != 2 {
		t.Errorf("%v, %q", got, h.letters())
	}
	if row := h.table.rows[oid(1).Hex()]; row[3] != "\"a\ufffdb\"" {
		t.Errorf("the row is %q", row)
	}
	if r := h.run("retry", filepath.Join(h.state, "none")); r.status != sysexits.DataErr {
		t.Errorf("a file that does not exist: exit status %d", r.status)
	}
}

// A retry that fails leaves the file unchanged.
func TestRetryFails(t *testing.T) {
	h := newHub(t, doc(oid(1), "a\x00b"))
	h.run("run")
	before := strings.Join(h.letters(), "")
	h.table.fail = func(sql string) error {
		if sql == "COMMIT" {
			return &pq.Error{Code: "57P01", Message: "terminating connection"}
		}
		return nil
	}
	file := filepath.Join(h.state, "dead-letters.jsonl")
	r := h.run("retry", "--nul=replace", file)
	if r.status != sysexits.Unavailable || strings.Join(h.letters(), "") != before || h.statuses()[statusRejected] != 1 {
		t.Errorf("exit status %d, %v, %q\n%s", r.status, h.statuses(), h.letters(), r.stderr)
	}
	if left, _ := filepath.Glob(filepath.Join(h.state, ".*")); len(left) != 0 {
		for _, name := range left {
			if strings.Contains(name, "dead-letters") {
				t.Errorf("%s was not removed", name)
			}
		}
	}
}

// verify reports documents and rows that exist on one side only, with the problem.
func TestVerify(t *testing.T) {
	h := newHub(t, append(many(10, true), doc(oid(20), "x"))...)
	h.run("run", "--max-rejects", "5")
	h.put(doc(oid(30), "later"))
	h.expect(h.run("verify"), 0, `{"msg":"verified","processed":9,"rejected":2,"ingested":1,"rows":9,"no_row":0,"no_letter":0,"no_document":0,"unmarked":0}`)
	delete(h.table.rows, oid(20).Hex())
	h.table.rows["abc"], h.table.rows[oid(77).Hex()] = fakeRow{}, fakeRow{}
	h.table.rows[oid(30).Hex()] = fakeRow{}
	if err := os.Truncate(filepath.Join(h.state, "dead-letters.jsonl"), 0); err != nil {
		t.Fatal(err)
	}
	r := h.run("verify", "--all")
	h.expect(r, sysexits.Partial, `{"processed":9,"rejected":2,"ingested":1,"rows":11,"no_row":1,"no_letter":2,"no_document":2,"unmarked":1}`)
	for problem, n := range map[string]int{"no_row": 1, "no_letter": 2, "no_document": 2} {
		if strings.Count(r.stdout, `"problem":"`+problem+`"`) != n {
			t.Errorf("%s is not reported %d times\n%s", problem, n, r.stdout)
		}
	}
	// Without the file, verify cannot know which documents have a letter.
	r = h.run("verify", "--dead-letters", filepath.Join(h.state, "none"))
	h.expect(r, sysexits.Partial, `{"no_letter":0,"no_row":1,"no_document":2}`)
	if !strings.Contains(r.stderr, `"msg":"dead_letters_missing"`) || strings.Contains(r.stdout, "no_document\",") {
		t.Error(r.stdout, r.stderr)
	}
	if len(h.table.rows) != 11 || h.statuses()[statusProcessed] != 9 {
		t.Error("verify has changed something")
	}
}

// Flags reject values without a meaning.
func TestFlagsRefused(t *testing.T) {
	h := newHub(t)
	for _, args := range [][]string{{"run", "--timeout", "10ms"}, {"run", "--max-rejects", "-1"}, {"load", "--timeout", "0s"}, {"load", "--max-rejects", "-5"},
		{"retry", "--timeout", "1ms", "x"}, {"serve", "--max-rejects", "-1"}, {"run", "--nul", "drop"}, {"run", "--differing", "both"}, {"extract", "--dates", "iso"}} {
		if r := h.run(args...); r.status != sysexits.Usage || h.docs.asked > 0 {
			t.Errorf("%v: exit status %d\n%s", args, r.status, r.stderr)
		}
	}
}

package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lib/pq"
	"github.com/lib/pq/pqerror"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"

	"observability-hub/lib/cli"
	"observability-hub/lib/diag"
	"observability-hub/lib/sysexits"
	"observability-hub/readsync/internal/extjson"
	"observability-hub/readsync/internal/rawbson"
)

// oid returns the n-th ObjectID.
func oid(n int) (id bson.ObjectID) {
	copy(id[:], fmt.Sprintf("%012d", n))
	return id
}

// many returns n documents. If odd is set, every seventh cannot become a row.
func many(n int, odd bool) (docs []bson.D) {
	for i := range n {
		text := "x\ty\\z"
		if odd && i%7 == 0 {
			text = "\x00"
		}
		docs = append(docs, doc(oid(i), bson.D{{Key: "n", Value: int32(i)}, {Key: "text", Value: text}}))
	}
	return docs
}

// letters returns the lines of the dead letter file.
func (h *hub) letters() (lines []string) {
	h.Helper()
	b, err := os.ReadFile(filepath.Join(h.state, "dead-letters.jsonl"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		h.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		lines = append(lines, line)
	}
	return lines
}

// Each document becomes one row or one dead letter, and is marked accordingly. A second
// run finds nothing to do.
func TestRun(t *testing.T) {
	h := newHub(t, many(2500, true)...)
	const aside = 358 // every seventh
	h.expect(h.run("run", "--max-rejects", "1000"), sysexits.Partial,
		`{"msg":"synced","level":"WARN","read":2500,"inserted":2142,"identical":0,"differing":0,"rejected":358,"marked":2500,"unmarked":0,"batches":3}`)
	if got := h.statuses(); got[statusProcessed] != 2500-aside || got[statusRejected] != aside || len(h.table.rows) != 2500-aside || len(h.letters()) != aside {
		t.Errorf("%v, %d rows, %d letters", got, len(h.table.rows), len(h.letters()))
	}
	if got := h.table.rows[oid(1).Hex()]; got != (fakeRow{`\N`, "s", `\N`, `{"n":1,"text":"x\ty\\z"}`, `\N`}) {
		t.Errorf("a row is %q", got)
	}
	h.expect(h.run("run"), 0, `{"read":0,"inserted":0,"marked":0,"batches":0}`)
}

// After a killed run, the next one finds rows whose documents are not marked, and does
// not duplicate them.
func TestRunAgain(t *testing.T) {
	h := newHub(t, many(1500, false)...)
	h.expect(h.run("run"), 0, `{"inserted":1500}`)
	for i := range h.docs.all { // undo the marks
		h.docs.all[i] = marshal(t, many(1500, false)[i])
	}
	h.put(doc("new", 1))
	h.expect(h.run("run"), 0, `{"read":1501,"inserted":1,"identical":1500,"marked":1501}`)
}

// A row that differs is kept and its document stays ingested, unless --differing=replace
// is given.
func TestRunDiffering(t *testing.T) {
	h := newHub(t, doc(oid(1), int32(1)), doc(oid(2), bson.DateTime(0)), doc(oid(3), "x"))
	h.table.rows[oid(1).Hex()] = fakeRow{`\N`, "s", `\N`, "2", `\N`}
	h.table.rows[oid(2).Hex()] = fakeRow{`\N`, "s", "", `"1970-01-01T00:00:00Z"`, "null"} // an older hub's
	r := h.run("run")
	h.expect(r, sysexits.Partial, `{"read":3,"inserted":1,"identical":1,"differing":1,"marked":2}`)
	if !strings.Contains(r.stderr, `"msg":"document_differs"`) || h.statuses()[statusIngested] != 1 {
		t.Errorf("%v\n%s", h.statuses(), r.stderr)
	}
	h.expect(h.run("run", "--differing=replace", "--dry-run"), 0, `{"differing":1,"replaced":1,"marked":0,"dry_run":true}`)
	if h.table.rows[oid(1).Hex()][3] != "2" || h.statuses()[statusIngested] != 1 {
		t.Error("a dry run has changed something")
	}
	h.expect(h.run("run", "--differing=replace"), 0, `{"differing":1,"replaced":1,"marked":1}`)
	if h.table.rows[oid(1).Hex()][3] != "1" || h.statuses()[statusProcessed] != 3 {
		t.Errorf("%v, %v", h.table.rows, h.statuses())
	}
}

// A dry run prints the numbers of a run and writes nothing.
func TestRunDry(t *testing.T) {
	h := newHub(t, append(many(10, true), doc(oid(99), "old"))...)
	h.table.rows[oid(99).Hex()] = fakeRow{`\N`, "s", `\N`, `"older"`, `\N`}
	h.table.missing = true
	before := maps.Clone(h.table.rows)
	h.table.persistence = temporary
	if r := h.run("run", "--dry-run"); r.status != sysexits.Config || !strings.Contains(r.stderr, "search_path") {
		t.Errorf("into a temporary table: exit status %d\n%s", r.status, r.stderr)
	}
	h.table.persistence, h.table.missing = "p", true
	h.expect(h.run("run", "--dry-run", "--max-rejects", "5"), sysexits.Partial, `{"read":11,"inserted":8,"differing":1,"rejected":2,"marked":0,"dry_run":true}`)
	h.expect(h.run("run", "--dry-run"), sysexits.DataErr, `{"rejected":2}`)
	if len(h.letters()) != 0 || h.statuses()[statusIngested] != 11 || !maps.Equal(before, h.table.rows) {
		t.Errorf("%v, %v, %v", h.letters(), h.statuses(), h.table.rows)
	}
}

// If a batch exceeds --max-rejects, it is committed and the run ends.
func TestRunMaxRejects(t *testing.T) {
	h := newHub(t, many(2500, true)...)
	r := h.run("run")
	h.expect(r, sysexits.DataErr, `{"read":1000,"rejected":143,"marked":1000,"batches":1}`)
	if !strings.Contains(r.stderr, `"msg":"too_many_rejects"`) || strings.Count(r.stderr, `"msg":"document_rejected"`) != maxNamed {
		t.Error(r.stderr)
	}
	if n := h.statuses()[statusIngested]; n != 1500 {
		t.Errorf("%d documents are left; want 1500", n)
	}
}

// No document is marked before its row is committed or its letter is on disk.
func TestMarkedLast(t *testing.T) {
	h := newHub(t, many(2100, true)...)
	h.docs.onUpdate = func(command bson.Raw) error {
		h.table.mu.Lock()
		defer h.table.mu.Unlock()
		letters := strings.Join(h.letters(), "")
		statements, _ := command.Lookup("updates").Array().Values()
		if len(statements) > updatesTogether {
			t.Errorf("%d updates in one command", len(statements))
		}
		for _, s := range statements {
			id := s.Document().Lookup("q", "_id").ObjectID().Hex()
			_, there := h.table.rows[id]
			if to := s.Document().Lookup("u", "$set", "status").StringValue(); to == statusProcessed && !there || to == statusRejected && !strings.Contains(letters, id) {
				t.Errorf("%s is marked %s too early", id, to)
			}
		}
		return nil
	}
	h.expect(h.run("run", "--max-rejects", "1000"), sysexits.Partial, `{"read":2100,"marked":2100}`)
}

// A failure of either database leaves documents ingested, and the last record balances.
func TestRunFailures(t *testing.T) {
	down := mongo.CommandError{Code: 11600, Message: "shutting down"}
	for name, tc := range map[string]struct {
		break_           func(*hub)
		status           int
		event            string
		processed, atMax int // number of marked documents, maximum number of rows
	}{
		"the second query": {func(h *hub) {
			h.docs.onFind = func(n int) error { return []error{nil, nil, down}[min(n, 2)] }
		}, sysexits.Unavailable, "source_unavailable", 1000, 1000},
		"no privilege to update": {func(h *hub) {
			h.docs.onUpdate = func(bson.Raw) error { return mongo.CommandError{Code: 13, Message: "not allowed"} }
		}, sysexits.Config, "source_refused", 0, 2500},
		"a primary that steps down once": {func(h *hub) {
			failed := false
			h.docs.onUpdate = func(bson.Raw) error {
				if !failed {
					failed = true
					return mongo.CommandError{Code: 10107, Message: "not primary"}
				}
				return nil
			}
		}, 0, "", 2500, 2500},
		"a validation rule": {func(h *hub) {
			h.docs.rule = func(status string) int { return map[string]int{statusProcessed: 121}[status] }
		}, sysexits.Partial, "marks_refused", 0, 2500},
		"the first COMMIT": {func(h *hub) {
			h.table.fail = func(sql string) error {
				if sql == "COMMIT" {
					return &pq.Error{Code: "53100", Message: "no space left on device"}
				}
				return nil
			}
		}, sysexits.Unavailable, "database_unavailable", 0, 0},
		"a conflict of transactions, twice": {func(h *hub) {
			n := 0
			h.table.fail = func(sql string) error {
				if n++; sql == directSQL && n < 12 {
					return &pq.Error{Code: "40001", Message: "could not serialize access"}
				}
				return nil
			}
		}, 0, "", 2500, 2500},
		"an exhausted id sequence": {func(h *hub) {
			h.table.refuse = func(string) *pq.Error { return &pq.Error{Code: "2200H", Message: "reached maximum value of sequence"} }
		}, sysexits.Config, "database_refused", 0, 0},
		"a temporary table":               {func(h *hub) { h.table.persistence = temporary }, sysexits.Config, "database_refused", 0, 0},
		"a table that would be temporary": {func(h *hub) { h.table.missing, h.table.persistence = true, temporary }, sysexits.Config, "database_refused", 0, 0},
		"a table that accepts no COPY": {func(h *hub) {
			h.table.fail = func(sql string) error {
				if sql == directSQL {
					return &pq.Error{Code: "42809", Message: "cannot copy to view"}
				}
				return nil
			}
		}, 0, "", 2500, 2500},
		"no table yet": {func(h *hub) { h.table.missing = true }, 0, "", 2500, 2500},
		"no unique index": {func(h *hub) {
			h.table.fail = func(sql string) error {
				if strings.HasPrefix(sql, "EXPLAIN") {
					return &pq.Error{Code: "42P10", Message: "there is no unique or exclusion constraint matching the ON CONFLICT specification"}
				}
				return nil
			}
		}, sysexits.Config, "database_refused", 0, 0},
		"a view":             {func(h *hub) { h.docs.kinds = map[string]string{"readings": "view"} }, sysexits.Config, "source_refused", 0, 0},
		"another collection": {func(h *hub) { h.docs.kinds = map[string]string{"reading": "collection"} }, sysexits.Config, "collection_missing", 0, 0},
		"no collection yet":  {func(h *hub) { h.docs.kinds, h.docs.all = map[string]string{"system.views": "collection"}, nil }, 0, "collection_missing", 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHub(t, many(2500, false)...)
			tc.break_(h)
			r := h.run("run")
			if r.status != tc.status || !strings.Contains(r.stderr, tc.event) || tc.event == "" && r.stderr != "" || strings.Contains(r.stderr, "unbalanced") {
				t.Errorf("exit status %d; want %d, %s\n%s%s", r.status, tc.status, tc.event, r.stdout, r.stderr)
			}
			if n := h.statuses()[statusProcessed]; n != tc.processed || len(h.table.rows) > tc.atMax || len(h.table.rows) < n || h.table.inside {
				t.Errorf("%d processed, %d rows; want %d, at most %d", n, len(h.table.rows), tc.processed, tc.atMax)
			}
		})
	}
}

// The database refuses some rows: with an error that names their lines, with one that
// does not, with one of another class, or with a trigger that discards them. The other
// rows are written.
func TestRefusedRows(t *testing.T) {
	odd := map[string]bool{oid(0).Hex(): true, oid(700).Hex(): true, oid(1234).Hex(): true}
	refuse := func(code pqerror.Code) func(string) *pq.Error {
		return func(id string) *pq.Error {
			if odd[id] {
				return &pq.Error{Code: code, Message: "odd"}
			}
			return nil
		}
	}
	for name, set := range map[string]func(*fakeDatabase){
		"a constraint":              func(d *fakeDatabase) { d.refuse = refuse("23514") },
		"without a line":            func(d *fakeDatabase) { d.refuse, d.nameless = refuse("22P02"), true },
		"an error of another class": func(d *fakeDatabase) { d.refuse = refuse("0A000") },
		"a trigger":                 func(d *fakeDatabase) { d.swallow = func(id string) bool { return odd[id] } },
	} {
		t.Run(name, func(t *testing.T) {
			h := newHub(t, many(1500, false)...)
			set(h.table)
			h.expect(h.run("run", "--max-rejects", "3"), sysexits.Partial, `{"read":1500,"inserted":1497,"rejected":3,"marked":1500}`)
			if h.statuses()[statusRejected] != 3 || len(h.table.rows) != 1497 || len(h.letters()) != 3 || !strings.Contains(strings.Join(h.letters(), ""), `"reason":"refused"`) {
				t.Errorf("%v, %d rows, %v", h.statuses(), len(h.table.rows), h.letters())
			}
		})
	}
}

// If the table accepts no row at all, no document is rejected.
func TestTableAcceptsNothing(t *testing.T) {
	h := newHub(t, many(5, false)...)
	h.table.refuse = func(string) *pq.Error { return &pq.Error{Code: "0A000", Message: "cannot insert into this table"} }
	if r := h.run("run"); r.status == 0 || h.statuses()[statusIngested] != 5 || len(h.letters()) != 0 {
		t.Errorf("exit status %d, %v, %v\n%s", r.status, h.statuses(), h.letters(), r.stderr)
	}
}

// A text is a timestamp if it means the same day in every order of day and month.
func TestReadMoments(t *testing.T) {
	at := func(id int, text string) bson.D { return doc(oid(id), 1, bson.E{Key: "timestamp", Value: text}) }
	h := newHub(t, at(1, "04/04/2026"), at(2, "04/05/2026"), at(3, "13/13/2026"), at(4, "2026-01-04T10:00Z"))
	h.expect(h.run("run", "--max-rejects", "2"), sysexits.Partial, `{"inserted":2,"rejected":2,"marked":4}`)
	if got := h.table.rows[oid(1).Hex()][0] + " " + h.table.rows[oid(4).Hex()][0]; got != "2026-04-04T00:00:00Z 2026-01-04T10:00:00Z" {
		t.Errorf("the timestamps are %s", got)
	}
}

// A signal ends the run after the batch that is being written. That batch is committed
// and marked.
func TestRunSignalled(t *testing.T) {
	h := newHub(t, many(5000, false)...)
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("a signal")
	h.docs.onFind = func(n int) error {
		if n == 3 {
			cancel(stop)
		}
		return nil
	}
	inTool(t, func(_ context.Context, env *cli.Env) error {
		cmd := &runCmd{peerFlags: peerFlags{Timeout: time.Minute, peers: h.peers()}, letterFlags: letterFlags{StateDir: h.state}}
		a, err := cmd.sync(ctx, env)
		n := h.statuses()[statusProcessed]
		if !errors.Is(err, stop) || a.read != int64(n) || len(h.table.rows) != n || n > 2000 {
			t.Errorf("%v: read %d, %d rows, %d processed", err, a.read, len(h.table.rows), n)
		}
		return nil
	})
}

// Documents that fill a batch alone are synced like the others.
func TestLargeDocuments(t *testing.T) {
	var docs []bson.D
	for i := range 5 {
		docs = append(docs, doc(oid(i), strings.Repeat("x", 5<<20)))
	}
	h := newHub(t, append(docs, many(20, false)[5:]...)...)
	h.expect(h.run("run"), 0, `{"inserted":20,"marked":20,"batches":5}`)
	if _, size := fitting([]bson.Raw{make(bson.Raw, batchBytes+1), nil}); size != batchBytes+1 {
		t.Errorf("a batch of one has %d bytes", size)
	}
}

// walk returns each document once if the ids have several types.
func TestWalk(t *testing.T) {
	for _, narrow := range []bool{false, true} {
		ids := []any{nil, int32(1), int32(2), "", "a", "b", oid(1), oid(2)}
		if !narrow {
			ids = append(ids, bson.MaxKey{})
		}
		h := newHub(t)
		for _, id := range ids {
			h.put(doc(id, 1))
		}
		h.docs.narrow = narrow
		s := &source{collection: h.docs, timeout: time.Minute}
		w := &walk{source: s, status: statusIngested}
		seen := 0
		for {
			raws, err := w.next(t.Context(), 2)
			if err != nil {
				t.Fatal(err)
			}
			if len(raws) == 0 {
				break
			}
			seen += len(raws)
		}
		if seen != len(ids) || s.fewTypes != narrow {
			t.Errorf("%d documents of %d, few types %v", seen, len(ids), s.fewTypes)
		}
	}
}

// walk returns an error if it cannot proceed, instead of reading endlessly.
func TestWalkRefuses(t *testing.T) {
	for name, tc := range map[string]struct {
		docs   []bson.Raw
		status int
	}{
		"a document without _id":  {[]bson.Raw{marshal(t, bson.D{{Key: "status", Value: statusIngested}})}, sysexits.Config},
		"the same document again": {[]bson.Raw{marshal(t, doc(oid(1), 1))}, sysexits.Failed},
	} {
		s := &source{collection: stubborn{docs: tc.docs}, name: "readings", timeout: time.Minute}
		w := &walk{source: s}
		var err error
		for range 2 {
			if _, e := w.next(t.Context(), 10); err == nil {
				err = e
			}
		}
		if sysexits.Code(err) != tc.status {
			t.Errorf("%s: %v; want %d", name, err, tc.status)
		}
	}
}

// stubborn returns the same documents for every query.
type stubborn struct {
	collection
	docs []bson.Raw
}

func (s stubborn) find(context.Context, question) ([]bson.Raw, error) { return s.docs, nil }

// A document that was edited after it was read is not marked.
func TestEditedMeanwhile(t *testing.T) {
	h := newHub(t, doc(oid(1), "old"), doc(oid(2), "same"))
	edited := false
	h.docs.onUpdate = func(bson.Raw) error {
		if !edited {
			edited = true
			h.docs.all[0] = marshal(t, doc(oid(1), "new"))
		}
		return nil
	}
	h.expect(h.run("run"), 0, `{"inserted":2,"marked":1,"unmarked":1}`)
	if status := rawbson.Lookup(h.docs.all[0], "status"); string(status.Text()) != statusIngested {
		t.Errorf("the edited document is marked %s", status.Text())
	}
}

// otherForms returns the rows that older hubs made of the same document, and nothing else.
func TestOtherForms(t *testing.T) {
	raw := marshal(t, doc(oid(1), bson.D{{Key: "at", Value: bson.DateTime(0)}, {Key: "id", Value: oid(2)}}, bson.E{Key: "event_type", Value: int32(5)}, bson.E{Key: "meta", Value: bson.A{1}}))
	d := &document{}
	r := readRow(datesFlag{Dates: "extended"}.builder(extjson.RejectNUL), raw, d)
	var got []string
	for _, form := range otherForms {
		other := form(&r)
		if other == nil {
			got = append(got, "-")
			continue
		}
		got = append(got, fmt.Sprintf("%s %s %s", other.columns[2], other.columns[3], other.columns[4]))
	}
	hex, text := oid(2).Hex(), `{"at":"1970-01-01T00:00:00Z","id":"`
	want := []string{"-", `{"$numberInt":"5"} ` + text + hex + `"} [1]`, " " + text + hex + `"} [1]`, " " + text + hex + `"} `}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("%q\nwant\n%q", got, want)
	}
	// The forms of a record are made of its columns.
	line := r
	line.from = &extracted{}
	if other := otherForms[1](&line); other == nil || string(other.columns[3]) != text+hex+`"}` {
		t.Errorf("the form of a record: %+v", other)
	}
	line.columns[3] = []byte(`{"$date":"never"}`)
	if other := otherForms[1](&line); other != nil {
		t.Errorf("a text that is not Extended JSON has another form: %s", other.columns[3])
	}
}

// A run shows its progress on a terminal, at most twice a second.
func TestProgress(t *testing.T) {
	h := newHub(t, many(3, false)...)
	var said strings.Builder
	env := &cli.Env{Diag: &diag.Logger{Name: name, Terminal: true, W: &said}}
	p := newProgress(t.Context(), env, &source{collection: h.docs, timeout: time.Minute})
	if p.off || p.total != 3 {
		t.Errorf("%+v; want progress of 3 documents", p)
	}
	p.at(1)
	if first := p.shown; p.done != 1 || first.IsZero() {
		t.Errorf("%+v: at has shown nothing", p)
	} else if p.at(2); p.done != 2 || p.shown != first {
		t.Errorf("%+v: at has shown the line more than twice a second", p)
	}
	if got := said.String(); !strings.HasPrefix(got, "\r\x1b[Kreadsync: 1 of 3 documents, ") || strings.Count(got, "\r") != 1 {
		t.Errorf("the terminal shows %q", got)
	}
	if q := newProgress(t.Context(), &cli.Env{Diag: &diag.Logger{}}, nil); !q.off {
		t.Error("progress is shown without a terminal")
	}
}

// If a batch has two rows with one id, the second one is compared with the first.
func TestSameIDTwice(t *testing.T) {
	h := newHub(t)
	target, err := openTarget(t.Context(), peerFlags{Timeout: time.Minute, peers: h.peers()}, writeMode{})
	if err != nil {
		t.Fatal(err)
	}
	made := func(payload string) *row {
		return &row{id: "a", columns: [5][]byte{3: []byte(payload)}, from: &extracted{}}
	}
	for _, direct := range []bool{true, false} {
		h.table.rows = map[string]fakeRow{}
		target.direct = direct
		rows := []*row{made("1"), {id: "b", from: &extracted{}}, made("1"), made("2")}
		if err := target.write(rows); err != nil {
			t.Fatal(err)
		}
		var got []outcome
		for _, r := range rows {
			got = append(got, r.outcome)
		}
		if fmt.Sprint(got) != "[inserted inserted identical differing]" || len(h.table.rows) != 2 {
			t.Errorf("direct %v: %v, %d rows", direct, got, len(h.table.rows))
		}
	}
}

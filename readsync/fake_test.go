package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lib/pq"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"observability-hub/readsync/internal/rawbson"
)

// hub has both databases of a sync, in memory, and a state directory.
type hub struct {
	*testing.T
	docs  *fakeCollection
	table *fakeDatabase
	state string
}

func newHub(t *testing.T, docs ...bson.D) *hub {
	t.Helper()
	h := &hub{T: t, state: t.TempDir(), docs: &fakeCollection{T: t}, table: &fakeDatabase{T: t, rows: map[string]fakeRow{}}}
	for name, value := range map[string]string{"CREDENTIALS_DIRECTORY": "", "MONGO_URI": "mongodb://localhost", "MONGO_DB_NAME": "hub", "MONGO_COLLECTION": "readings", "READSYNC_STATE_DIR": h.state} {
		t.Setenv(name, value)
	}
	h.put(docs...)
	return h
}

func (h *hub) put(docs ...bson.D) {
	for _, d := range docs {
		h.docs.all = append(h.docs.all, marshal(h, d))
	}
	slices.SortStableFunc(h.docs.all, func(a, b bson.Raw) int { return compareIDs(rawbson.Lookup(a, "_id"), rawbson.Lookup(b, "_id")) })
}

func (h *hub) peers() peers {
	return peers{
		collection: func(*options.ClientOptions, string, string) (collection, error) { return h.docs, nil },
		database:   func(context.Context, time.Duration) (database, error) { return h.table, nil },
	}
}

// run runs the tool with the databases of the hub.
func (h *hub) run(args ...string) ran {
	h.Helper()
	return runApp(h.T, appBetween(h.peers()), args...)
}

// pipe runs the tool with stdin.
func (h *hub) pipe(stdin string, args ...string) ran {
	h.Helper()
	return runInput(h.T, appBetween(h.peers()), stdin, args...)
}

// expect fails the test unless a run ended with that exit status and its last record
// has these fields.
func (h *hub) expect(r ran, status int, fields string) map[string]any {
	h.Helper()
	var last, want map[string]any
	for line := range strings.Lines(r.stdout) {
		if !strings.Contains(line, `"_eof"`) {
			last = nil
			if err := json.Unmarshal([]byte(line), &last); err != nil {
				h.Errorf("not a record: %s", line)
			}
		}
	}
	if err := json.Unmarshal([]byte(fields), &want); err != nil {
		h.Fatal(err)
	}
	for k, v := range want {
		if !reflect.DeepEqual(last[k], v) {
			h.Errorf("%s is %v; want %v", k, last[k], v)
		}
	}
	if r.status != status || h.Failed() {
		h.Errorf("exit status %d; want %d\n%s%s", r.status, status, r.stdout, r.stderr)
	}
	return last
}

// statuses returns the number of documents of each status.
func (h *hub) statuses() map[string]int {
	n := map[string]int{}
	for _, d := range h.docs.all {
		n[string(rawbson.Lookup(d, "status").Text())]++
	}
	return n
}

// doc returns an ingested document.
func doc(id any, payload any, more ...bson.E) bson.D {
	return append(bson.D{{Key: "_id", Value: id}, {Key: "status", Value: statusIngested}, {Key: "source", Value: "s"}, {Key: "payload", Value: payload}}, more...)
}

// fakeCollection answers the queries of readsync from documents in the order of their ids.
type fakeCollection struct {
	*testing.T
	mu       sync.Mutex
	all      []bson.Raw
	asked    int                     // number of queries
	onFind   func(n int) error       // called before the answer to the nth query
	onUpdate func(bson.Raw) error    // called before each update
	kinds    map[string]string       // types of the collections, by name
	narrow   bool                    // like FerretDB, reject the codes of some types
	rule     func(status string) int // error code of a refused status, or 0
}

func compareIDs(a, b rawbson.Value) int {
	rank := func(k bson.Type) int {
		return slices.Index([]bson.Type{bson.TypeNull, bson.TypeInt32, bson.TypeString, bson.TypeObjectID, bson.TypeMaxKey}, k)
	}
	switch {
	case a.Kind != b.Kind:
		return cmp.Compare(rank(a.Kind), rank(b.Kind))
	case a.Kind == bson.TypeInt32:
		return cmp.Compare(a.Data[0], b.Data[0]) // the tests use only small numbers
	case a.Kind == bson.TypeString:
		return bytes.Compare(a.Text(), b.Text())
	}
	return bytes.Compare(a.Data, b.Data)
}

func asValue(v bson.RawValue) rawbson.Value { return rawbson.Value{Kind: v.Type, Data: v.Value} }

func (c *fakeCollection) find(ctx context.Context, q question) ([]bson.Raw, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.asked++; c.onFind != nil {
		if err := c.onFind(c.asked); err != nil {
			return nil, err
		}
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	var found []bson.Raw
	for _, d := range c.all {
		id := rawbson.Lookup(d, "_id")
		match := true
		for _, e := range q.filter {
			if e.Key == "status" {
				match = match && string(rawbson.Lookup(d, "status").Text()) == e.Value
				continue
			}
			switch op := e.Value.(bson.D)[0]; op.Key {
			case "$gt":
				v := asValue(op.Value.(bson.RawValue))
				match = match && id.Kind == v.Kind && compareIDs(id, v) > 0
			case "$type":
				types := op.Value.([]int32)
				if c.narrow && slices.Contains(types, 127) {
					return nil, mongo.CommandError{Code: 2, Message: "unknown type code 127"}
				}
				match = match && slices.ContainsFunc(types, func(t int32) bool { return byte(t) == byte(id.Kind) })
			case "$in":
				match = match && slices.ContainsFunc(op.Value.(bson.A), func(v any) bool { return asValue(v.(bson.RawValue)).Equal(id) })
			default:
				c.Errorf("the fake does not support the filter %v", q.filter)
			}
		}
		if match && len(found) < q.limit {
			found = append(found, slices.Clone(d))
		}
	}
	return found, nil
}

func (c *fakeCollection) update(_ context.Context, command bson.Raw) (bson.Raw, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.onUpdate != nil {
		if err := c.onUpdate(command); err != nil {
			return nil, err
		}
	}
	statements, err := command.Lookup("updates").Array().Values()
	if err != nil {
		c.Error(err)
	}
	n, failed := int32(0), mongo.WriteErrors(nil)
	for _, s := range statements {
		to := s.Document().Lookup("u", "$set", "status").StringValue()
		q := s.Document().Lookup("q").Document()
		id := asValue(q.Lookup("_id"))
		i, there := slices.BinarySearchFunc(c.all, id, func(d bson.Raw, id rawbson.Value) int { return compareIDs(rawbson.Lookup(d, "_id"), id) })
		if there && c.matches(c.all[i], q) {
			d := c.all[i]
			if c.rule != nil && c.rule(to) != 0 {
				failed = append(failed, mongo.WriteError{Code: c.rule(to), Message: "Document failed validation"})
				continue
			}
			var fields bson.D
			if err := bson.Unmarshal(d, &fields); err != nil {
				c.Error(err)
			}
			for k := range fields {
				if fields[k].Key == "status" {
					fields[k].Value = to
				}
			}
			c.all[i], n = marshal(c, fields), n+1
		}
	}
	reply := bson.Raw(marshal(c, bson.D{{Key: "n", Value: n}, {Key: "ok", Value: 1.0}}))
	if failed != nil {
		return nil, mongo.WriteException{WriteErrors: failed, Raw: reply}
	}
	return reply, nil
}

// matches reports whether a document matches a guard.
func (c *fakeCollection) matches(d, q bson.Raw) bool {
	conditions, err := q.Elements()
	if err != nil {
		c.Error(err)
	}
	for _, e := range conditions {
		have, want := rawbson.Lookup(d, e.Key()), asValue(e.Value())
		if e.Value().Type == bson.TypeEmbeddedDocument {
			op := e.Value().Document().Index(0)
			if op.Key() == "$exists" {
				want = rawbson.Value{}
			} else if want = asValue(op.Value()); op.Key() != "$eq" {
				c.Errorf("the fake does not support the guard %v", q)
			}
		}
		if !have.Equal(want) {
			return false
		}
	}
	return true
}

func (c *fakeCollection) list(_ context.Context, filter bson.D) (found []mongo.CollectionSpecification, err error) {
	kinds := c.kinds
	if kinds == nil {
		kinds = map[string]string{"readings": "collection"}
	}
	for name, kind := range kinds {
		if len(filter) == 0 || filter[0].Value == name {
			found = append(found, mongo.CollectionSpecification{Name: name, Type: kind})
		}
	}
	return found, nil
}

func (c *fakeCollection) count(context.Context, bson.D) (int64, error) { return int64(len(c.all)), nil }
func (c *fakeCollection) close()                                       {}

// fakeRow has the columns of a row as texts, with "\\N" for NULL.
type fakeRow [5]string

// fakeDatabase is a table with transactions, for one session.
type fakeDatabase struct {
	*testing.T
	mu          sync.Mutex
	rows        map[string]fakeRow // committed rows
	inside      bool               // a transaction has begun
	seen        map[string]fakeRow // the rows that the transaction sees
	staged      []stagedRow
	said        []string
	missing     bool                      // the table does not exist
	persistence string                    // of the table; "" means p
	refuse      func(id string) *pq.Error // the error of a refused row
	nameless    bool                      // errors do not name the line of a refused row
	swallow     func(id string) bool      // a trigger discards the row
	fail        func(sql string) error    // the error of a statement
	lost        bool                      // the session is lost
}

type stagedRow struct {
	n   int
	id  string
	row fakeRow
}

func (d *fakeDatabase) statement(sql string) error {
	d.said = append(d.said, sql)
	if d.fail != nil {
		if err := d.fail(sql); err != nil {
			return err
		}
	}
	return nil
}

func (d *fakeDatabase) exec(sql string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.statement(sql); err != nil {
		return err
	}
	word, _, _ := strings.Cut(sql, " ")
	switch word {
	case "BEGIN":
		if d.inside {
			d.Errorf("BEGIN inside a transaction: %s", sql)
		}
		d.inside, d.seen, d.staged = true, maps.Clone(d.rows), nil
		return nil
	case "COMMIT":
		d.rows = d.seen
		fallthrough
	case "ROLLBACK":
		if d.inside = false; word == "COMMIT" && d.seen == nil {
			d.Error("COMMIT without a transaction")
		}
		d.seen, d.staged = nil, nil
		return nil
	}
	if !d.inside {
		d.Errorf("outside of a transaction: %s", sql)
	}
	switch word {
	case "CREATE":
		if sql == tableSQL {
			d.missing = false
		}
	case "EXPLAIN":
	case "DELETE":
		d.staged = nil
	default:
		d.Errorf("the fake does not support the statement %s", sql)
	}
	return nil
}

func (d *fakeDatabase) column(sql string) (found []string, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.statement(sql); err != nil {
		return nil, err
	}
	if !d.inside {
		d.Errorf("outside of a transaction: %s", sql)
	}
	ids := slices.Sorted(maps.Keys(d.seen))
	switch {
	case strings.HasPrefix(sql, "SELECT relpersistence"):
		if d.missing {
			return nil, nil
		}
		return []string{cmp.Or(d.persistence, "p")}, nil
	case sql == insertSQL:
		for _, s := range d.staged {
			if pe := d.refusal(s.id); pe != nil {
				return nil, pe
			}
			_, there := d.seen[s.id]
			swallowed := d.swallow != nil && d.swallow(s.id)
			if there || swallowed {
				found = append(found, strconv.Itoa(s.n))
			} else {
				d.seen[s.id] = s.row
			}
		}
	case strings.HasPrefix(sql, "SELECT s.n || CASE"):
		_, list, _ := strings.Cut(sql, "s.n IN (")
		numbers := strings.Split(strings.TrimSuffix(list, ")"), ",")
		for _, s := range d.staged {
			if slices.Contains(numbers, strconv.Itoa(s.n)) {
				verdict := "-"
				if row, there := d.seen[s.id]; there {
					verdict = "f"
					if row.same(s.row) {
						verdict = "t"
					}
				}
				found = append(found, strconv.Itoa(s.n)+verdict)
			}
		}
	case sql == replaceSQL:
		for _, s := range d.staged {
			d.seen[s.id] = s.row
			found = append(found, strconv.Itoa(s.n))
		}
	case strings.HasPrefix(sql, "SELECT mongo_id FROM reading_analytics WHERE mongo_id IN ("):
		for _, id := range ids {
			if strings.Contains(sql, pq.QuoteLiteral(id)) {
				found = append(found, id)
			}
		}
	case strings.HasPrefix(sql, "SELECT count(*)"):
		found = []string{strconv.Itoa(len(ids))}
	case strings.HasPrefix(sql, "SELECT mongo_id FROM reading_analytics WHERE mongo_id COLLATE"):
		_, last, _ := strings.Cut(sql, "> '")
		last, _, _ = strings.Cut(last, "'")
		for _, id := range ids {
			if id > last {
				found = append(found, id)
			}
		}
	case strings.HasPrefix(sql, "SELECT text::timestamptz"):
		_, list, _ := strings.Cut(sql, "ARRAY[")
		list, _, _ = strings.Cut(list, "]")
		for _, text := range strings.Split(list, ",") {
			begin := d.said[len(d.said)-2]
			layout := map[bool]string{true: "01/02/2006", false: "02/01/2006"}[strings.Contains(begin, "MDY")]
			at, err := time.Parse(layout, strings.Trim(text, "'"))
			if err != nil {
				return nil, &pq.Error{Code: "22007", Message: "invalid input syntax for type timestamp with time zone"}
			}
			found = append(found, at.Format("2006-01-02 15:04:05+00"))
		}
	default:
		d.Errorf("the fake does not support the query %s", sql)
	}
	return found, nil
}

func (d *fakeDatabase) refusal(id string) error {
	if d.refuse != nil {
		if pe := d.refuse(id); pe != nil {
			return pe
		}
	}
	return nil
}

func (d *fakeDatabase) copyIn(sql string, next func() []byte) (n int64, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.statement(sql); err != nil {
		return 0, err
	}
	line := 0
	for piece := next(); len(piece) > 0; piece = next() {
		if piece[len(piece)-1] != '\n' {
			d.Errorf("the piece does not end with a line break: %q", piece)
		}
		for text := range strings.Lines(string(piece)) {
			line++
			fields := strings.Split(strings.TrimSuffix(text, "\n"), "\t")
			s := stagedRow{n: -1}
			if sql == copySQL {
				if s.n, err = strconv.Atoi(fields[0]); err != nil {
					d.Error(err)
				}
				fields = fields[1:]
			}
			if len(fields) != 6 {
				d.Errorf("%d columns: %q", len(fields), text)
				continue
			}
			for i, f := range fields {
				if f != `\N` {
					f = strings.NewReplacer(`\\`, `\`, `\t`, "\t", `\n`, "\n", `\r`, "\r").Replace(f)
				}
				if i == 0 {
					s.id = f
				} else {
					s.row[i-1] = f
				}
			}
			if sql == copySQL {
				d.staged, n = append(d.staged, s), n+1
				continue
			}
			if pe, ok := d.refusal(s.id).(*pq.Error); ok {
				if pe.Where = "COPY reading_analytics, line " + strconv.Itoa(line); d.nameless {
					pe.Where = ""
				}
				return 0, pe
			}
			if _, there := d.seen[s.id]; there {
				return 0, &pq.Error{Code: "23505", Message: "duplicate key", Detail: "Key (mongo_id)=(" + s.id + ") already exists.", Where: "COPY reading_analytics, line " + strconv.Itoa(line)}
			}
			if d.swallow == nil || !d.swallow(s.id) {
				d.seen[s.id], n = s.row, n+1
			}
		}
	}
	return n, nil
}

func (d *fakeDatabase) broken() bool { return d.lost }
func (d *fakeDatabase) close() error { return nil }

// same reports whether rows have the same content, by the rules of compareSQL.
func (r fakeRow) same(other fakeRow) bool {
	for i := range r {
		a, b := r[i], other[i]
		switch i {
		case 0:
		case 1, 2:
			a, b = strings.TrimPrefix(a, `\N`), strings.TrimPrefix(b, `\N`)
		default:
			var x, y any
			if errors.Join(json.Unmarshal([]byte(strings.ReplaceAll(a, `\N`, "null")), &x), json.Unmarshal([]byte(strings.ReplaceAll(b, `\N`, "null")), &y)) == nil && reflect.DeepEqual(x, y) {
				continue
			}
		}
		if a != b {
			return false
		}
	}
	return true
}

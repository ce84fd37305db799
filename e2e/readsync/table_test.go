package readsync

import (
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"go.mongodb.org/mongo-driver/v2/bson"

	"observability-hub/e2e/mongowire"
)

// usualColumns are the columns of existing hubs.
const usualColumns = `mongo_id text UNIQUE NOT NULL, event_timestamp timestamptz, source text, event_type text, payload jsonb, meta jsonb, created_at timestamptz DEFAULT now()`

// TestTableAtFault uses tables that accept no row at all. A run fails, and no document is rejected.
func TestTableAtFault(t *testing.T) {
	t.Parallel()
	h := newHub(t, mongowire.Config{})
	state := h.state
	for i, test := range []struct{ name, statements, want, fix string }{
		{
			"no unique index",
			`CREATE TABLE reading_analytics (id serial PRIMARY KEY, ` + strings.Replace(usualColumns, "UNIQUE", "", 1) + `)`,
			"unique index on mongo_id",
			`ALTER TABLE reading_analytics ADD UNIQUE (mongo_id)`,
		},
		{
			"an additional NOT NULL column",
			`CREATE TABLE reading_analytics (id serial PRIMARY KEY, ` + usualColumns + `, tenant text NOT NULL)`,
			"tenant",
			`ALTER TABLE reading_analytics ALTER tenant SET DEFAULT 'a'`,
		},
		{
			"an exhausted sequence",
			`CREATE TABLE reading_analytics (id serial PRIMARY KEY, ` + usualColumns + `); SELECT setval('reading_analytics_id_seq', 2147483647)`,
			"reading_analytics_id_seq",
			`ALTER SEQUENCE reading_analytics_id_seq AS bigint; ALTER TABLE reading_analytics ALTER id TYPE bigint`,
		},
		{
			"a sequence beyond the range of its column",
			`CREATE SEQUENCE beyond START 2147483648; CREATE TABLE reading_analytics (id int PRIMARY KEY DEFAULT nextval('beyond'), ` + usualColumns + `)`,
			"out of range",
			`ALTER TABLE reading_analytics ALTER id TYPE bigint`,
		},
		{
			"a sequence lower than the ids",
			`CREATE TABLE reading_analytics (id serial PRIMARY KEY, ` + usualColumns + `); INSERT INTO reading_analytics (id, mongo_id) SELECT n, 'old' || n FROM generate_series(1, 5000) n`,
			"setval",
			`SELECT setval('reading_analytics_id_seq', 5000); DELETE FROM reading_analytics`,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := *h
			h.TB, h.state = t, state+strconv.Itoa(i)
			h.mongo.Drop(database, collection)
			if err := h.pg.Exec("DROP TABLE IF EXISTS reading_analytics; SET ROLE hub; " + test.statements); err != nil {
				t.Fatal(err)
			}
			h.fill(30)
			for _, cmd := range []string{"readsync run --dry-run", "readsync run --max-rejects 100", "readsync extract | readsync load --max-rejects 100"} {
				got := h.want(exitConfig, h.shell(cmd))
				if !strings.Contains(got.stderr, test.want) || !strings.Contains(got.stderr, `"hint":`) {
					t.Errorf("%s: stderr lacks %q\n%s", cmd, test.want, clip(got.stderr))
				}
			}
			if s := h.statuses(); s["ingested"] != 30 || len(h.letters()) > 0 {
				t.Errorf("statuses %v, %d dead letters; want all 30 ingested and none", s, len(h.letters()))
			}
			if err := h.pg.Exec("SET ROLE hub; " + test.fix); err != nil {
				t.Fatal(err)
			}
			h.want(0, h.command("run"))
			if rows, _ := h.settled(test.name); rows != 30 {
				t.Errorf("%d rows; want 30", rows)
			}
		})
	}
}

// TestTriggerTakesRows uses a trigger that discards some rows silently. Their documents are rejected.
func TestTriggerTakesRows(t *testing.T) {
	t.Parallel()
	for name, run := range map[string]string{
		"run":  "readsync run --max-rejects 10",
		"pipe": "readsync extract | readsync load --max-rejects 10 | readsync mark",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHub(t, mongowire.Config{})
			if err := h.pg.Exec(`SET ROLE hub; CREATE TABLE reading_analytics (id serial PRIMARY KEY, ` + usualColumns + `);
				CREATE FUNCTION take() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.source = 'taken' THEN RETURN NULL; END IF; RETURN NEW; END $$;
				CREATE TRIGGER take BEFORE INSERT ON reading_analytics FOR EACH ROW EXECUTE FUNCTION take()`); err != nil {
				t.Fatal(err)
			}
			h.fill(1200)
			for _, n := range []int{0, 7, 999, 1199} {
				h.put(document(t, objectID(n), bson.E{Key: "source", Value: "taken"}))
			}
			h.want(exitPartial, h.shell(run))
			if rows, aside := h.settled(name); rows != 1196 || aside != 4 {
				t.Errorf("%d rows, %d dead letters; want 1196 and 4", rows, aside)
			}
			if err := h.pg.Exec(`DROP TRIGGER take ON reading_analytics`); err != nil {
				t.Fatal(err)
			}
			h.want(0, h.command("retry", filepath.Join(h.state, "dead-letters.jsonl")))
			if rows, aside := h.settled(name + ", corrected"); rows != 1200 || aside != 0 {
				t.Errorf("after retry: %d rows, %d dead letters; want 1200 and none", rows, aside)
			}
		})
	}
}

// TestNoTemporaryTable uses search paths and objects that hide the table. Rows in a temporary table are deleted at the end of the session,
// so no document may count as inserted there.
func TestNoTemporaryTable(t *testing.T) {
	t.Parallel()
	h := newHub(t, mongowire.Config{})
	state := h.state
	const table = `CREATE TABLE reading_analytics (id serial PRIMARY KEY, ` + usualColumns + `); `
	for i, test := range []struct {
		name, setup string
		rows        string // the table that must have the rows; "" if readsync must fail
	}{
		{"nothing but pg_temp", "ALTER ROLE hub SET search_path = pg_temp", ""},
		{"no schema that exists, then pg_temp", "ALTER ROLE hub SET search_path = absent, pg_temp", ""},
		{"pg_temp last, public not writable", "REVOKE CREATE ON SCHEMA public FROM PUBLIC, hub; ALTER ROLE hub SET search_path = public, pg_temp", ""},
		{"an empty path", "ALTER ROLE hub SET search_path = ''", ""},
		{"pg_temp last, public writable", "ALTER ROLE hub SET search_path = public, pg_temp", "public.reading_analytics"},
		{"pg_temp first, the table in public", "SET ROLE hub; " + table + "RESET ROLE; ALTER ROLE hub SET search_path = pg_temp, public", "public.reading_analytics"},
		{"a schema before public", "SET ROLE hub; " + table + "RESET ROLE; CREATE SCHEMA ahead AUTHORIZATION hub; ALTER ROLE hub SET search_path = ahead, public", "public.reading_analytics"},
		{"a view of a table", "SET ROLE hub; " + strings.Replace(table, "reading_analytics", "readings", 1) + "CREATE VIEW reading_analytics AS SELECT * FROM readings", "public.readings"},
		{"a sequence of that name", "CREATE SEQUENCE reading_analytics; GRANT ALL ON reading_analytics TO hub", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := *h
			h.TB, h.state = t, state+strconv.Itoa(i)
			h.mongo.Drop(database, collection)
			if err := h.pg.Exec("RESET ROLE; DROP SCHEMA public CASCADE; DROP SCHEMA IF EXISTS ahead CASCADE; CREATE SCHEMA public; GRANT ALL ON SCHEMA public TO hub; ALTER ROLE hub RESET search_path; " + test.setup); err != nil {
				t.Fatal(err)
			}
			h.fill(30)
			status := exitConfig
			if test.rows != "" {
				status = 0
			}
			h.want(status, h.command("run", "--dry-run"))
			if s := h.statuses(); s["ingested"] != 30 {
				t.Errorf("after a dry run: %v", s)
			}
			for _, cmd := range []string{"readsync extract | readsync load", "readsync run"} {
				got := h.want(status, h.shell(cmd))
				if test.rows == "" && !strings.Contains(got.stderr, `"hint":`) {
					t.Errorf("%s: stderr lacks the hint\n%s", cmd, clip(got.stderr))
				}
			}
			if test.rows == "" {
				if s := h.statuses(); s["ingested"] != 30 || len(h.letters()) > 0 {
					t.Errorf("statuses %v, %d dead letters; want all 30 ingested and none", s, len(h.letters()))
				}
			} else if got := h.rows("SELECT count(*) FROM " + test.rows); got[0][0] != "30" || h.statuses()["processed"] != 30 {
				t.Errorf("%v rows, %v; want 30", got, h.statuses())
			}
		})
	}
}

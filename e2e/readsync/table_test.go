package readsync

import (
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"go.mongodb.org/mongo-driver/v2/bson"

	"observability-hub/e2e/mongowire"
)

// usualColumns are the table's, as hubs have them.
const usualColumns = `mongo_id text UNIQUE NOT NULL, event_timestamp timestamptz, source text, event_type text, payload jsonb, meta jsonb, created_at timestamptz DEFAULT now()`

// TestTableAtFault has tables that take no row, whatever it holds: that is the table's fault, and no document is set aside for it.
func TestTableAtFault(t *testing.T) {
	t.Parallel()
	h := newHub(t, mongowire.Config{})
	state := h.state
	for i, test := range []struct{ name, statements, says, mend string }{
		{
			"no unique index",
			`CREATE TABLE reading_analytics (id serial PRIMARY KEY, ` + strings.Replace(usualColumns, "UNIQUE", "", 1) + `)`,
			"unique index on mongo_id",
			`ALTER TABLE reading_analytics ADD UNIQUE (mongo_id)`,
		},
		{
			"a column that is foreign and NOT NULL",
			`CREATE TABLE reading_analytics (id serial PRIMARY KEY, ` + usualColumns + `, tenant text NOT NULL)`,
			"tenant",
			`ALTER TABLE reading_analytics ALTER tenant SET DEFAULT 'a'`,
		},
		{
			"the sequence at its end",
			`CREATE TABLE reading_analytics (id serial PRIMARY KEY, ` + usualColumns + `); SELECT setval('reading_analytics_id_seq', 2147483647)`,
			"reading_analytics_id_seq",
			`ALTER SEQUENCE reading_analytics_id_seq AS bigint; ALTER TABLE reading_analytics ALTER id TYPE bigint`,
		},
		{
			"a sequence that counts beyond its column",
			`CREATE SEQUENCE beyond START 2147483648; CREATE TABLE reading_analytics (id int PRIMARY KEY DEFAULT nextval('beyond'), ` + usualColumns + `)`,
			"out of range",
			`ALTER TABLE reading_analytics ALTER id TYPE bigint`,
		},
		{
			"a sequence behind the rows",
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
				if !strings.Contains(got.stderr, test.says) || !strings.Contains(got.stderr, `"hint":`) {
					t.Errorf("%s says nothing of %q\n%s", cmd, test.says, clip(got.stderr))
				}
			}
			if s := h.statuses(); s["ingested"] != 30 || len(h.letters()) > 0 {
				t.Errorf("statuses %v, %d dead letters; want all 30 ingested and none", s, len(h.letters()))
			}
			if err := h.pg.Exec("SET ROLE hub; " + test.mend); err != nil {
				t.Fatal(err)
			}
			h.want(0, h.command("run"))
			if rows, _ := h.settled(test.name); rows != 30 {
				t.Errorf("%d rows; want 30", rows)
			}
		})
	}
}

// TestTriggerTakesRows has a trigger that lets some rows vanish without a word: these are no rows, so their documents are set aside.
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
			if rows, aside := h.settled(name + ", mended"); rows != 1200 || aside != 0 {
				t.Errorf("after retry: %d rows, %d dead letters; want 1200 and none", rows, aside)
			}
		})
	}
}

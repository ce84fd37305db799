package readsync

import (
	"strings"
	"testing"

	"go.mongodb.org/mongo-driver/v2/bson"

	"observability-hub/e2e/mongowire"
)

// TestEncodings uses databases whose encoding is not UTF8, which clusters with the locale C or with an old locale have. Only documents
// that the encoding cannot represent are rejected.
func TestEncodings(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		encoding, run string
		rejected      int
	}{
		{"SQL_ASCII", "readsync run --max-rejects 9 --nul=replace", 0},
		{"SQL_ASCII", "readsync extract | jq -ac . | readsync load --max-rejects 9 --nul=replace | readsync mark", 0},
		{"LATIN1", "readsync run --max-rejects 9 --nul=replace", 2},
		{"LATIN1", "readsync extract | jq -ac . | readsync load --max-rejects 9 --nul=replace | readsync mark", 2},
	} {
		t.Run(test.encoding+" "+test.run, func(t *testing.T) {
			t.Parallel()
			h := newHub(t, mongowire.Config{})
			if err := h.pg.Exec("CREATE DATABASE other OWNER hub ENCODING '" + test.encoding + "' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"); err != nil {
				t.Fatal(err)
			}
			h.env = append(h.env, "DATABASE_URL="+h.pg.SocketURL("hub", "other"))
			h.fill(50)
			h.put(document(t, "nul", bson.E{Key: "payload", Value: bson.D{{Key: "a", Value: "x\x00y"}}}),
				document(t, "arrow", bson.E{Key: "payload", Value: bson.D{{Key: "→", Value: "°C 🌡"}}}))
			status := 0
			if test.rejected > 0 {
				status = exitPartial
			}
			if strings.Contains(test.run, "|") && test.rejected > 0 {
				test.run = "{ " + test.run + "; }"
			}
			h.want(status, h.shell(test.run))
			if s := h.statuses(); s["processed"] != 52-test.rejected || s["rejected"] != test.rejected {
				t.Errorf("%v; want %d rejected", s, test.rejected)
			}
			for id, letters := range h.letters() {
				if letters[0].Reason != "refused" {
					t.Errorf("%s: %s", id, letters[0].Reason)
				}
			}
		})
	}
}

// TestErrorOfAnyClass uses a trigger that raises errors of several classes for two documents. Only these are rejected.
func TestErrorOfAnyClass(t *testing.T) {
	t.Parallel()
	for _, code := range []string{"0A000", "42883", "XX000", "P0001", "F0000", "38000"} {
		t.Run(code, func(t *testing.T) {
			t.Parallel()
			h := newHub(t, mongowire.Config{})
			if err := h.pg.Exec(`SET ROLE hub; CREATE TABLE reading_analytics (id serial PRIMARY KEY, ` + usualColumns + `);
				CREATE FUNCTION moody() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.source = 'odd' THEN RAISE EXCEPTION 'odd' USING ERRCODE = '` + code + `'; END IF; RETURN NEW; END $$;
				CREATE TRIGGER moody BEFORE INSERT ON reading_analytics FOR EACH ROW EXECUTE FUNCTION moody()`); err != nil {
				t.Fatal(err)
			}
			h.fill(300)
			h.put(document(t, objectID(7), bson.E{Key: "source", Value: "odd"}), document(t, objectID(299), bson.E{Key: "source", Value: "odd"}))
			h.want(exitPartial, h.command("run", "--max-rejects", "9"))
			if rows, aside := h.settled(code); rows != 298 || aside != 2 {
				t.Errorf("%d rows, %d dead letters; want 298 and 2", rows, aside)
			}
		})
	}
}

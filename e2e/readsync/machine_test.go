package readsync

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"observability-hub/e2e/events"
	"observability-hub/e2e/mongowire"
	"observability-hub/e2e/nspawn"
	"observability-hub/e2e/postgres"
)

//go:embed testdata/machine.sh
var machineScript string

//go:embed testdata/probe.sh
var machineProbe string

// TestMachine tests readsync's units in a booted machine: timer, trigger, socket, a process for each call, rows and marks. The databases
// run outside the machine, which reaches them through sockets.
func TestMachine(t *testing.T) {
	t.Parallel()
	shared := t.TempDir()
	for dir := shared; dir != "/" && dir != os.TempDir(); dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil { // the units' user must be able to enter it
			t.Fatal(err)
		}
	}
	socket := filepath.Join(shared, "mongo.sock")
	mongo := mongowire.Run(t, mongowire.Config{Address: socket})
	if err := os.Chmod(socket, 0o777); err != nil {
		t.Fatal(err)
	}
	pg := postgres.Run(t, postgres.Config{})
	for n := range 1500 {
		if err := mongo.Put(database, collection, document(t, objectID(n))); err != nil {
			t.Fatal(err)
		}
	}
	mongoURI := "mongodb://" + url.PathEscape("/mongo/mongo.sock") + "/"
	databaseURL := fmt.Sprintf("postgres://hub:hunter2@/hub?host=/postgres&port=%d&sslmode=disable", pg.Port)
	m := nspawn.Start(t, nspawn.Config{
		Packages: []string{"git", "jq"}, // the packages of a root that another test creates
		Tools:    []string{"readsync"},
		Files: []nspawn.File{
			{Path: "/usr/local/bin/probe", Content: machineProbe},
			{Path: "/srv/credentials/mongo_uri", Content: mongoURI + "\n", Mode: 0o600},
			{Path: "/srv/credentials/database_url", Content: databaseURL + "\n", Mode: 0o600},
		},
		Binds:   []nspawn.Bind{{From: shared, To: "/mongo"}, {From: filepath.Dir(pg.Socket()), To: "/postgres"}},
		Script:  machineScript,
		Timeout: 5 * time.Minute,
	})
	go func() {
		for m.Command("test", "-e", "/e2e/poison").Run() != nil {
			time.Sleep(100 * time.Millisecond)
			if t.Context().Err() != nil {
				return
			}
		}
		if err := mongo.Put(database, collection, document(t, "bad", bson.E{Key: "source", Value: "nul \x00 inside"})); err != nil {
			t.Error(err)
		}
		if out, err := m.Command("touch", "/e2e/poisoned").CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	}()
	result := m.Wait()
	for line := range strings.Lines(result.Stdout) {
		t.Log(strings.TrimSpace(line))
	}
	if result.Status != 0 {
		t.Errorf("exit status %d\nstderr: %s", result.Status, result.Stderr)
		for _, e := range result.Journal {
			if unit := e["_SYSTEMD_UNIT"] + e["UNIT"]; strings.Contains(unit, "reading-sync") || strings.Contains(unit, "probe") {
				t.Logf("%s: %s", e["SYSLOG_IDENTIFIER"], e["MESSAGE"])
			}
		}
		return
	}
	rows, err := pg.Query("SELECT count(*), count(DISTINCT mongo_id) FROM reading_analytics")
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(rows); got != "[[1500 1500]]" {
		t.Errorf("rows: %s; want 1500 documents", got)
	}
	statuses := map[string]int{}
	for _, doc := range mongo.Documents(database, collection) {
		statuses[bson.Raw(doc).Lookup("status").StringValue()]++
	}
	if statuses["processed"] != 1500 || statuses["rejected"] != 1 || len(statuses) != 2 {
		t.Errorf("documents by status: %v; want 1500 processed, 1 rejected", statuses)
	}
	// Every line of the tool is a documented record without a secret.
	docs := events.Read(t)
	priorities := map[string]string{"INFO": "6", "WARN": "4", "ERROR": "3"}
	for _, e := range result.Journal {
		if strings.Contains(e["MESSAGE"], "hunter2") {
			t.Errorf("the journal contains a secret: %s", e["MESSAGE"])
		}
		if unit := e["_SYSTEMD_UNIT"]; unit != "reading-sync.service" && !strings.HasPrefix(unit, "reading-sync-api@") {
			continue
		}
		docs.Check(t, e["_SYSTEMD_UNIT"], e["MESSAGE"]+"\n")
		var r struct{ Level, Service string }
		if err := json.Unmarshal([]byte(e["MESSAGE"]), &r); err != nil || r.Service != "reading-sync" || e["PRIORITY"] != priorities[r.Level] || e["SYSLOG_IDENTIFIER"] != "readsync" {
			t.Errorf("%v, priority %s, identifier %s: %s", err, e["PRIORITY"], e["SYSLOG_IDENTIFIER"], e["MESSAGE"])
		}
	}
}

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"observability-hub/e2e/mongowire"
	"observability-hub/e2e/workspace"
)

// synced is what a failover did to documents whose rows the standby did not have yet.
type synced struct {
	documents, processed, rowsAfter, verifyStatus, named, rowsRepaired, verifyAgain int
}

func (s synced) check() error {
	lost := s.documents - s.rowsAfter
	if s.processed != s.documents || lost == 0 || s.named != lost || s.verifyStatus != 11 || s.rowsRepaired != s.documents || s.verifyAgain != 0 {
		return fmt.Errorf("readsync: %+v", s)
	}
	return nil
}

const readingTable = `SET ROLE hub; CREATE TABLE reading_analytics (id serial PRIMARY KEY, mongo_id text UNIQUE NOT NULL, event_timestamp timestamptz,
	source text, event_type text, payload jsonb, meta jsonb, created_at timestamptz DEFAULT now())`

// runReadsync syncs documents to an asynchronous primary. After the first half the link is cut, so that the standby lacks the
// rows of the second. Then it fails over, asks readsync verify, and does what its hint says.
func runReadsync(documents int) (result synced, err error) {
	ctx := context.Background()
	result.documents = documents
	s, err := newSite(false, 0)
	if err != nil {
		return result, err
	}
	defer s.close()
	if _, err := s.primary.PSQL(readingTable); err != nil {
		return result, err
	}
	source, err := mongowire.New(mongowire.Config{})
	if err != nil {
		return result, err
	}
	defer source.Close()
	client, err := mongo.Connect(options.Client().ApplyURI(source.URI()))
	if err != nil {
		return result, err
	}
	defer client.Disconnect(ctx)
	collection := client.Database("hub").Collection("readings")
	put := func(from, to int) error {
		var docs []any
		for i := from; i < to; i++ {
			docs = append(docs, bson.D{{Key: "status", Value: "ingested"}, {Key: "source", Value: "failover"},
				{Key: "payload", Value: bson.D{{Key: "n", Value: i}}}})
		}
		_, err := collection.InsertMany(ctx, docs)
		return err
	}
	state, err := os.MkdirTemp("", "hub-failover-")
	if err != nil {
		return result, err
	}
	defer os.RemoveAll(state)
	tool, err := workspace.Binary("readsync")
	if err != nil {
		return result, err
	}
	readsync := func(args ...string) (status int, output string, err error) {
		cmd := exec.Command(tool, args...)
		cmd.Env = []string{"PATH=/usr/bin:/bin", "HOME=" + state, "READSYNC_STATE_DIR=" + state, "DATABASE_URL=" + s.url(0),
			"MONGO_URI=" + source.URI(), "MONGO_DB_NAME=hub", "MONGO_COLLECTION=readings"}
		var stdout, stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		err = cmd.Run()
		if _, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok {
			return 0, "", err
		}
		if status = cmd.ProcessState.ExitCode(); status != 0 && args[0] == "run" {
			return status, "", fmt.Errorf("readsync %s: exit status %d: %s", strings.Join(args, " "), status, stderr.String())
		}
		return status, stdout.String(), nil
	}
	count := func() (int, error) {
		rows, err := s.primary.Query("SELECT count(*) FROM reading_analytics")
		if err != nil {
			return 0, err
		}
		return strconv.Atoi(rows[0][0])
	}

	for half := range 2 {
		if err := put(documents*half/2, documents*(half+1)/2); err != nil {
			return result, err
		}
		if half == 1 {
			s.link.Cut()
		}
		if _, _, err := readsync("run"); err != nil {
			return result, err
		}
		if half == 0 {
			if err := s.standby.AwaitReplay(s.primary); err != nil {
				return result, err
			}
		}
	}
	processed, err := collection.CountDocuments(ctx, bson.D{{Key: "status", Value: "processed"}})
	if err != nil {
		return result, err
	}
	result.processed = int(processed)

	if err := s.primary.Kill9(); err != nil {
		return result, err
	}
	if err := s.standby.Promote(); err != nil {
		return result, err
	}
	s.primary, s.standby = s.standby, s.primary
	if result.rowsAfter, err = count(); err != nil {
		return result, err
	}
	var report string
	if result.verifyStatus, report, err = readsync("verify"); err != nil {
		return result, err
	}
	var ids []any
	for line := range strings.Lines(report) {
		if _, rest, ok := strings.Cut(line, `"mongo_id":"`); ok {
			text, _, _ := strings.Cut(rest, `"`)
			id, err := bson.ObjectIDFromHex(text)
			if err != nil {
				return result, err
			}
			ids = append(ids, id)
		}
	}
	result.named = len(ids)
	if _, err := collection.UpdateMany(ctx, bson.D{{Key: "_id", Value: bson.D{{Key: "$in", Value: ids}}}},
		bson.D{{Key: "$set", Value: bson.D{{Key: "status", Value: "ingested"}}}}); err != nil {
		return result, err
	}
	if _, _, err := readsync("run"); err != nil {
		return result, err
	}
	if result.rowsRepaired, err = count(); err != nil {
		return result, err
	}
	result.verifyAgain, _, err = readsync("verify")
	return result, err
}

package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"text/tabwriter"
	"time"

	_ "github.com/lib/pq" // registers the driver of the old way
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"observability-hub/e2e/mongowire"
	"observability-hub/e2e/postgres"
	"observability-hub/e2e/workspace"
)

// syncBench compares readsync with the way of older hubs, which is a statement to each side for each document, and with the
// cost of reading alone and of writing alone. MongoDB is the server of package mongowire, in this process. It shares the
// processors with the tool and PostgreSQL, so its cost affects the figures.
type syncBench struct {
	work, tool string
	rounds     int
	mongo      *mongowire.Server
	pg         *postgres.Cluster // the current server; the one with the slow disk is used last

	run, old, copying, cursor figures // of syncDocuments, the old way's of oldDocuments
	slowRun, slowOld          figures // the same, on a slow disk
	sizes                     []*syncSize
	large                     syncSize
}

// syncSize is the size of a collection, and the time and memory that readsync needs for it.
type syncSize struct {
	documents, bytes int
	wall             []time.Duration
	rss              []int64
}

const (
	syncDatabase, syncCollection = "hub", "readings"
	syncDocuments                = 100_000
	oldDocuments                 = 2_000
	largeDocuments, largeBytes   = 20, 15 << 20
	// slowSync is how much longer a commit takes on the slow disk. With it, the old way is as fast as on the machine on which it was measured.
	slowSync = 3 * time.Millisecond
)

func benchReadsync(work string, rounds int, w io.Writer) (missed int, err error) {
	tool, err := workspace.Binary("readsync")
	if err != nil {
		return 0, err
	}
	// An odd number, because the median of two would be the slower one.
	b := &syncBench{work: filepath.Join(work, "readsync"), tool: tool, rounds: rounds/40 | 1}
	if err := os.MkdirAll(b.work, 0o755); err != nil {
		return 0, err
	}
	if b.mongo, err = mongowire.New(mongowire.Config{}); err != nil {
		return 0, err
	}
	defer b.mongo.Close()
	if err := b.withPostgres(0, b.measureAll); err != nil {
		return 0, err
	}
	if err := b.withPostgres(slowSync, b.measureSlow); err != nil {
		return 0, err
	}
	return b.report(w), nil
}

// withPostgres calls a function with an ordinary server: every commit reaches the disk.
func (b *syncBench) withPostgres(slowSync time.Duration, do func() error) (err error) {
	b.pg, err = postgres.New(postgres.Config{OnDisk: true, SlowSync: slowSync,
		Conf: []string{"fsync = on", "wal_sync_method = fdatasync", "shared_buffers = '256MB'", "max_wal_size = '2GB'", "autovacuum = on"}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.pg.Close()) }()
	return do()
}

func (b *syncBench) env() []string {
	return []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=" + b.work, "READSYNC_STATE_DIR=" + filepath.Join(b.work, "state"),
		"MONGO_URI=" + b.mongo.URI(), "MONGO_DB_NAME=" + syncDatabase, "MONGO_COLLECTION=" + syncCollection, "DATABASE_URL=" + b.pg.URL()}
}

// fill inserts n documents of about that many bytes, all of them to be synced, and empties the table.
func (b *syncBench) fill(n, size int) error {
	b.mongo.Drop(syncDatabase, syncCollection)
	docs := make([][]byte, 0, 1000)
	for i := range n {
		doc, err := reading(i, size)
		if err != nil {
			return err
		}
		if docs = append(docs, doc); len(docs) == cap(docs) || i == n-1 {
			if err := b.mongo.Put(syncDatabase, syncCollection, docs...); err != nil {
				return err
			}
			docs = docs[:0]
		}
	}
	runtime.GC() // not while a candidate runs
	return b.pg.Exec(`SET ROLE hub; DROP TABLE IF EXISTS reading_analytics; CREATE TABLE reading_analytics (id serial PRIMARY KEY, mongo_id text UNIQUE NOT NULL,
		event_timestamp timestamptz, source text, event_type text, payload jsonb, meta jsonb, created_at timestamptz DEFAULT now()); RESET ROLE; CHECKPOINT`)
}

// reading makes a document as a hub's Proxy Service stores it.
func reading(n, size int) ([]byte, error) {
	var id bson.ObjectID
	copy(id[:], fmt.Sprintf("%012d", n))
	values := bson.A{}
	for i := range 16 {
		values = append(values, math.Round(float64((n+i)%1000)*100/7)/100)
	}
	doc := bson.D{
		{Key: "_id", Value: id}, {Key: "status", Value: "ingested"},
		{Key: "timestamp", Value: bson.DateTime(1772366400000 + int64(n))},
		{Key: "source", Value: "sensor-" + fmt.Sprint(n%50)}, {Key: "event_type", Value: "reading"},
		{Key: "payload", Value: bson.D{{Key: "n", Value: int64(n)}, {Key: "values", Value: values}, {Key: "note", Value: ""}}},
		{Key: "meta", Value: bson.D{{Key: "version", Value: int32(3)}, {Key: "host", Value: "web1"}}},
	}
	raw, err := bson.Marshal(doc)
	if err != nil || len(raw) >= size {
		return raw, err
	}
	payload := doc[5].Value.(bson.D)
	payload[2].Value = strings.Repeat("x", size-len(raw))
	return bson.Marshal(doc)
}

// timed measures the cost of a child process, after a new fill.
func (b *syncBench) timed(f *figures, n, size int, argv ...string) error {
	if err := b.fill(n, size); err != nil {
		return err
	}
	c, err := measure(command{Argv: argv, Env: b.env()})
	if err == nil {
		f.add(c)
	}
	return err
}

func (b *syncBench) measureAll() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	psql, err := exec.LookPath("psql")
	if err != nil {
		return err
	}
	rows := filepath.Join(b.work, "rows")
	if err := b.fill(syncDocuments, 1024); err != nil {
		return err
	}
	if _, err := measure(command{Argv: []string{b.tool, "run"}, Env: b.env()}); err != nil {
		return err
	}
	// COPY alone writes the rows that readsync wrote.
	if _, err := measure(command{Argv: []string{psql, "-Xq", b.pg.URL(), "-c", `\copy reading_analytics (mongo_id, event_timestamp, source, event_type, payload, meta) to ` + rows}, Env: b.env()}); err != nil {
		return err
	}
	for round := range b.rounds {
		progress("readsync, round %d of %d", round+1, b.rounds)
		turns := []func() error{
			func() error { return b.timed(&b.run, syncDocuments, 1024, b.tool, "run") },
			func() error {
				return b.timed(&b.copying, syncDocuments, 1024, psql, "-Xq", b.pg.URL(), "-c", `\copy reading_analytics (mongo_id, event_timestamp, source, event_type, payload, meta) from `+rows)
			},
			func() error { return b.timed(&b.cursor, syncDocuments, 1024, self, "-client", "cursor") },
			func() error { return b.timed(&b.old, oldDocuments, 1024, self, "-client", "old") },
		}
		for i := range turns {
			if err := turns[(i+round)%len(turns)](); err != nil {
				return err
			}
		}
	}
	for _, n := range []int{10_000, 100_000, 1_000_000} {
		s := &syncSize{documents: n, bytes: 1024}
		b.sizes = append(b.sizes, s)
		// The smallest collection takes so little time that one run is not enough.
		for range min(5, max(1, 200_000/n)) {
			progress("readsync, %d documents", n)
			if err := b.size(s); err != nil {
				return err
			}
		}
	}
	b.large = syncSize{documents: largeDocuments, bytes: largeBytes}
	for range 3 {
		if err := b.size(&b.large); err != nil {
			return err
		}
	}
	progress("")
	return nil
}

func (b *syncBench) measureSlow() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	for round := range b.rounds {
		progress("readsync on a slow disk, round %d of %d", round+1, b.rounds)
		if err := b.timed(&b.slowRun, syncDocuments, 1024, b.tool, "run"); err != nil {
			return err
		}
		if err := b.timed(&b.slowOld, oldDocuments, 1024, self, "-client", "old"); err != nil {
			return err
		}
	}
	progress("")
	return nil
}

// size measures time and memory of one run over a collection of that size.
func (b *syncBench) size(s *syncSize) error {
	if err := b.fill(s.documents, s.bytes); err != nil {
		return err
	}
	began := time.Now()
	rss, err := largestRSS(&candidate{command: command{Argv: []string{b.tool, "run"}, Env: b.env()}}, filepath.Join(b.work, "report"))
	if err != nil {
		return err
	}
	s.wall, s.rss = append(s.wall, time.Since(began)), append(s.rss, rss)
	return nil
}

// perDocument returns the median time of one document.
func (s *syncSize) perDocument() time.Duration { return median(s.wall) / time.Duration(s.documents) }

func (b *syncBench) report(w io.Writer) (missed int) {
	fmt.Fprintf(w, "readsync: medians of %d runs each, in turns; %s, %d CPUs, Linux %s; documents of 1 KB, a real PostgreSQL with fsync on, a MongoDB of our own in memory.\n",
		b.rounds, runtime.GOARCH, runtime.NumCPU(), release())
	fmt.Fprintf(w, "CPU is user + system time of the client's side; the databases' is theirs. Slow disk: each fdatasync of PostgreSQL takes %s longer.\n\n", slowSync)
	rate := func(f *figures, n int) float64 { return float64(n) / median(f.wall).Seconds() }
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "\tdocuments\twall s\tdocuments/s\tCPU s per 100,000\t")
	for _, r := range []struct {
		name string
		f    *figures
		n    int
	}{
		{"readsync run", &b.run, syncDocuments},
		{"an insert and an update a document", &b.old, oldDocuments},
		{"COPY alone, by psql from a file", &b.copying, syncDocuments},
		{"a cursor alone", &b.cursor, syncDocuments},
		{"readsync run, slow disk", &b.slowRun, syncDocuments},
		{"an insert and an update a document, slow disk", &b.slowOld, oldDocuments},
	} {
		fmt.Fprintf(t, "%s\t%d\t%.2f\t%.0f\t%.2f\t\n", r.name, r.n, median(r.f.wall).Seconds(), rate(r.f, r.n), median(r.f.cpu).Seconds()*100_000/float64(r.n))
	}
	t.Flush()
	fmt.Fprintln(w)
	t = tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "readsync run\twall s\tµs a document\tRSS MiB\t")
	for _, s := range append(b.sizes, &b.large) {
		fmt.Fprintf(t, "%d documents of %s\t%.2f\t%.1f\t%.1f\t\n", s.documents, bytesText(s.bytes), median(s.wall).Seconds(), float64(s.perDocument())/1000, mib(median(s.rss)))
	}
	t.Flush()

	fmt.Fprintf(w, "\nTargets:\n\n")
	v := newVerdicts(w)
	small, middle, many := b.sizes[0], b.sizes[1], b.sizes[2]
	v.atLeast("documents/s × an insert and an update a document", rate(&b.run, syncDocuments)/rate(&b.old, oldDocuments), 50, "%.1f")
	v.atLeast("the same, slow disk", rate(&b.slowRun, syncDocuments)/rate(&b.slowOld, oldDocuments), 50, "%.1f")
	v.atLeast("documents/s × COPY alone", rate(&b.run, syncDocuments)/rate(&b.copying, syncDocuments), 0.65, "%.2f")
	v.target("CPU s per 100,000 documents", median(b.run.cpu).Seconds(), 1.2, "%.2f")
	v.target("peak RSS at 1 KB, MiB", mib(median(middle.rss)), 40, "%.1f")
	v.target("peak RSS at 15 MiB, MiB", mib(median(b.large.rss)), 160, "%.1f")
	v.target("time a document, 1,000,000 × 10,000", float64(many.perDocument())/float64(small.perDocument()), 1.25, "%.2f")
	v.target("peak RSS, 1,000,000 × 10,000", float64(median(many.rss))/float64(median(small.rss)), 1.25, "%.2f")
	v.t.Flush()
	fmt.Fprintf(w, "\nAgainst a cursor alone: %.2f of its documents/s.\n", rate(&b.run, syncDocuments)/rate(&b.cursor, syncDocuments))
	return v.missed
}

func mib(bytes int64) float64 { return float64(bytes) / (1 << 20) }

func bytesText(n int) string {
	if n >= 1<<20 {
		return fmt.Sprintf("%d MiB", n>>20)
	}
	return fmt.Sprintf("%d KiB", n>>10)
}

// syncClient is the child process of this program that is a candidate: it reads all documents by a cursor, or syncs them the old way.
func syncClient(ctx context.Context, what string) error {
	client, err := mongo.Connect(options.Client().ApplyURI(os.Getenv("MONGO_URI")))
	if err != nil {
		return err
	}
	defer client.Disconnect(context.Background())
	docs := client.Database(syncDatabase).Collection(syncCollection)
	cursor, err := docs.Find(ctx, bson.D{{Key: "status", Value: "ingested"}}, options.Find().SetBatchSize(1000))
	if err != nil {
		return err
	}
	defer cursor.Close(ctx)
	switch what {
	case "cursor":
		for cursor.Next(ctx) {
		}
		return cursor.Err()
	case "old":
		return syncOneByOne(ctx, docs, cursor)
	}
	return fmt.Errorf("no such client: %s", what)
}

// syncOneByOne syncs as the Proxy Service did: decode, insert, update, one document after the other.
func syncOneByOne(ctx context.Context, docs *mongo.Collection, cursor *mongo.Cursor) error {
	db, err := sql.Open("postgres", os.Getenv("DATABASE_URL")+"&sslmode=disable")
	if err != nil {
		return err
	}
	defer db.Close()
	for cursor.Next(ctx) {
		var doc struct {
			ID        bson.ObjectID `bson:"_id"`
			Timestamp time.Time
			Source    string
			EventType string `bson:"event_type"`
			Payload   bson.M
			Meta      bson.M
		}
		if err := cursor.Decode(&doc); err != nil {
			return err
		}
		payload, err := bson.MarshalExtJSON(doc.Payload, false, false)
		if err != nil {
			return err
		}
		meta, err := bson.MarshalExtJSON(doc.Meta, false, false)
		if err != nil {
			return err
		}
		if _, err := db.ExecContext(ctx, `INSERT INTO reading_analytics (mongo_id, event_timestamp, source, event_type, payload, meta) VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (mongo_id) DO NOTHING`,
			doc.ID.Hex(), doc.Timestamp, doc.Source, doc.EventType, string(payload), string(meta)); err != nil {
			return err
		}
		if _, err := docs.UpdateOne(ctx, bson.D{{Key: "_id", Value: doc.ID}}, bson.D{{Key: "$set", Value: bson.D{{Key: "status", Value: "processed"}}}}); err != nil {
			return err
		}
	}
	return cursor.Err()
}

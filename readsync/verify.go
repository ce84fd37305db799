package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/lib/pq"
	"go.mongodb.org/mongo-driver/v2/bson"

	"observability-hub/lib/cli"
	"observability-hub/lib/record"
	"observability-hub/lib/statedir"
	"observability-hub/lib/sysexits"
	"observability-hub/lib/table"
	"observability-hub/readsync/internal/deadletter"
	"observability-hub/readsync/internal/extjson"
	"observability-hub/readsync/internal/rawbson"
	"observability-hub/readsync/internal/stage"
)

// verifyCmd is the command verify.
type verifyCmd struct {
	peerFlags
	StateDir    string `placeholder:"DIR"`
	DeadLetters string `placeholder:"FILE"`
	All         bool
	table.Flag
}

// Viewer implements [cli.Viewable].
func (v *verifyCmd) Viewer(w io.Writer) cli.Viewer {
	return v.Show(w, table.Columns{"mismatch": {"mongo_id", "problem"}})
}

// Run compares the documents with the rows.
func (v *verifyCmd) Run(ctx context.Context, env *cli.Env) error {
	return v.run(ctx, env)
}

// verifying is the state of a verification.
type verifying struct {
	verifyCmd
	env     *cli.Env
	source  *source
	target  *target
	letters map[string]bool // ids of the dead letters; nil if the file does not exist

	processed, ingested, rejected, other int64 // documents
	rows, matched                        int64 // rows of the table; documents that have a row
	unmarked                             int64 // ingested documents that have a row
	noRow, noLetter, noDocument          int64
}

func (v *verifyCmd) run(ctx context.Context, env *cli.Env) error {
	check := &verifying{verifyCmd: *v, env: env}
	var err error
	if check.source, err = openSource(ctx, env, v.peerFlags); err != nil {
		return err
	}
	defer check.source.close()
	if check.target, err = openTarget(ctx, v.peerFlags, writeMode{dryRun: true}); err != nil {
		return err
	}
	defer func() { _ = check.target.close() }()
	if err := check.readLetters(); err != nil {
		return err
	}
	// Read the documents before the rows. Each document that is processed now has its row
	// already.
	if err := check.documents(ctx); err != nil {
		return err
	}
	if err := check.table(ctx); err != nil {
		return err
	}
	return check.finish()
}

// readLetters collects the ids of the dead letters. If the file does not exist, letters
// stays nil, because it is not known which documents have a letter.
func (v *verifying) readLetters() error {
	path := v.DeadLetters
	if path == "" {
		dir, err := statedir.ResolveExisting(v.StateDir, v.env.Service)
		if err != nil {
			return err
		}
		path = letterFlags{}.path(&statedir.Dir{Path: dir})
	}
	f, err := os.Open(path)
	v.DeadLetters = path
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	v.letters = map[string]bool{}
	if err != nil {
		return statedir.Unreadable(fmt.Errorf("read the dead letters: %w", err))
	}
	defer f.Close()
	in := stage.NewLines(f)
	for {
		line, err := in.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", path, err)
		}
		if l, err := deadletter.Parse(line); err == nil {
			v.letters[l.ID] = true
		}
	}
}

// documents checks that every processed document has a row, and every rejected document
// a letter or a row.
func (v *verifying) documents(ctx context.Context) error {
	w := &walk{source: v.source, brief: true}
	for {
		docs, err := w.next(ctx, batchDocuments)
		if err != nil || len(docs) == 0 {
			return err
		}
		ids := make([]string, len(docs))
		for i, doc := range docs {
			id, _ := extjson.AppendID(nil, rawbson.Lookup(doc, "_id"))
			ids[i] = string(id)
		}
		there, err := v.there(ids)
		if err != nil {
			return err
		}
		for i, doc := range docs {
			if err := v.document(ids[i], rawbson.Lookup(doc, "status"), there[ids[i]]); err != nil {
				return err
			}
		}
	}
}

func (v *verifying) document(id string, status rawbson.Value, hasRow bool) error {
	if hasRow {
		v.matched++
	}
	text := ""
	if status.Kind == bson.TypeString {
		text = string(status.Text())
	}
	switch text {
	case statusProcessed:
		if v.processed++; !hasRow {
			v.noRow++
			return v.mismatch(id, "no_row", record.Warn)
		}
	case statusIngested:
		if v.ingested++; hasRow {
			v.unmarked++
		}
	case statusRejected:
		if v.rejected++; !hasRow && v.letters != nil && !v.letters[id] {
			v.noLetter++
			return v.mismatch(id, "no_letter", record.Warn)
		}
	default:
		v.other++
	}
	return nil
}

// there returns the set of those ids that the table has.
func (v *verifying) there(ids []string) (map[string]bool, error) {
	there := make(map[string]bool, len(ids))
	var list []string
	for _, id := range ids {
		if len(id) <= extjson.MaxID {
			list = append(list, pq.QuoteLiteral(id))
		}
	}
	if len(list) == 0 {
		return there, nil
	}
	found, err := v.target.read("SELECT mongo_id FROM reading_analytics WHERE mongo_id IN (" + strings.Join(list, ",") + ")")
	if err != nil {
		return nil, databaseError(fmt.Errorf("read ids: %w", err))
	}
	for _, id := range found {
		there[id] = true
	}
	return there, nil
}

// table counts the rows. If there are more rows than documents with a row, it looks for
// the rows without a document.
func (v *verifying) table(ctx context.Context) error {
	count, err := v.target.read("SELECT count(*)::text FROM reading_analytics")
	if err != nil {
		return databaseError(fmt.Errorf("count rows: %w", err))
	}
	if _, err := fmt.Sscan(count[0], &v.rows); err != nil {
		return fmt.Errorf("count rows: %w", err)
	}
	if v.rows <= v.matched {
		return nil
	}
	for last := ""; ; {
		ids, err := v.target.read(fmt.Sprintf(`SELECT mongo_id FROM reading_analytics WHERE mongo_id COLLATE "C" > %s ORDER BY mongo_id COLLATE "C" LIMIT %d`,
			pq.QuoteLiteral(last), batchDocuments))
		if err != nil {
			return databaseError(fmt.Errorf("read ids: %w", err))
		}
		if len(ids) == 0 {
			return nil
		}
		if err := v.withoutDocument(ctx, ids); err != nil {
			return err
		}
		last = ids[len(ids)-1]
	}
}

// withoutDocument counts those ids that no document has.
func (v *verifying) withoutDocument(ctx context.Context, ids []string) error {
	var known []rawbson.Value
	for _, id := range ids {
		if key, err := extjson.ParseID(id); err == nil {
			known = append(known, key)
		}
	}
	docs, err := v.source.byID(ctx, known, "", "_id")
	if err != nil {
		return err
	}
	found := make(map[string]bool, len(ids))
	for _, doc := range docs {
		id, _ := extjson.AppendID(nil, rawbson.Lookup(doc, "_id"))
		found[string(id)] = true
	}
	for _, id := range ids {
		if found[id] {
			continue
		}
		v.noDocument++
		if v.All {
			if err := v.mismatch(id, "no_document", record.Info); err != nil {
				return err
			}
		}
	}
	return nil
}

// mismatch prints a mismatch record.
func (v *verifying) mismatch(id, problem, level string) error {
	if len(id) > extjson.MaxID { // the journal would split such a long line
		id = shortID(id)
	}
	l := record.New(time.Now(), level, "mismatch", v.env.Service)
	l.String("mongo_id", id)
	l.String("problem", problem)
	return v.env.Stdout.Record(level, l.End())
}

func (v *verifying) finish() error {
	if v.letters == nil && v.rejected > 0 {
		v.env.Diag.Warn("dead_letters_missing", fmt.Sprintf("cannot check the dead letters of %s: %s does not exist; name the file with --dead-letters", plural(v.rejected, "rejected document"), v.DeadLetters))
	}
	var err error
	level := record.Info
	if lost := v.noRow + v.noLetter; lost > 0 {
		level = record.Warn
		err = sysexits.New(sysexits.Partial, "verification_failed",
			fmt.Errorf("%s marked processed without a row, or rejected without a dead letter", plural(lost, "document"))).
			WithHint("set the status of the listed documents back to ingested, then run again")
	}
	l := record.New(time.Now(), level, "verified", v.env.Service)
	l.Int("processed", v.processed)
	l.Int("ingested", v.ingested)
	l.Int("rejected", v.rejected)
	l.Int("other", v.other)
	l.Int("rows", v.rows)
	l.Int("unmarked", v.unmarked)
	l.Int("no_row", v.noRow)
	l.Int("no_letter", v.noLetter)
	l.Int("no_document", v.noDocument)
	return errors.Join(err, v.env.Stdout.Record(level, l.End()))
}

package main

import (
	"bufio"
	"context"
	"time"

	"observability-hub/lib/cli"
	"observability-hub/lib/record"
	"observability-hub/readsync/internal/deadletter"
	"observability-hub/readsync/internal/extjson"
	"observability-hub/readsync/internal/reading"
	"observability-hub/readsync/internal/stage"
)

// extractCmd is the command extract.
type extractCmd struct {
	peerFlags
	datesFlag
	Limit int64 `default:"0" placeholder:"N"`
}

// Run prints documents as records.
func (x *extractCmd) Run(ctx context.Context, env *cli.Env) error {
	return x.run(ctx, env)
}

func (x *extractCmd) run(ctx context.Context, env *cli.Env) error {
	defer frugal()()
	s, err := openSource(ctx, env, x.peerFlags)
	if err != nil {
		return err
	}
	defer s.close()
	out := bufio.NewWriterSize(env.Stdout, 64<<10)
	w := &walk{source: s, status: statusIngested}
	b := x.builder(extjson.KeepNUL)
	n := int64(0)
	for {
		limit := int64(batchDocuments)
		if x.Limit > 0 {
			limit = min(limit, x.Limit-n)
		}
		if limit == 0 {
			break
		}
		docs, err := w.next(ctx, int(limit))
		if err != nil {
			return err
		}
		if len(docs) == 0 {
			break
		}
		now := time.Now()
		for _, doc := range docs {
			b.Reset(2 * len(doc))
			var d document
			r := readRow(b, doc, &d)
			if _, err := out.Write(extractLine(now, env.Service, &r)); err != nil {
				return err
			}
			n++
		}
	}
	if _, err := out.Write(stage.Trailer(n)); err != nil {
		return err
	}
	return out.Flush()
}

// extractLine returns the record of a row. If the document cannot become a row, the
// record has the fields of a dead letter instead of columns. If load may reject the
// document, because of a NUL character or a timestamp that only PostgreSQL can
// read, the record has the columns and the document.
func extractLine(now time.Time, service string, r *row) []byte {
	l := record.New(now, record.Info, "extract", service)
	if r.refused != nil {
		r.letter().Fill(l)
	} else {
		l.String("mongo_id", r.id)
		for i, c := range r.columns {
			switch {
			case c == nil:
				l.Null(reading.ColumnNames[i])
			case i == reading.Payload || i == reading.Meta:
				l.Raw(reading.ColumnNames[i], c)
			default:
				l.String(reading.ColumnNames[i], string(c))
			}
		}
		if r.unread || r.columns.MayHoldNUL() { // load may have to write it to the dead letters
			text, raw := r.from.content(r)
			deadletter.FillDocument(l, text, raw)
		}
		l.String("guard", r.from.Guard())
	}
	return l.End()
}

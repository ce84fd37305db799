package main

import (
	"bufio"
	"context"
	"fmt"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"observability-hub/lib/cli"
	"observability-hub/lib/diag"
	"observability-hub/lib/record"
)

const objectKind = bson.TypeEmbeddedDocument

func shortID(id string) string {
	if len(id) > 200 {
		return id[:200] + "…"
	}
	return id
}

func idField(id string) diag.Field         { return diag.Field{Key: "mongo_id", Value: shortID(id)} }
func reasonField(reason string) diag.Field { return diag.Field{Key: "reason", Value: reason} }

// peerFlags bound the conversation with the databases. Which they are comes from
// credentials and the environment.
type peerFlags struct {
	Timeout time.Duration `default:"1m"`
}

func (p peerFlags) Validate() error {
	if p.Timeout < time.Second {
		return fmt.Errorf("--timeout %v: less than a second", p.Timeout)
	}
	return nil
}

// extractCmd prints documents as records.
type extractCmd struct {
	peerFlags
	datesFlag
	Limit int64 `default:"0" placeholder:"N"`
}

// Run is what kong calls.
func (x *extractCmd) Run(ctx context.Context, env *cli.Env) error {
	return x.run(ctx, env)
}

func (x *extractCmd) run(ctx context.Context, env *cli.Env) error {
	defer frugal()()
	s, err := openSource(ctx, env, x.Timeout)
	if err != nil {
		return err
	}
	defer s.close()
	out := bufio.NewWriterSize(env.Stdout, 64<<10)
	k := &keyset{source: s, status: statusIngested}
	b := newBuilder(nulKeep, x.datesFlag)
	n := int64(0)
	for {
		limit := int64(batchDocuments)
		if x.Limit > 0 {
			limit = min(limit, x.Limit-n)
		}
		if limit == 0 {
			break
		}
		docs, err := k.next(ctx, int(limit))
		if err != nil {
			return err
		}
		if len(docs) == 0 {
			break
		}
		now := time.Now()
		for _, doc := range docs {
			b.reset(2 * len(doc))
			r := b.row(doc)
			if _, err := out.Write(extractLine(now, env.Service, &r)); err != nil {
				return err
			}
			n++
		}
	}
	if _, err := out.Write(trailer(n)); err != nil {
		return err
	}
	return out.Flush()
}

// extractLine is the record of a row. Of a document that cannot be one it has the
// dead letter instead of columns, and of one with a NUL character the document
// beside them.
func extractLine(now time.Time, service string, r *row) []byte {
	l := record.New(now, record.Info, "extract", service)
	if r.refused != nil {
		r.deadLetter().fill(l)
	} else {
		l.String("mongo_id", r.id)
		for i, c := range r.columns {
			switch {
			case c == nil:
				l.Null(columns[i])
			case i == atPayload || i == atMeta:
				l.Raw(columns[i], c)
			default:
				l.String(columns[i], string(c))
			}
		}
		if r.unread || r.hasNUL() { // load may have to set it aside, whole
			text, raw := r.document()
			fillDocument(l, text, raw)
		}
		l.String("guard", r.digest())
	}
	return l.End()
}

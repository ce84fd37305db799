package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"observability-hub/lib/cli"
	"observability-hub/lib/diag"
	"observability-hub/lib/record"
	"observability-hub/lib/sysexits"
	"observability-hub/readsync/internal/extjson"
	"observability-hub/readsync/internal/rawbson"
	"observability-hub/readsync/internal/stage"
)

// markCmd is the command mark.
type markCmd struct {
	peerFlags
}

// marking is the state of a mark.
type marking struct {
	session
	read, rejected, bad int64 // records
}

// Run marks the documents of the load records on stdin.
func (m *markCmd) Run(ctx context.Context, env *cli.Env) error {
	defer frugal()()
	s, err := openSource(ctx, env, m.peerFlags)
	if err != nil {
		return err
	}
	mark := &marking{session: session{env: env, source: s}}
	defer mark.close()
	in := stage.Open(ctx, env.Stdin, streamLimit)
	for more := true; more && err == nil; {
		var lines []stage.Line
		lines, more = in.Next(ctx)
		err = mark.markEnded(ctx, mark.records(lines), statusIngested)
	}
	if err == nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return mark.finish(err, in)
}

// records parses lines and returns the outcomes in them. It counts bad lines and prints
// a warning for each.
func (m *marking) records(lines []stage.Line) (ends []ending) {
	for _, in := range lines {
		e, isRecord, err := loadRecord(in)
		switch {
		case err != nil:
			m.bad++
			m.env.Diag.Warn("bad_record", fmt.Sprintf("stdin line %d: %v; skipped", in.Number, err), diag.Field{Key: "line", Value: in.Number})
		case isRecord:
			m.read++
			if e.outcome == rejected {
				m.rejected++
			}
			ends = append(ends, e)
		}
	}
	return ends
}

// finish prints the marked record and returns err, joined with the errors that the
// marks and the stream cause.
func (m *marking) finish(err error, in *stage.Input) error {
	err = errors.Join(err, in.Verdict(m.read+m.bad, "mark", "load"))
	if m.bad > 0 {
		err = errors.Join(err, sysexits.New(sysexits.DataErr, "bad_input", fmt.Errorf("skipped %s of stdin, and read the others", plural(m.bad, "line"))).
			WithHint("mark reads the output of readsync load"))
	}
	if err == nil {
		err = m.marks.verdict()
	}
	level := record.Info
	if err != nil || m.marks.missed > 0 {
		level = record.Warn
	}
	l := record.New(time.Now(), level, "marked", m.env.Service)
	l.Int("read", m.read)
	m.marks.fill(l)
	l.Int("rejected", m.rejected)
	l.Int("bad", m.bad)
	out := l.End()
	if in.Complete {
		out = append(out, stage.Trailer(1)...)
	}
	return errors.Join(err, m.env.Stdout.Record(record.Info, out))
}

// ending is the outcome of the document with an id. It comes from a load record, or
// from a dead letter that was loaded again.
type ending struct {
	id      string
	key     rawbson.Value // the _id; missing if only its text is known
	guard   string
	outcome outcome
}

// markEnded marks the documents of ends that have the status from. It marks inserted,
// identical and replaced documents as processed, and rejected documents as rejected. It
// does not mark differing documents.
//
// markEnded reads the documents again, one answer at a time, because it knows only
// their ids. If an ending has a guard, and the document changed since the guard was
// made, markEnded does not mark the document. The update is guarded by the content that
// markEnded has read, in case the document changes again.
func (s *session) markEnded(ctx context.Context, ends []ending, from string) error {
	var ids []rawbson.Value
	byID := make(map[string]ending, len(ends)) // by id and guard, because a rejected id may have the text of another id
	wanted := make(map[string]bool, len(ends))
	for _, e := range ends {
		if e.outcome == differing {
			continue
		}
		if e.key.Missing() {
			var err error
			if e.key, err = extjson.ParseID(e.id); err != nil {
				s.marks.missed++ // no document has this id
				continue
			}
		}
		if !wanted[e.id] {
			ids = append(ids, e.key)
		}
		wanted[e.id], byID[e.id+" "+e.guard] = true, e
	}
	for len(ids) > 0 {
		raws, err := s.source.byID(ctx, ids, from, "")
		if err != nil {
			return err
		}
		if len(raws) == 0 {
			break // the others have another status
		}
		found := make(map[string]bool, len(raws))
		docs := make([]document, len(raws))
		var done, aside []*document
		for i, raw := range raws {
			d := &docs[i]
			_ = d.Read(raw) // rejected documents are marked too
			found[d.Text] = true
			e, known := byID[d.Text+" "+d.Guard()]
			if !known {
				e, known = byID[d.Text+" "]
			}
			switch {
			case !known:
				s.marks.missed++
			case e.outcome != rejected:
				done = append(done, d)
			case from != statusRejected:
				aside = append(aside, d)
			}
		}
		if err := s.source.setStatus(ctx, &s.marks, done, from, statusProcessed); err != nil {
			return err
		}
		if err := s.source.setStatus(ctx, &s.marks, aside, from, statusRejected); err != nil {
			return err
		}
		rest := ids[:0]
		for _, id := range ids {
			if text, _ := extjson.AppendID(nil, id); !found[string(text)] {
				rest = append(rest, id)
			}
		}
		if len(rest) == len(ids) {
			break // the server returned only documents with equal ids, such as 5.0 for 5
		}
		ids = rest
	}
	s.marks.missed += int64(len(ids))
	return nil
}

// loadRecord parses a load record. isRecord is false for the loaded record.
func loadRecord(in stage.Line) (e ending, isRecord bool, err error) {
	if in.Err != nil {
		return e, false, in.Err
	}
	var msg, name string
	err = extjson.Fields(in.Text, func(key string, raw []byte) (err error) {
		switch key {
		case "msg":
			msg, err = extjson.String(raw)
		case "mongo_id":
			e.id, err = extjson.String(raw)
		case "guard":
			e.guard, err = extjson.String(raw)
		case "outcome":
			name, err = extjson.String(raw)
		}
		return err
	})
	e.outcome = parseOutcome(name)
	switch {
	case err != nil:
		return e, false, fmt.Errorf("not a record: %w", err)
	case msg == "loaded":
		return e, false, nil
	case e.id == "":
		return e, false, errors.New("no mongo_id")
	case e.outcome == undecided:
		return e, false, fmt.Errorf("outcome %q: not one of inserted, identical, differing, replaced, rejected", name)
	}
	return e, true, nil
}

func parseOutcome(s string) outcome {
	for o := inserted; o <= rejected; o++ {
		if o.String() == s {
			return o
		}
	}
	return undecided
}

// byID reads the documents with those ids, as many as fit into one answer. If status is
// not empty, it reads only documents of that status.
func (s *source) byID(ctx context.Context, ids []rawbson.Value, status, only string) ([]bson.Raw, error) {
	wanted := make(bson.A, len(ids))
	for i, id := range ids {
		wanted[i] = bson.RawValue{Type: id.Kind, Value: id.Data}
	}
	filter := bson.D{{Key: "_id", Value: bson.D{{Key: "$in", Value: wanted}}}}
	if status != "" {
		filter = append(filter, bson.E{Key: "status", Value: status})
	}
	docs, err := s.ask(ctx, question{filter: filter, only: only, limit: max(1, len(ids))})
	if err != nil {
		return nil, s.peer.Fault("read documents", err)
	}
	return docs, nil
}

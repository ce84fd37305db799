package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"observability-hub/lib/cli"
	"observability-hub/lib/diag"
	"observability-hub/lib/record"
	"observability-hub/lib/sysexits"
)

// markCmd sets the status of documents whose rows are there.
type markCmd struct {
	peerFlags
}

// Run is what kong calls.
func (m *markCmd) Run(ctx context.Context, env *cli.Env) error {
	return m.run(ctx, env)
}

// toMark is what a load record says.
type toMark struct {
	id      string
	key     value // the _id, if it is known
	guard   string
	outcome outcome
}

func (m *markCmd) run(ctx context.Context, env *cli.Env) error {
	defer frugal()()
	s, err := openSource(ctx, env, m.Timeout)
	if err != nil {
		return err
	}
	defer s.close()
	in := readStream(ctx, env.Stdin)
	var a account
	var bad, seen int64
	err = nil
	for more := true; more && err == nil; {
		var batch []streamLine
		batch, more = in.batch(ctx)
		var marks []toMark
		for _, line := range batch {
			mark, isRecord, failed := line.mark()
			switch {
			case failed != nil:
				bad++
				env.Diag.Warn("bad_record", fmt.Sprintf("stdin line %d: %v; left out", line.number, failed), diag.Field{Key: "line", Value: line.number})
			case isRecord:
				marks = append(marks, mark)
			}
			if failed != nil || isRecord {
				seen++
			}
		}
		for _, mark := range marks {
			a.read++
			if mark.outcome == rejected {
				a.rejected++
			}
		}
		err = s.settle(ctx, marks, statusIngested, &a)
	}
	if err == nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	err = errors.Join(err, in.verdict(seen, "mark", "load"))
	if bad > 0 {
		err = errors.Join(err, sysexits.New(sysexits.DataErr, "bad_input", fmt.Errorf("left out %s of stdin; the others are taken", plural(bad, "line"))).
			WithHint("mark reads what readsync load prints"))
	}
	if err == nil {
		err = a.marksRefused()
	}
	level := record.Info
	if err != nil || a.unmarked > 0 {
		level = record.Warn
	}
	l := record.New(time.Now(), level, "marked", env.Service)
	l.Int("read", a.read)
	l.Int("marked", a.marked)
	l.Int("unmarked", a.unmarked)
	l.Int("rejected", a.rejected)
	l.Int("bad", bad)
	out := l.End()
	if in.complete {
		out = append(out, trailer(1)...)
	}
	return errors.Join(err, env.Stdout.Record(record.Info, out))
}

// settle marks documents that have the status from: what is inserted or identical
// as processed, and what is rejected as that; what differs stays as it is.
//
// The documents are read again, an answer at a time: those that are not what was
// read before stay as they are, and the update itself is guarded by what is read
// here.
func (s *source) settle(ctx context.Context, marks []toMark, from string, a *account) error {
	var ids []value
	byID := make(map[string]toMark, len(marks)) // by the guard too: ids that are refused may have the text of others
	wanted := make(map[string]bool, len(marks))
	for _, m := range marks {
		if m.outcome == differing {
			continue
		}
		if m.key.missing() {
			var err error
			if m.key, err = parseID(m.id); err != nil {
				a.unmarked++ // no document has it
				continue
			}
		}
		if !wanted[m.id] {
			ids = append(ids, m.key)
		}
		wanted[m.id], byID[m.id+" "+m.guard] = true, m
	}
	for len(ids) > 0 {
		docs, err := s.find(ctx, ids, from)
		if err != nil {
			return err
		}
		if len(docs) == 0 {
			break // the others have another status
		}
		found := make(map[string]bool, len(docs))
		var done, aside []*row
		b := newBuilder(nulKeep, datesFlag{})
		for _, doc := range docs {
			r := b.fields(doc)
			found[r.id] = true
			m, known := byID[r.id+" "+r.digest()]
			if !known {
				m, known = byID[r.id+" "]
			}
			switch {
			case !known:
				a.unmarked++
			case m.outcome == rejected:
				aside = append(aside, &r)
			default:
				done = append(done, &r)
			}
		}
		if err := s.mark(ctx, a, done, from, statusProcessed); err != nil {
			return err
		}
		if from != statusRejected {
			if err := s.mark(ctx, a, aside, from, statusRejected); err != nil {
				return err
			}
		}
		rest := ids[:0]
		for _, id := range ids {
			if text, _ := appendID(nil, id); !found[string(text)] {
				rest = append(rest, id)
			}
		}
		if len(rest) == len(ids) {
			break // of an id's equal, such as 5 and 5.0
		}
		ids = rest
	}
	a.unmarked += int64(len(ids))
	return nil
}

// mark reads a load record. A line of another kind is none.
func (in streamLine) mark() (m toMark, isRecord bool, err error) {
	if in.err != nil {
		return m, false, in.err
	}
	var msg, name string
	err = objectFields(in.text, func(key string, raw []byte) (err error) {
		switch key {
		case "msg":
			msg, err = jsonString(raw)
		case "mongo_id":
			m.id, err = jsonString(raw)
		case "guard":
			m.guard, err = jsonString(raw)
		case "outcome":
			name, err = jsonString(raw)
		}
		return err
	})
	m.outcome = parseOutcome(name)
	switch {
	case err != nil:
		return m, false, fmt.Errorf("not a record: %w", err)
	case msg == "loaded":
		return m, false, nil
	case m.id == "":
		return m, false, errors.New("no mongo_id")
	case m.outcome == undecided:
		return m, false, fmt.Errorf("outcome %q: not one of inserted, identical, differing, replaced, rejected", name)
	}
	return m, true, nil
}

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"observability-hub/lib/cli"
	"observability-hub/lib/diag"
	"observability-hub/lib/record"
	"observability-hub/lib/statedir"
	"observability-hub/lib/sysexits"
)

// loadCmd makes rows of records.
type loadCmd struct {
	peerFlags
	deadLetterFlags
}

// Validate is kong's check after parsing.
func (l *loadCmd) Validate() error {
	return errors.Join(l.peerFlags.Validate(), l.deadLetterFlags.Validate())
}

// Run is what kong calls.
func (l *loadCmd) Run(ctx context.Context, env *cli.Env) error {
	return cli.Interruptible(ctx, func(ctx context.Context) error { return l.run(ctx, env) })
}

// idle is how long an unfinished batch waits for more of a slow stream.
const idle = time.Second

// lockWait is how long the first dead letter waits for another run to end.
const lockWait = 10 * time.Second

// loading is the state of a load.
type loading struct {
	loadCmd
	env     *cli.Env
	target  *target
	dir     *statedir.Dir
	letters *deadLetters
	path    string // of the dead letters
	account account
	bad     int64
}

func (l *loadCmd) run(ctx context.Context, env *cli.Env) error {
	defer frugal()()
	t, err := openTarget(ctx, l.Timeout, false)
	if err != nil {
		return err
	}
	defer t.close()
	load := &loading{loadCmd: *l, env: env, target: t}
	defer load.close()
	in := readStream(ctx, env.Stdin)
	var seen int64 // records, bad ones too
	err = nil
	stopped := false // behind too many rejects
	for more := true; more && err == nil && !stopped; {
		var batch []streamLine
		batch, more = in.batch(ctx)
		seen += int64(len(batch))
		err = load.batch(ctx, batch)
		stopped = load.account.rejected > l.MaxRejects
	}
	if err == nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	filtered := int64(0)
	if in.complete {
		filtered = max(in.n-seen, 0)
	}
	if !stopped {
		err = errors.Join(err, in.verdict(seen, "load", "extract"))
	}
	err = errors.Join(err, load.account.check())
	if load.bad > 0 {
		err = errors.Join(err, sysexits.New(sysexits.DataErr, "bad_input", fmt.Errorf("left out %s of stdin; the others are taken", plural(load.bad, "line"))).
			WithHint("load reads what readsync extract prints"))
	}
	err = errors.Join(err, load.account.verdict(load.path, l.MaxRejects))
	return load.finish(err, filtered, in.complete)
}

func (l *loading) finish(err error, filtered int64, complete bool) error {
	rec := record.New(time.Now(), l.account.level(err), "loaded", l.env.Service)
	l.account.fill(rec)
	rec.Int("filtered", filtered)
	rec.Int("bad", l.bad)
	out := rec.End()
	if complete {
		out = append(out, trailer(l.account.read)...)
	}
	return errors.Join(err, l.env.Stdout.Record(record.Info, out))
}

func (l *loading) close() {
	if l.letters != nil {
		l.letters.close()
	}
	if l.dir != nil {
		l.dir.Close()
	}
}

// batch loads lines, and prints their outcomes after the COMMIT.
func (l *loading) batch(ctx context.Context, batch []streamLine) error {
	if len(batch) == 0 {
		return nil
	}
	rows := make([]*row, 0, len(batch))
	for _, in := range batch {
		r, err := in.row(l.nul())
		if err != nil {
			l.bad++
			l.env.Diag.Warn("bad_record", fmt.Sprintf("stdin line %d: %v; left out", in.number, err), diag.Field{Key: "line", Value: in.number})
			continue
		}
		rows = append(rows, r)
	}
	for len(rows) > 0 {
		n := distinct(rows)
		if err := l.write(ctx, rows[:n]); err != nil {
			return err
		}
		rows = rows[n:]
		if l.account.rejected > l.MaxRejects {
			return nil
		}
	}
	return nil
}

// distinct returns how many of the first rows have different ids.
func distinct(rows []*row) int {
	seen := make(map[string]struct{}, len(rows))
	for i, r := range rows {
		if _, there := seen[r.id]; there {
			return i
		}
		seen[r.id] = struct{}{}
	}
	return len(rows)
}

func (l *loading) write(ctx context.Context, rows []*row) error {
	if err := l.target.write(accepted(rows)); err != nil {
		return err
	}
	refused := settle(rows)
	if len(refused) > 0 {
		if err := l.open(ctx); err != nil {
			return err
		}
		if err := l.letters.append(refused); err != nil {
			return err
		}
	}
	l.account.add(rows)
	l.account.name(l.env, rows)
	var out []byte
	now := time.Now()
	for _, r := range rows {
		rec := record.New(now, record.Info, "load", l.env.Service)
		rec.String("mongo_id", r.id)
		rec.String("outcome", r.outcome.String())
		if r.outcome == rejected {
			rec.String("reason", r.refused.reason)
		}
		if r.guard != "" {
			rec.String("guard", r.guard)
		}
		out = append(out, rec.End()...)
	}
	_, err := l.env.Stdout.Write(out)
	return err
}

// open opens the dead letters, which nobody else may write meanwhile.
func (l *loading) open(ctx context.Context) (err error) {
	if l.letters != nil {
		return nil
	}
	if l.dir, err = l.lock(ctx, l.env.Service, lockWait); err != nil {
		return err
	}
	l.path = l.deadLetterFlags.path(l.dir)
	l.letters, err = openDeadLetters(l.env, l.path)
	return err
}

// accepted returns the rows that the database is to decide about.
func accepted(rows []*row) []*row {
	var good []*row
	for _, r := range rows {
		if r.refused == nil {
			good = append(good, r)
		}
	}
	return good
}

// settle makes what was refused rejected, and returns it.
func settle(rows []*row) []*row {
	var refused []*row
	for _, r := range rows {
		if r.refused != nil {
			r.outcome = rejected
			refused = append(refused, r)
		}
	}
	return refused
}

// streamLine is one line of a stage's stdin.
type streamLine struct {
	number int
	text   []byte
	err    error
}

// stream is a stage's stdin.
type stream struct {
	lines    chan streamLine
	complete bool  // the trailer came
	n        int64 // what it says
	after    int64 // lines behind the trailer
	err      error
}

// readStream reads lines in the background, so that a slow stream can be
// noticed.
func readStream(ctx context.Context, r io.Reader) *stream {
	s := &stream{lines: make(chan streamLine)}
	go func() {
		defer close(s.lines)
		in := newLines(r)
		for {
			text, err := in.next()
			if err == io.EOF {
				return
			}
			select {
			case s.lines <- streamLine{in.number, text, err}:
			case <-ctx.Done():
				return
			}
			if err != nil && !errors.Is(err, errTooLong) {
				return
			}
		}
	}()
	return s
}

// batch returns the lines up to a full batch, the end, or a pause. Blank lines are
// passed over.
func (s *stream) batch(ctx context.Context) (batch []streamLine, more bool) {
	size := 0
	var pause <-chan time.Time
	for len(batch) < batchDocuments && size < batchBytes {
		select {
		case line, ok := <-s.lines:
			switch {
			case !ok:
				return batch, false
			case line.err != nil && !errors.Is(line.err, errTooLong):
				s.err = fmt.Errorf("read stdin: %w", line.err)
				return batch, false
			case line.err == nil && len(line.text) == 0:
				continue
			}
			if n, ok := parseTrailer(line.text); ok && line.err == nil && !s.complete {
				s.complete, s.n = true, n
				continue
			}
			if s.complete {
				s.after++
				continue
			}
			batch, size = append(batch, line), size+len(line.text)
			if pause == nil {
				pause = time.After(idle) // since the first line: a trickle must not be held for long
			}
		case <-pause:
			return batch, true
		case <-ctx.Done():
			return batch, false
		}
	}
	return batch, true
}

// verdict is the error of a stream that is not whole.
func (s *stream) verdict(seen int64, stage, before string) error {
	var problem string
	switch {
	case s.err != nil:
		problem = s.err.Error()
	case !s.complete:
		problem = "stdin ended without its last line {\"_eof\":true,…}"
	case s.after > 0:
		problem = plural(s.after, "line") + " behind the end of the stream"
	case seen > s.n:
		problem = fmt.Sprintf("stdin holds %d records where its last line says %d", seen, s.n)
	default:
		return nil
	}
	return sysexits.New(sysexits.DataErr, "stream_incomplete", fmt.Errorf("%s: %s; what was read is done", stage, problem)).
		WithHint("readsync " + before + " or a filter behind it has died or has dropped that line; run the pipe again: nothing is done twice")
}

// row makes a row of an extract record.
func (in streamLine) row(nul nulPolicy) (*row, error) {
	if in.err != nil {
		return nil, in.err
	}
	r := &row{}
	isLetter, hasDocument := false, false
	var failed *refusal
	err := objectFields(in.text, func(key string, raw []byte) (err error) {
		switch key {
		case "mongo_id":
			r.id, err = jsonString(raw)
		case "guard":
			r.guard, err = jsonString(raw)
		case "reason":
			isLetter = true
		case "document", "bson":
			hasDocument = true
		}
		for i, name := range columns {
			if key != name || string(raw) == "null" {
				continue
			}
			switch i {
			case atPayload, atMeta:
				if err := checkJSON(raw, nul); err != nil {
					failed = asRefusal(err).at(name)
				}
				r.columns[i] = oneLine(raw)
			default:
				text, err := jsonString(raw)
				if err != nil {
					return fmt.Errorf("%s: %w", name, err)
				}
				column, err := checkText([]byte(text), nul)
				if err == nil && halfSurrogate(raw) {
					err = &refusal{reason: "invalid_utf8"}
				}
				if err == nil && i == atTimestamp {
					column, err = parseMoment(nil, column)
				}
				if r.columns[i] = column; err != nil {
					failed = asRefusal(err).at(name)
					r.columns[i] = []byte(text)
				}
			}
		}
		return err
	})
	switch {
	case err != nil:
		return nil, fmt.Errorf("not a record: %w", err)
	case r.id == "" && !isLetter:
		return nil, errors.New("no mongo_id")
	case isLetter:
		l, err := parseLetter(in.text)
		if err != nil {
			return nil, fmt.Errorf("not a record: %w", err)
		}
		r.id = l.id
		r.letter, r.refused = in.text, &refusal{reason: l.reason, text: l.detail}
	case len(r.id) > maxID:
		r.refused = (&refusal{reason: "id_too_long"}).at("mongo_id")
	default:
		r.refused = failed
		if _, err := checkText([]byte(r.id), nulReject); err != nil {
			r.refused = asRefusal(err).at("mongo_id")
		}
		if hasDocument {
			r.letter = in.text
		}
	}
	return r, nil
}

// oneLine makes blanks of the tabs and carriage returns between JSON's tokens; within
// its strings there are none.
func oneLine(raw []byte) []byte {
	for i, c := range raw {
		if c < ' ' {
			raw[i] = ' '
		}
	}
	return raw
}

// halfSurrogate reports whether a JSON string has half a surrogate pair, which
// decoders replace without a word.
func halfSurrogate(raw []byte) bool {
	s := &jsonText{b: raw, strict: true}
	_, err := s.str()
	return err != nil
}

package main

import (
	"context"
	"errors"
	"runtime/debug"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"observability-hub/lib/cli"
	"observability-hub/lib/record"
)

// runCmd syncs: all three stages in one process.
type runCmd struct {
	peerFlags
	deadLetterFlags
	datesFlag
	DryRun bool
}

func (r *runCmd) Validate() error {
	return errors.Join(r.peerFlags.Validate(), r.deadLetterFlags.Validate())
}

// Run is what kong calls.
func (r *runCmd) Run(ctx context.Context, env *cli.Env) error {
	_, err := r.sync(ctx, env)
	return err
}

// sync syncs what is there, prints the synced record, and returns the account.
func (r *runCmd) sync(ctx context.Context, env *cli.Env) (account, error) {
	dir, err := r.lock(ctx, env.Service, 0)
	if err != nil {
		return account{}, err
	}
	defer dir.Close()
	s := &syncing{runCmd: *r, writing: writing{env: env}, began: time.Now(), path: r.path(dir)}
	if !r.DryRun {
		s.aside = s.setAside
	}
	err = s.finish(s.run(ctx))
	return s.account, err
}

// syncing is the state of a run.
type syncing struct {
	runCmd
	writing
	began    time.Time
	path     string // of the dead letters
	source   *source
	letters  *deadLetters
	progress *progress
	marks    account // of what is marked
	batches  int64
	free     chan *builder // that have no rows
}

// frugal allows two fifths of the garbage that Go usually does, as a batch is some
// megabytes of it, until restore is called.
func frugal() (restore func()) {
	before := debug.SetGCPercent(40)
	return func() { debug.SetGCPercent(before) }
}

// batch is documents on their way through a run.
type batch struct {
	rows  []*row
	from  *builder // has the columns of the rows
	bytes int
	err   error // of reading; the batch is empty then
}

// largeBatch is the size from which on a batch is alone in memory.
const largeBatch = 4 << 20

func (s *syncing) run(ctx context.Context) error {
	defer frugal()()
	var err error
	if s.source, err = openSource(ctx, s.env, s.Timeout); err != nil {
		return err
	}
	defer s.source.close()
	// A signal ends the run behind the batch that is being written, if that does not
	// take too long.
	hard, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(stepGrace, cancel) })()
	if s.target, err = openTarget(hard, s.Timeout, s.DryRun); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return err
	}
	defer s.target.close()
	s.target.replace = s.replace()
	defer func() {
		if s.letters != nil {
			s.letters.close()
		}
	}()
	s.progress = newProgress(ctx, s.env, s.source)
	defer s.progress.end()

	reading, stop := context.WithCancel(ctx)
	defer stop()
	slots := make(chan struct{}, inMemory)
	s.free = make(chan *builder, inMemory)
	read, written := make(chan *batch), make(chan *batch)
	marked := make(chan error, 1)
	go s.read(reading, slots, read)
	go func() { marked <- s.markAll(hard, written, slots, stop) }()
	err = s.writeAll(read, written)
	close(written)
	err = errors.Join(err, <-marked)
	if err == nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return err
}

// inMemory is how many batches there are at most: one is read, one written, one
// marked.
const inMemory = 3

// writeAll writes batches until there is none, or one too many was rejected.
func (s *syncing) writeAll(read <-chan *batch, written chan<- *batch) error {
	for b := range read {
		if b.err != nil {
			return b.err
		}
		if err := s.write(b.rows); err != nil {
			return err
		}
		s.batches++
		s.progress.at(s.account.read)
		written <- b
		if s.account.rejected > s.MaxRejects && !s.DryRun {
			return nil
		}
	}
	return nil
}

// markAll marks batches that are written, while the next one is. Behind an error
// it marks no more, and stop ends the reading.
func (s *syncing) markAll(ctx context.Context, written <-chan *batch, slots <-chan struct{}, stop func()) (err error) {
	for b := range written {
		if err == nil {
			err = s.mark(ctx, b)
		}
		if err != nil {
			stop()
		}
		if b.bytes <= largeBatch {
			s.free <- b.from // memory for another one
		}
		for range b.slots() {
			<-slots
		}
	}
	return err
}

// stepGrace is how long a batch may take to be finished after a signal came.
const stepGrace = 2500 * time.Millisecond

// slots is how much of the memory for batches one takes.
func (b *batch) slots() int {
	if b.bytes > largeBatch {
		return inMemory
	}
	return 1
}

// read reads batches ahead of those that are written.
func (s *syncing) read(ctx context.Context, slots chan<- struct{}, batches chan<- *batch) {
	defer close(batches)
	send := func(b *batch) bool {
		select {
		case batches <- b:
			return true
		case <-ctx.Done():
			return false
		}
	}
	take := func() bool {
		select {
		case slots <- struct{}{}:
			return true
		case <-ctx.Done():
			return false
		}
	}
	k := &keyset{source: s.source, status: statusIngested}
	for {
		if !take() {
			return
		}
		docs, err := k.next(ctx, batchDocuments)
		if err != nil && ctx.Err() == nil {
			send(&batch{err: err})
		}
		if err != nil || len(docs) == 0 {
			return
		}
		for first := true; len(docs) > 0; first = false {
			if !first && !take() {
				return
			}
			n, size := fitting(docs)
			b := &batch{bytes: size}
			for range b.slots() - 1 {
				if !take() {
					return
				}
			}
			s.fill(b, docs[:n])
			if !send(b) {
				return
			}
			docs = docs[n:]
		}
	}
}

// fitting returns how many of the first documents make a batch, and their size.
func fitting(docs []bson.Raw) (n, size int) {
	for n < len(docs) && (n == 0 || size+len(docs[n]) <= batchBytes) {
		size += len(docs[n])
		n++
	}
	return n, size
}

// fill converts documents to the rows of a batch.
func (s *syncing) fill(b *batch, docs []bson.Raw) {
	select {
	case b.from = <-s.free:
	default:
		b.from = newBuilder(s.nul(), s.datesFlag)
	}
	b.from.reset(b.bytes + b.bytes/4)
	all := make([]row, len(docs))
	b.rows = make([]*row, len(docs))
	for i, doc := range docs {
		all[i] = b.from.row(doc)
		b.rows[i] = &all[i]
	}
}

// setAside writes dead letters.
func (s *syncing) setAside(rejects []*row) (err error) {
	if s.letters == nil {
		if s.letters, err = openDeadLetters(s.env, s.path); err != nil {
			return err
		}
	}
	return s.letters.append(rejects)
}

// mark marks the documents of a batch that is written.
func (s *syncing) mark(ctx context.Context, b *batch) error {
	if s.DryRun {
		return nil
	}
	if b.bytes > largeBatch {
		// Give back what the rows took, before the documents are sent.
		b.from.buf = nil
		for _, r := range b.rows {
			r.columns = [len(columns)][]byte{}
		}
		debug.FreeOSMemory()
		defer debug.FreeOSMemory()
	}
	var done, aside []*row
	for _, r := range b.rows {
		switch r.outcome {
		case inserted, identical, replaced:
			done = append(done, r)
		case rejected:
			aside = append(aside, r)
		}
	}
	if err := s.source.mark(ctx, &s.marks, done, statusIngested, statusProcessed); err != nil {
		return err
	}
	return s.source.mark(ctx, &s.marks, aside, statusIngested, statusRejected)
}

// finish prints the account and returns err, which the batches left, or what
// the outcomes lead to.
func (s *syncing) finish(err error) error {
	s.account.addMarks(&s.marks)
	switch {
	case err == nil && s.DryRun:
		err = s.account.forecast(s.MaxRejects)
	case err == nil:
		err = s.account.verdict(s.path, s.MaxRejects)
	}
	err = errors.Join(err, s.account.check())
	l := record.New(time.Now(), s.account.level(err), "synced", s.env.Service)
	s.account.fill(l)
	l.Int("marked", s.account.marked)
	l.Int("unmarked", s.account.unmarked)
	l.Int("batches", s.batches)
	l.Float("duration_s", seconds(s.began))
	if s.DryRun {
		l.Bool("dry_run", true)
	}
	return errors.Join(err, s.env.Stdout.Record(s.account.level(err), l.End()))
}

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
	DryRun bool
}

// Validate is kong's check after parsing.
func (r *runCmd) Validate() error {
	return errors.Join(r.peerFlags.Validate(), r.deadLetterFlags.Validate())
}

// Run is what kong calls.
func (r *runCmd) Run(ctx context.Context, env *cli.Env) error {
	return cli.Interruptible(ctx, func(ctx context.Context) error {
		_, err := r.sync(ctx, env)
		return err
	})
}

// sync syncs what is there, prints the synced record, and returns the account.
func (r *runCmd) sync(ctx context.Context, env *cli.Env) (account, error) {
	dir, err := r.lock(ctx, env.Service, 0)
	if err != nil {
		return account{}, err
	}
	defer dir.Close()
	s := &syncing{runCmd: *r, env: env, began: time.Now(), path: r.path(dir)}
	err = s.run(ctx)
	return s.account, s.finish(err)
}

// syncing is the state of a run.
type syncing struct {
	runCmd
	env      *cli.Env
	began    time.Time
	path     string // of the dead letters
	source   *source
	target   *target
	letters  *deadLetters
	progress *progress
	account  account
	batches  int64
	free     chan *builder // that have no rows
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
	// Half as much garbage as Go allows, as a batch is some megabytes of it.
	defer debug.SetGCPercent(debug.SetGCPercent(50))
	var err error
	if s.source, err = openSource(s.Timeout); err != nil {
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
	defer func() {
		if s.letters != nil {
			s.letters.close()
		}
	}()
	s.progress = newProgress(ctx, s.env, s.source)
	defer s.progress.end()

	reading, stop := context.WithCancel(ctx)
	defer stop()
	slots := make(chan struct{}, 2) // batches in memory
	s.free = make(chan *builder, 2)
	batches := make(chan *batch)
	go s.read(reading, slots, batches)
	for b := range batches {
		if b.err != nil {
			return b.err
		}
		if err := s.write(hard, b); err != nil {
			return err
		}
		s.recycle(b)
		for range b.slots() {
			<-slots
		}
		if s.account.rejected > s.MaxRejects || ctx.Err() != nil {
			break
		}
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}

// stepGrace is how long a batch may take to be finished after a signal came.
const stepGrace = 2500 * time.Millisecond

// slots is how much of the memory for batches one takes.
func (b *batch) slots() int {
	if b.bytes > largeBatch {
		return 2
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
		if err != nil {
			send(&batch{err: err})
			return
		}
		if len(docs) == 0 {
			return
		}
		for first := true; len(docs) > 0; first = false {
			if !first && !take() {
				return
			}
			n, size := fitting(docs)
			b := &batch{bytes: size}
			if b.slots() > 1 && !take() {
				return
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
		b.from = newBuilder(s.nul())
	}
	b.from.reset(b.bytes + b.bytes/4)
	all := make([]row, len(docs))
	b.rows = make([]*row, len(docs))
	for i, doc := range docs {
		all[i] = b.from.row(doc)
		b.rows[i] = &all[i]
	}
}

// recycle takes the memory of a batch that is done for another one.
func (s *syncing) recycle(b *batch) {
	if b.bytes <= largeBatch {
		s.free <- b.from
	}
}

// write writes one batch: rows first, then dead letters, then marks. Killed
// between any two of these, the next run finds the documents still ingested, and
// their rows and letters there.
func (s *syncing) write(ctx context.Context, b *batch) error {
	if err := s.target.write(accepted(b.rows)); err != nil {
		return err
	}
	refused := settle(b.rows)
	if len(refused) > 0 && !s.DryRun {
		if s.letters == nil {
			var err error
			if s.letters, err = openDeadLetters(s.env, s.path); err != nil {
				return err
			}
		}
		if err := s.letters.append(refused); err != nil {
			return err
		}
	}
	s.account.add(b.rows)
	s.batches++
	s.account.name(s.env, b.rows)
	s.progress.at(s.account.read)
	if s.DryRun {
		return nil
	}
	var done []*row
	if b.bytes > largeBatch {
		// Give back what the rows took, before the documents are sent.
		b.from.buf = nil
		for _, r := range b.rows {
			r.columns = [len(columns)][]byte{}
		}
		debug.FreeOSMemory()
		defer debug.FreeOSMemory()
	}
	for _, r := range b.rows {
		if r.outcome == inserted || r.outcome == identical {
			done = append(done, r)
		}
	}
	if err := s.source.mark(ctx, &s.account, done, statusIngested, statusProcessed); err != nil {
		return err
	}
	return s.source.mark(ctx, &s.account, refused, statusIngested, statusRejected)
}

// finish prints the account and returns err, which the batches left, or what
// the outcomes lead to.
func (s *syncing) finish(err error) error {
	if err == nil {
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

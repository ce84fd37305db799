package main

import (
	"context"
	"errors"
	"runtime/debug"
	"slices"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"observability-hub/lib/cli"
	"observability-hub/lib/record"
	"observability-hub/readsync/internal/reading"
)

// runCmd syncs: all three stages in one process.
type runCmd struct {
	peerFlags
	letterFlags
	datesFlag
	DryRun bool
}

func (r *runCmd) Validate() error {
	return errors.Join(r.peerFlags.Validate(), r.letterFlags.Validate())
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
	s := &syncing{runCmd: *r, session: &session{env: env}, began: time.Now(), path: r.path(dir)}
	err = s.run(ctx, &letters{letterFlags: r.letterFlags, env: env, dir: dir})
	err = s.finish(err)
	return s.account, err
}

// syncing is the state of a run: three batches on their way, of which one is read and
// converted, one is written, and one is marked.
type syncing struct {
	runCmd
	*session
	began    time.Time
	path     string // of the dead letters
	progress *progress
	batches  int64

	memory chan struct{} // a slot for each batch that may be in memory
	free   chan *batch   // that are marked, and whose memory is used again
}

// batch is documents on their way through a run.
type batch struct {
	docs    []document
	made    []row
	rows    []*row // all of made
	columns *reading.Builder
	bytes   int
	err     error // of reading; the batch is empty then
}

const (
	// inMemory is how many batches there are at most.
	inMemory = 3
	// largeBatch is the size from which on a batch is alone in memory.
	largeBatch = 4 << 20
	// stepGrace is how long a batch may take to be finished after a signal came.
	stepGrace = 2500 * time.Millisecond
)

// slots is how much of the memory for batches one of that size takes.
func slots(bytes int) int {
	if bytes > largeBatch {
		return inMemory
	}
	return 1
}

// frugal allows less garbage than Go usually does, as a batch is a megabyte of it and
// more, until restore is called.
func frugal() (restore func()) {
	before := debug.SetGCPercent(80)
	return func() { debug.SetGCPercent(before) }
}

func (s *syncing) run(ctx context.Context, aside *letters) error {
	defer frugal()()
	// A signal ends the run after the batch that is being written, if that does not
	// take too long.
	hard, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(stepGrace, cancel) })()
	mode := s.mode()
	if mode.dryRun = s.DryRun; s.DryRun {
		aside = nil
	}
	opened, err := openSession(ctx, hard, s.env, s.peerFlags, mode)
	if err != nil {
		return err
	}
	opened.letters = aside
	s.session = opened
	defer s.close()
	s.progress = newProgress(ctx, s.env, s.source)
	defer s.progress.end()

	untilStop, stop := context.WithCancel(ctx)
	defer stop()
	s.memory, s.free = make(chan struct{}, inMemory), make(chan *batch, inMemory)
	read, written := make(chan *batch), make(chan *batch)
	marked := make(chan error, 1)
	go s.readAll(untilStop, read)
	go func() { marked <- s.markAll(hard, written, stop) }()
	err = s.writeAll(hard, read, written)
	close(written)
	err = errors.Join(err, <-marked)
	if err == nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return err
}

// readAll reads batches ahead of those that are written.
func (s *syncing) readAll(ctx context.Context, read chan<- *batch) {
	defer close(read)
	w := &walk{source: s.source, status: statusIngested}
	for s.reserve(ctx, 1) {
		raws, err := w.next(ctx, batchDocuments)
		if err != nil && ctx.Err() == nil {
			send(ctx, read, &batch{err: err})
		}
		if err != nil || len(raws) == 0 {
			return
		}
		for first := true; len(raws) > 0; first = false {
			n, size := fitting(raws)
			more := slots(size)
			if first {
				more-- // it has one
			}
			if !s.reserve(ctx, more) || !send(ctx, read, s.convert(raws[:n], size)) {
				return
			}
			raws = raws[n:]
		}
	}
}

// reserve waits for memory for batches. It returns false if ctx ends before.
func (s *syncing) reserve(ctx context.Context, slots int) bool {
	for range slots {
		if !send(ctx, s.memory, struct{}{}) {
			return false
		}
	}
	return true
}

// send returns false if ctx ends before a channel takes v.
func send[T any](ctx context.Context, to chan<- T, v T) bool {
	select {
	case to <- v:
		return true
	case <-ctx.Done():
		return false
	}
}

// fitting returns how many of the first documents make a batch, and their size.
func fitting(raws []bson.Raw) (n, size int) {
	for n < len(raws) && (n == 0 || size+len(raws[n]) <= batchBytes) {
		size += len(raws[n])
		n++
	}
	return n, size
}

// convert makes a batch of documents and their rows.
func (s *syncing) convert(raws []bson.Raw, bytes int) *batch {
	var b *batch
	select {
	case b = <-s.free:
	default:
		b = &batch{columns: s.builder(s.nul())}
	}
	b.bytes = bytes
	b.columns.Reset(bytes + bytes/4)
	b.docs, b.made, b.rows = emptied(b.docs, len(raws)), emptied(b.made, len(raws)), emptied(b.rows, len(raws))
	for i, raw := range raws {
		b.made[i] = readRow(b.columns, raw, &b.docs[i])
		b.rows[i] = &b.made[i]
	}
	return b
}

// emptied returns n zero values, in the memory of s if that is enough.
func emptied[T any](s []T, n int) []T {
	s = slices.Grow(s[:0], n)[:n]
	clear(s)
	return s
}

// writeAll writes batches until there is none, or one too many was rejected.
func (s *syncing) writeAll(ctx context.Context, read <-chan *batch, written chan<- *batch) error {
	for b := range read {
		if b.err != nil {
			return b.err
		}
		if err := s.write(ctx, b.rows); err != nil {
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

// markAll marks batches that are written, while the next one is. After an error it
// marks no more, and stop ends the reading.
func (s *syncing) markAll(ctx context.Context, written <-chan *batch, stop func()) (err error) {
	for b := range written {
		if err == nil && !s.DryRun {
			if b.bytes > largeBatch {
				b.shrink()
			}
			err = s.mark(ctx, b.docs, b.rows)
		}
		if err != nil {
			stop()
		}
		if b.bytes > largeBatch {
			debug.FreeOSMemory()
		} else {
			clear(b.docs) // they hold what MongoDB has answered
			s.free <- b
		}
		for range slots(b.bytes) {
			<-s.memory
		}
	}
	return err
}

// shrink gives back what the rows take, before the documents are sent.
func (b *batch) shrink() {
	b.columns.Release()
	for _, r := range b.rows {
		r.columns = reading.Columns{}
	}
	debug.FreeOSMemory()
}

// finish prints the account and returns err, which the batches left, or what
// the outcomes lead to.
func (s *syncing) finish(err error) error {
	switch {
	case err == nil && s.DryRun:
		err = s.account.forecast(s.MaxRejects)
	case err == nil:
		if err = s.account.verdict(s.path, s.MaxRejects); err == nil {
			err = s.marks.verdict()
		}
	}
	err = errors.Join(err, s.account.check())
	l := record.New(time.Now(), s.account.level(err), "synced", s.env.Service)
	s.account.fill(l)
	s.marks.fill(l)
	l.Int("batches", s.batches)
	l.Float("duration_s", seconds(s.began))
	if s.DryRun {
		l.Bool("dry_run", true)
	}
	return errors.Join(err, s.env.Stdout.Record(s.account.level(err), l.End()))
}

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

// runCmd is the command run: all three stages in one process.
type runCmd struct {
	peerFlags
	letterFlags
	datesFlag
	DryRun bool
}

func (r *runCmd) Validate() error {
	return errors.Join(r.peerFlags.Validate(), r.letterFlags.Validate())
}

// Run syncs all ingested documents.
func (r *runCmd) Run(ctx context.Context, env *cli.Env) error {
	_, err := r.sync(ctx, env)
	return err
}

// sync syncs all ingested documents, prints the synced record, and returns the
// account.
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

// syncing is the state of a run. It holds up to three batches: one is being read and
// converted, one written, and one marked.
type syncing struct {
	runCmd
	*session
	began    time.Time
	path     string // of the dead letters
	progress *progress
	batches  int64

	memory chan struct{} // a slot for each batch that may be in memory
	free   chan *batch   // marked batches, whose memory is reused
}

// batch is a group of documents that a run reads, writes and marks together.
type batch struct {
	docs    []document
	made    []row
	rows    []*row // pointers to the elements of made
	columns *reading.Builder
	bytes   int
	err     error // the read error; such a batch has no documents
}

const (
	// inMemory is the maximum number of batches in memory.
	inMemory = 3
	// largeBatch is the size in bytes above which a batch uses all slots. It is then
	// the only one in memory.
	largeBatch = 4 << 20
	// stepGrace is the time after a signal in which the current batch may finish.
	stepGrace = 2500 * time.Millisecond
)

// slots returns the number of slots that a batch of that size takes.
func slots(bytes int) int {
	if bytes > largeBatch {
		return inMemory
	}
	return 1
}

// frugal makes the garbage collector run earlier than by default until restore is
// called, because each batch leaves a megabyte of garbage or more.
func frugal() (restore func()) {
	before := debug.SetGCPercent(80)
	return func() { debug.SetGCPercent(before) }
}

func (s *syncing) run(ctx context.Context, aside *letters) error {
	defer frugal()()
	// After a signal the batch that is being written is finished. hard ends it if that
	// takes longer than stepGrace.
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
	defer s.env.Diag.EndProgress()

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

// readAll reads and converts batches while earlier ones are written and marked.
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
				more-- // reserved by the outer loop
			}
			if !s.reserve(ctx, more) || !send(ctx, read, s.convert(raws[:n], size)) {
				return
			}
			raws = raws[n:]
		}
	}
}

// reserve waits for free slots. It returns false if ctx ends first.
func (s *syncing) reserve(ctx context.Context, slots int) bool {
	for range slots {
		if !send(ctx, s.memory, struct{}{}) {
			return false
		}
	}
	return true
}

// send sends v to a channel. It returns false if ctx ends first.
func send[T any](ctx context.Context, to chan<- T, v T) bool {
	select {
	case to <- v:
		return true
	case <-ctx.Done():
		return false
	}
}

// fitting returns how many of the first documents fit into a batch, at least one, and
// their size.
func fitting(raws []bson.Raw) (n, size int) {
	for n < len(raws) && (n == 0 || size+len(raws[n]) <= batchBytes) {
		size += len(raws[n])
		n++
	}
	return n, size
}

// convert returns a batch of the documents, with their rows.
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

// emptied returns n zero values. It reuses the memory of s if that is large enough.
func emptied[T any](s []T, n int) []T {
	s = slices.Grow(s[:0], n)[:n]
	clear(s)
	return s
}

// writeAll writes batches until there are no more, or until more than --max-rejects
// documents were rejected.
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

// markAll marks written batches while the next one is written. After an error it
// calls stop, which ends the reading, and marks no more batches.
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
			clear(b.docs) // they refer to the memory of MongoDB's answer
			s.free <- b
		}
		for range slots(b.bytes) {
			<-s.memory
		}
	}
	return err
}

// shrink frees the memory of the columns, which marking the documents does not need.
func (b *batch) shrink() {
	b.columns.Release()
	for _, r := range b.rows {
		r.columns = reading.Columns{}
	}
	debug.FreeOSMemory()
}

// finish prints the synced record and returns err, the error of the batches. If err is
// nil, finish returns the error that the outcomes cause.
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

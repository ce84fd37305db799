package main

import (
	"context"
	"errors"
	"slices"
	"time"

	"observability-hub/lib/statedir"
)

// errNoDatabase says that no database is configured, or that the one that is
// failed just now.
var errNoDatabase = errors.New("no database")

// retryAfter is how long a run leaves a database alone that failed.
const retryAfter = 30 * time.Second

// session calls work with an open session, within the time-out.
func (d *delivery) session(ctx context.Context, work func() error) error {
	if time.Now().Before(d.offUntil) {
		return errNoDatabase
	}
	cfg, ok, err := databaseConfig()
	if err == nil && !ok {
		return errNoDatabase
	}
	if err == nil {
		ctx, cancel := context.WithTimeout(ctx, d.Timeout)
		defer cancel()
		if d.db, err = connect(ctx, cfg); err == nil {
			err = work()
			_ = d.db.close() // what is inserted is committed
		}
	}
	if err != nil {
		d.offUntil, d.failed = time.Now().Add(retryAfter), true
	}
	return err
}

// drain inserts what the spool holds, in batches, and forgets what is in.
func (d *delivery) drain(q queue) error {
	var done int64
	var failure error
	err := q.batches(func(batch []entry, end int64, damaged int) bool {
		d.settled = 0
		d.dropped += int64(damaged)
		if failure = d.insert(q.dir, batch); failure == nil {
			done = end
			return true
		}
		// A run that has no time for all of a block of poison still gets on.
		for _, e := range batch[:d.settled] {
			done += int64(len(e.line))
		}
		return false
	})
	// Forgetting is for speed: what is inserted again is recognized.
	return errors.Join(failure, err, q.forget(done))
}

// insertSampled inserts the batch of this run. If the server finds that this
// host's clock differs, the records are marked, in the spool first, and then
// inserted: their time is wrong, but the other numbers are not.
func (d *delivery) insertSampled(q queue, batch []entry, spooled bool) error {
	err := d.insertAt(q.dir, batch, d.sampled)
	differs, ok := errors.AsType[errClock](err)
	if !ok {
		return err
	}
	if err := d.mark(q, batch, spooled, differs); err != nil {
		return err
	}
	return d.insert(q.dir, batch)
}

// checkClock marks the batch of this run, which is spooled behind others, if
// the server's clock differs.
func (d *delivery) checkClock(q queue, batch []entry) error {
	if d.sampled.IsZero() {
		return nil
	}
	server, err := d.db.now()
	if err != nil {
		return databaseError(err)
	}
	if differs, ok := errors.AsType[errClock](compareClocks(time.Now(), server)); ok {
		return d.mark(q, batch, true, differs)
	}
	return nil
}

// insert inserts a batch; what the database refuses for its content is set
// aside in dir.
func (d *delivery) insert(dir *statedir.Dir, batch []entry) error {
	return d.insertAt(dir, batch, time.Time{})
}

func (d *delivery) insertAt(dir *statedir.Dir, batch []entry, sampled time.Time) error {
	if len(batch) == 0 {
		return nil
	}
	rejected := d.rejected
	n, err := d.db.insert(batch, sampled, func(e entry, cause error) error {
		if err := d.setAside(dir, e, cause); err != nil {
			return err
		}
		d.rejected++
		// The halves of a batch are tried from its start to its end, so all before e is settled too.
		d.settled = 1 + slices.IndexFunc(batch, func(b entry) bool { return &b.line[0] == &e.line[0] })
		return nil
	})
	d.inserted += n
	if err == nil {
		d.duplicates += int64(len(batch)) - n - (d.rejected - rejected)
	}
	return err
}

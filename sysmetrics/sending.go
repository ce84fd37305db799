package main

import (
	"context"
	"errors"
	"slices"
	"time"

	"observability-hub/lib/statedir"
)

// errNoDatabase says that no database is configured, or that the configured one
// failed less than retryAfter ago.
var errNoDatabase = errors.New("no database")

// retryAfter is how long a run does not try a database again that failed.
const retryAfter = 30 * time.Second

// session opens a session and calls work, both within --timeout.
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
			_ = d.db.close() // everything is committed already
		}
	}
	if err != nil {
		d.offUntil, d.failed = time.Now().Add(retryAfter), true
	}
	return err
}

// drain inserts the records of the spool in batches, and removes from the spool
// those that are inserted or set aside. sampled is that of [database.insert].
func (d *delivery) drain(q queue, sampled time.Time) error {
	var done int64
	var failure error
	err := q.batches(func(batch []entry, end int64, damaged int) bool {
		d.settled = 0
		d.dropped += int64(damaged)
		if failure = d.insertAt(q.dir, batch, sampled); failure == nil {
			done = end
			return true
		}
		// If the run has no time for a whole batch of bad records, the settled
		// ones are still removed, so that the next run continues after them.
		for _, e := range batch[:d.settled] {
			done += int64(len(e.line))
		}
		return false
	})
	// Removing them only saves time: a record that is inserted again is
	// recognized as a duplicate.
	return errors.Join(failure, err, q.forget(done))
}

// insertSampled inserts the batch of this run. If the server's clock differs from
// this host's, insertSampled marks the records, in the spool first, and then
// inserts them. Their time is wrong, but their other numbers are right.
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

// drainSampled inserts the records of the spool. The last of them are the batch of
// this run. If the clocks differ, drainSampled marks that batch, as insertSampled does.
func (d *delivery) drainSampled(q queue, batch []entry) error {
	err := d.drain(q, d.sampled)
	differs, ok := errors.AsType[errClock](err)
	if !ok {
		return err
	}
	if err := d.mark(q, batch, true, differs); err != nil {
		return err
	}
	return d.drain(q, time.Time{})
}

// insert inserts a batch. Records that the database refuses because of their
// content are set aside in dir.
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
		// A batch is inserted in halves, from its start to its end, so all records
		// before e are settled too.
		d.settled = 1 + slices.IndexFunc(batch, func(b entry) bool { return &b.line[0] == &e.line[0] })
		return nil
	})
	d.inserted += n
	if err == nil {
		d.duplicates += int64(len(batch)) - n - (d.rejected - rejected)
	}
	return err
}

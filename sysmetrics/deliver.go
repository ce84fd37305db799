package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"observability-hub/lib/cli"
	"observability-hub/lib/diag"
	"observability-hub/lib/record"
	"observability-hub/lib/statedir"
	"observability-hub/lib/sysexits"
)

// delivery brings records into the database: through the spool, so that none
// is lost whenever the run ends. Its numbers become the flushed record.
type delivery struct {
	env *cli.Env
	stateFlags
	databaseFlags

	db       *database // the session of the current batch
	offUntil time.Time // do not ask a database again that failed just now
	failed   bool      // a database is configured, and not all is in it

	inserted, duplicates, rejected, spooled, dropped int64
	spoolBytes                                       int64
}

// deliver spools a batch and then inserts all that the spool holds, oldest
// first. Without a database, or with one that fails, the batch stays in the
// spool. dir is nil if there is no place for one: then only the batch itself
// can be inserted.
func (d *delivery) deliver(ctx context.Context, dir *statedir.Dir, batch []entry) error {
	var spoolErr error
	spool := queue{dir, spoolFile, d.SpoolMax << 20}
	safe := false       // the batch is in the spool
	alone := dir == nil // nothing is to insert but the batch itself
	if dir != nil {
		var before int64
		before, spoolErr = d.spool(spool, batch)
		safe = spoolErr == nil
		alone = safe && before == 0
	}
	err := d.session(ctx, func() error {
		switch {
		case alone && safe:
			if err := d.insert(dir, batch); err != nil {
				return err
			}
			return spool.forget(math.MaxInt64)
		case alone:
			return d.insert(nil, batch)
		case safe:
			return d.drain(spool)
		}
		return errors.Join(d.drain(spool), d.insert(dir, batch))
	})
	inserted := err == nil
	if err == errNoDatabase {
		err = nil
	}
	if !inserted && !safe {
		return errors.Join(spoolErr, err, d.lost(len(batch)))
	}
	if !inserted {
		d.spooled += int64(len(batch))
	}
	d.spoolBytes = 0
	if safe && !(inserted && alone) {
		d.spoolBytes, _, spoolErr = spool.repair()
	}
	return errors.Join(err, spoolErr)
}

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

// lost is the error of records that could be neither spooled nor inserted.
func (d *delivery) lost(n int) error {
	if n == 0 {
		return nil
	}
	return sysexits.New(sysexits.CantCreate, "records_lost", fmt.Errorf("%d records are lost: neither the spool nor the database took them", n))
}

// spool appends a batch and returns the size that the spool had before.
func (d *delivery) spool(q queue, batch []entry) (before int64, err error) {
	before, torn, err := q.repair()
	if err != nil {
		return 0, err
	}
	if torn > 0 {
		d.env.Diag.Warn("spool_torn", "the spool ended in half a record, left by an interrupted run: dropped", diag.Field{Key: "bytes", Value: torn})
	}
	dropped, err := q.append(before, batch)
	if dropped > 0 {
		d.dropped += int64(dropped)
		d.env.Diag.Warn("spool_full", "the spool is full: its oldest records are dropped", diag.Field{Key: "dropped", Value: dropped})
	}
	return before, err
}

// drain inserts what the spool holds, in batches, and forgets what is in.
func (d *delivery) drain(q queue) error {
	var done int64
	var failure error
	err := q.batches(func(batch []entry, end int64) bool {
		if failure = d.insert(q.dir, batch); failure == nil {
			done = end
		}
		return failure == nil
	})
	// Forgetting is for speed: what is inserted again is recognized.
	return errors.Join(failure, err, q.forget(done))
}

// insert inserts a batch; what the database refuses for its content is set
// aside in dir.
func (d *delivery) insert(dir *statedir.Dir, batch []entry) error {
	if len(batch) == 0 {
		return nil
	}
	rejected := d.rejected
	n, err := d.db.insert(batch, func(e entry, cause error) error {
		d.rejected++
		return d.setAside(dir, e, cause)
	})
	d.inserted += n
	if err == nil {
		d.duplicates += int64(len(batch)) - n - (d.rejected - rejected)
	}
	return err
}

// setAside keeps a record that the database will never take, so that it does
// not block the ones behind it.
func (d *delivery) setAside(dir *statedir.Dir, e entry, cause error) error {
	d.env.Diag.Warn("record_rejected", fmt.Sprintf("the database refuses a record for its content: %v; it is set aside in %s", cause, rejectedFile),
		diag.Field{Key: "record", Value: string(e.line[:min(len(e.line), 1024)])})
	if dir == nil {
		return nil
	}
	q := queue{dir, rejectedFile, d.SpoolMax << 20}
	size, _, err := q.repair()
	if err != nil {
		return err
	}
	if known, err := q.has(e.line); err != nil || known {
		return err // a killed run has set it aside already
	}
	dropped, err := q.append(size, []entry{e})
	d.dropped += int64(dropped)
	return err
}

// finish prints the flushed record.
func (d *delivery) finish() error {
	level := record.Info
	if d.failed || d.rejected+d.dropped > 0 {
		level = record.Warn
	}
	l := record.New(time.Now(), level, "flushed", d.env.Service)
	l.Int("inserted", d.inserted)
	l.Int("duplicates", d.duplicates)
	l.Int("rejected", d.rejected)
	l.Int("spooled", d.spooled)
	l.Int("dropped", d.dropped)
	l.Int("spool_bytes", d.spoolBytes)
	err := d.env.Stdout.Record(level, l.End())
	if d.rejected > 0 {
		err = errors.Join(err, sysexits.New(sysexits.Partial, "records_rejected", fmt.Errorf("%d records are set aside in %s", d.rejected, rejectedFile)).
			WithHint("mend them or the table, then: sysmetrics flush < "+rejectedFile))
	}
	return err
}

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
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
	aside    string    // where rejected records are, if there are any
	settled  int       // of the batch that is inserted, the records that are done with for certain

	sampled time.Time // when this run took the batch; zero for records from stdin

	known map[uint64]bool // hashes of the lines in rejectedFile, once one is needed

	inserted, duplicates, rejected, spooled, dropped, lost int64
	spoolBytes                                             int64
}

// deliver spools a batch and then inserts all that the spool holds, oldest
// first. Without a database, or with one that fails, the batch stays in the
// spool. dir is nil if there is no place for one: then only the batch itself
// can be inserted. keep is called once the batch is safe: in the spool, or, if
// that took nothing, in the database.
func (d *delivery) deliver(ctx context.Context, dir *statedir.Dir, batch []entry, keep func() error) error {
	var spoolErr, keepErr error
	spool := queue{dir, spoolFile, d.SpoolMax << 20}
	safe := false       // the batch is in the spool
	alone := dir == nil // nothing is to insert but the batch itself
	if dir != nil {
		var before int64
		if before, spoolErr = d.spool(spool, batch); spoolErr == nil {
			safe, alone, keepErr = true, before == 0, keep()
		}
	}
	err := d.session(ctx, func() error {
		switch {
		case alone && safe:
			if err := d.insertSampled(spool, batch, safe); err != nil {
				return err
			}
			return spool.forget(math.MaxInt64)
		case alone:
			return d.insertSampled(spool, batch, safe)
		case safe:
			if err := d.checkClock(spool, batch); err != nil {
				return err
			}
			return d.drain(spool)
		}
		// The spool takes nothing, and perhaps gives nothing: the batch does not depend on it.
		spoolErr = errors.Join(spoolErr, d.drain(spool))
		return d.insertSampled(spool, batch, safe)
	})
	inserted := err == nil
	if err == errNoDatabase {
		err = nil
	}
	switch {
	case !inserted && !safe:
		d.lost += int64(len(batch))
		return errors.Join(spoolErr, err)
	case !inserted:
		d.spooled += int64(len(batch))
		err = keptInSpool(err)
	}
	if inserted && !safe {
		keepErr = keep()
	}
	d.spoolBytes = 0
	if safe && !(inserted && alone) {
		d.spoolBytes, _, spoolErr = spool.repair()
	}
	return errors.Join(err, spoolErr, keepErr)
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

// keptInSpool adds to the hint of a database's error that nothing is lost.
func keptInSpool(err error) error {
	e, ok := errors.AsType[*sysexits.Error](err)
	if !ok {
		return err
	}
	if e.Hint != "" {
		e.Hint += "; "
	}
	e.Hint += "the records are kept in the spool, and the next run that reaches the database inserts them"
	return err
}

// plural returns a count with its noun.
func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
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

// mark adds clock_skew_s to the _meta of a batch, also where it is spooled, so
// that an insert that is repeated finds the same payload.
func (d *delivery) mark(q queue, batch []entry, spooled bool, differs errClock) error {
	d.env.Diag.Warn("clock_differs", differs.Error()+": the records are marked", diag.Field{Key: "skew_s", Value: int64(differs.ahead.Seconds())})
	var size int64
	for i, e := range batch {
		size += int64(len(e.line))
		if at := bytes.LastIndex(e.line, []byte(metaStart)); at >= 0 {
			field := fmt.Appendf(nil, `"clock_skew_s":%.0f,`, differs.ahead.Seconds())
			batch[i].line = slices.Insert(slices.Clone(e.line), at+len(metaStart), field...)
		}
	}
	if !spooled {
		return nil
	}
	return q.replaceTail(size, batch)
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

// setAside keeps a record that the database will never take, so that it does
// not block the ones behind it.
func (d *delivery) setAside(dir *statedir.Dir, e entry, cause error) error {
	where := "it is lost, as there is no state directory"
	if dir != nil {
		d.aside = dir.Join(rejectedFile)
		where = "it is set aside in " + d.aside
	}
	d.env.Diag.Warn("record_rejected", fmt.Sprintf("the database refuses a record for its content: %v; %s", cause, where),
		diag.Field{Key: "record", Value: string(e.line[:min(len(e.line), 1024)])})
	if dir == nil {
		d.lost++
		return nil
	}
	q := queue{dir, rejectedFile, d.SpoolMax << 20}
	size, _, err := q.repair()
	if err != nil {
		return err
	}
	if d.known == nil {
		if d.known, err = q.hashes(); err != nil {
			return err
		}
	}
	hash := hashOf(e.line)
	if d.known[hash] {
		return nil // a killed run has set it aside already
	}
	dropped, err := q.append(size, []entry{e})
	d.dropped += int64(dropped)
	if err == nil {
		d.known[hash] = true
	}
	return err
}

// finish prints the flushed record and returns err, which the batches left,
// behind what is worse and before what is less.
func (d *delivery) finish(err error) error {
	level := record.Info
	if d.failed || d.rejected+d.dropped+d.lost > 0 {
		level = record.Warn
	}
	l := record.New(time.Now(), level, "flushed", d.env.Service)
	l.Int("inserted", d.inserted)
	l.Int("duplicates", d.duplicates)
	l.Int("rejected", d.rejected)
	l.Int("spooled", d.spooled)
	l.Int("dropped", d.dropped)
	l.Int("lost", d.lost)
	l.Int("spool_bytes", d.spoolBytes)
	err = errors.Join(err, d.env.Stdout.Record(level, l.End()))
	if d.lost > 0 {
		code := sysexits.CantCreate
		if sysexits.Code(err) == sysexits.TempFail {
			code = sysexits.TempFail // whoever sends them again can succeed
		}
		err = errors.Join(sysexits.New(code, "records_lost",
			fmt.Errorf("lost %s: neither the state directory nor the database took them", plural(int(d.lost), "record"))), err)
	}
	if d.aside != "" {
		err = errors.Join(err, sysexits.New(sysexits.Partial, "records_rejected", fmt.Errorf("set %s aside in %s", plural(int(d.rejected), "record"), d.aside)).
			WithHint("mend them or the table, then run: sysmetrics flush < "+d.aside+", and remove that file"))
	}
	return err
}

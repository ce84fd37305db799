package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"observability-hub/lib/cli"
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
			WithHint("correct the table or the records, then run as root: sysmetrics flush <"+d.aside+" && rm "+d.aside))
	}
	return err
}

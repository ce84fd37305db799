package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"time"

	"observability-hub/lib/cli"
	"observability-hub/lib/record"
	"observability-hub/lib/statedir"
	"observability-hub/lib/sysexits"
)

// delivery inserts records into the database. It first writes them to the spool,
// so that no record is lost if the run is killed. Its counts become the flushed
// record.
type delivery struct {
	env *cli.Env
	stateFlags
	databaseFlags

	db       *database // the session of the current batch
	offUntil time.Time // until then a database that failed is not tried again
	waits    bool      // the records wait for waitUntil
	failed   bool      // a database is configured, and some records are not in it
	aside    string    // path of the file of rejected records, "" if there are none
	settled  int       // number of records at the start of the current batch that are inserted or set aside

	apart     string    // the state directory in which records wait for a later run of this user, "" if they do not
	sampled   time.Time // when this run took the batch; zero for records from stdin
	waitUntil time.Time // until then the records wait in the spool; zero if they are sent at once

	known map[uint64]bool // hashes of the lines in rejectedFile; nil until first needed

	inserted, duplicates, rejected, spooled, dropped, lost int64
	spoolBytes                                             int64
}

// deliver spools a batch and then inserts all records of the spool, oldest
// first. If no database is configured, or if the database fails, the batch stays
// in the spool. dir is nil if there is no state directory: then there is no
// spool, and only the batch itself can be inserted. If waitUntil is set, the
// batch stays in the spool too, unless the spool is half full. deliver calls keep
// as soon as the batch is safe: when it is in the spool or, if it could not be
// spooled, when it is in the database.
func (d *delivery) deliver(ctx context.Context, dir *statedir.Dir, batch []entry, keep func() error) error {
	var spoolErr, keepErr error
	spool := queue{dir, spoolFile, d.SpoolMax << 20}
	safe := false       // the batch is in the spool
	alone := dir == nil // the spool holds no records but the batch
	if dir != nil {
		var before int64
		if before, spoolErr = d.spool(spool, batch); spoolErr == nil {
			safe, alone, keepErr = true, before == 0, keep()
		}
		if size := before + bytesOf(batch); safe && !d.waitUntil.IsZero() && size <= spool.max/2 {
			d.waits, d.spooled, d.spoolBytes = true, d.spooled+int64(len(batch)), size
			return keepErr
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
			return d.drainSampled(spool, batch)
		}
		// The spool cannot be written, and perhaps not read. The batch is inserted
		// even if draining the spool fails.
		spoolErr = errors.Join(spoolErr, d.drain(spool, time.Time{}))
		return d.insertSampled(spool, batch, safe)
	})
	inserted := err == nil
	if err == errNoDatabase {
		err = nil
		if safe && len(batch) > 0 && d.StateDir == "" && os.Getenv("STATE_DIRECTORY") == "" {
			d.apart = dir.Path
		}
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

// keptInSpool adds to the hint of a database error that the records are kept.
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

// bytesOf returns the size of a batch in the spool.
func bytesOf(batch []entry) (size int64) {
	for _, e := range batch {
		size += int64(len(e.line))
	}
	return size
}

// plural returns a count with its noun.
func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// finish prints the flushed record, or the spooled record if the records wait for
// the time to send them. It returns err, the joined error of the batches. It puts
// the error for lost records before err, because the first error decides the exit
// status, and the error for rejected records after it.
func (d *delivery) finish(err error) error {
	if d.waits {
		l := record.New(time.Now(), record.Info, "spooled", d.env.Service)
		l.Int("spooled", d.spooled)
		l.Int("spool_bytes", d.spoolBytes)
		l.String("next_flush", d.waitUntil.UTC().Format(record.TimeFormat))
		return errors.Join(err, d.env.Stdout.Record(record.Info, l.End()))
	}
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
	if unit, other := statedir.Unit(d.env.Service, d.apart); d.apart != "" && other {
		d.env.Diag.Warn("spooled_apart", fmt.Sprintf("no database is configured for this user: %s kept in %s, but the unit inserts what is in %s; run it as root, or set DATABASE_URL", plural(int(d.spooled), "record"), d.apart, unit))
	}
	if d.lost > 0 {
		code := sysexits.CantCreate
		if sysexits.Code(err) == sysexits.TempFail {
			code = sysexits.TempFail // the caller can send them again
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

package main

import (
	"bufio"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"observability-hub/lib/cli"
	"observability-hub/lib/record"
	"observability-hub/lib/statedir"
)

type statusCmd struct {
	StateDir string `placeholder:"DIR"`
}

// Immediate is cli's question whether a signal may end the run at any point.
func (c *statusCmd) Immediate() bool { return true }

// Run prints how many records wait in the queues of the state directory. It takes
// no lock, so that it does not fail a run of the timer, and opens no database.
func (c *statusCmd) Run(ctx context.Context, env *cli.Env) error {
	path, err := statedir.Existing(c.StateDir, env.Service, env.Service)
	if err != nil {
		return err
	}
	spool, err := countRecords(filepath.Join(path, spoolFile))
	if err != nil {
		return statedir.Unreadable(err)
	}
	rejected, err := countRecords(filepath.Join(path, rejectedFile))
	if err != nil {
		return statedir.Unreadable(err)
	}
	now := time.Now()
	l := record.New(now, record.Info, "spool_status", env.Service)
	l.Int("spooled", spool.records)
	l.Int("spool_bytes", spool.bytes)
	if spool.oldest.IsZero() {
		l.Null("oldest_age_s")
	} else {
		l.Float("oldest_age_s", now.Sub(spool.oldest).Seconds())
	}
	l.Int("rejected", rejected.records)
	return env.Stdout.Record(record.Info, l.End())
}

// waiting describes a queue.
type waiting struct {
	records, bytes int64
	oldest         time.Time // of the first record; zero if there is none
}

// countRecords counts the complete lines of a queue. A missing file is an empty
// queue.
func countRecords(path string) (w waiting, err error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return w, nil
	}
	if err != nil {
		return w, err
	}
	defer f.Close()
	r := bufio.NewReaderSize(f, 256<<10)
	first, n, err := readLine(r)
	if err != nil && err != errTooLong {
		if err == io.EOF {
			err = nil
		}
		return w, err
	}
	_, w.oldest = describe(first)
	w.records, w.bytes, err = record.Count(r)
	w.records, w.bytes = w.records+1, w.bytes+n
	return w, err
}

package main

import (
	"bytes"
	"fmt"
	"slices"

	"observability-hub/lib/diag"
	"observability-hub/lib/statedir"
)

// spool appends a batch to the spool and returns the previous size of the spool.
func (d *delivery) spool(q queue, batch []entry) (before int64, err error) {
	before, torn, err := q.repair()
	if err != nil {
		return 0, err
	}
	if torn > 0 {
		d.env.Diag.Warn("spool_torn", "dropped an incomplete record at the end of the spool, left by an interrupted run", diag.Field{Key: "bytes", Value: torn})
	}
	dropped, err := q.append(before, batch)
	if dropped > 0 {
		d.dropped += int64(dropped)
		d.env.Diag.Warn("spool_full", "the spool is full: dropped its oldest records", diag.Field{Key: "dropped", Value: dropped})
	}
	return before, err
}

// mark adds clock_skew_s to the _meta of the records of a batch. If the batch is
// spooled, mark changes the spool too, so that a later insert has the same
// payload.
func (d *delivery) mark(q queue, batch []entry, spooled bool, differs errClock) error {
	d.env.Diag.Warn("clock_differs", differs.Error()+"; the records are marked with clock_skew_s", diag.Field{Key: "skew_s", Value: int64(differs.ahead.Seconds())})
	size := bytesOf(batch)
	for i, e := range batch {
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

// setAside writes a record that the database will never accept to rejectedFile,
// so that it does not block the records after it.
func (d *delivery) setAside(dir *statedir.Dir, e entry, cause error) error {
	where := "the record is lost, because there is no state directory"
	if dir != nil {
		d.aside = dir.Join(rejectedFile)
		where = "the record is in " + d.aside
	}
	d.env.Diag.Warn("record_rejected", fmt.Sprintf("the database refuses a record because of its content: %v; %s", cause, where),
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
		return nil // a killed run has already set it aside
	}
	dropped, err := q.append(size, []entry{e})
	d.dropped += int64(dropped)
	if err == nil {
		d.known[hash] = true
	}
	return err
}

package main

import (
	"bytes"
	"slices"
	"strconv"

	"observability-hub/readsync/internal/copytext"
	"observability-hub/readsync/internal/reading"
)

const copySQL = `COPY readsync_staging FROM STDIN`

// directSQL copies without the staging table. It fails as a whole if one of the rows
// exists already.
const directSQL = `COPY reading_analytics (mongo_id, event_timestamp, source, event_type, payload, meta) FROM STDIN`

// copy sends rows to the table of a COPY statement. For the staging table, each line
// begins with the number of the row.
func (t *target) copy(sql string, rows []*row) error {
	at := 0
	n, err := t.copyIn(sql, func() []byte {
		t.buf = t.buf[:0]
		if cap(t.buf) > 4*copyBytes {
			t.buf = nil
		}
		for ; at < len(rows); at++ {
			size := copySize(rows[at])
			if len(t.buf) > 0 && len(t.buf)+size > copyBytes {
				break
			}
			t.buf = slices.Grow(t.buf, size)
			if sql == copySQL {
				t.buf = append(strconv.AppendInt(t.buf, int64(at), 10), '\t')
			}
			t.buf = appendCopyLine(t.buf, rows[at])
		}
		return t.buf
	})
	if err == nil && n != int64(len(rows)) {
		err = errDiscarded
	}
	return err
}

// copyBytes limits the bytes that are passed to the driver at a time, unless a single
// row is longer.
const copyBytes = 56 << 10

// copySize returns an upper bound of the length of a row's line, for rows without tabs
// and line breaks.
func copySize(r *row) int {
	n := 64 + 2*len(r.id)
	for _, c := range r.columns {
		n += len(c) + bytes.Count(c, []byte{'\\'})
	}
	return n
}

// appendCopyLine appends a row in COPY's text format.
func appendCopyLine(b []byte, r *row) []byte {
	b = copytext.AppendText(b, []byte(r.id))
	for i, c := range r.columns {
		b = append(b, '\t')
		switch {
		case c == nil:
			b = append(b, copytext.Null...)
		case i == reading.Payload || i == reading.Meta:
			b = copytext.AppendJSON(b, c)
		default:
			b = copytext.AppendText(b, c)
		}
	}
	return append(b, '\n')
}

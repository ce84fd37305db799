package main

import (
	"bytes"
	"context"
	"database/sql/driver"
	"errors"
	"slices"
	"strconv"
	"strings"
	"unsafe"

	"github.com/lib/pq"
)

const copySQL = `COPY readsync_staging FROM STDIN`

// directSQL copies without a detour. It fails as a whole if one of the rows is there.
const directSQL = `COPY reading_analytics (mongo_id, event_timestamp, source, event_type, payload, meta) FROM STDIN`

// copy sends rows to the table of a COPY statement. Those of the staging table are
// numbered.
func (t *target) copy(sql string, rows []*row) error {
	stmt, err := t.conn.Prepare(sql)
	if err != nil {
		return err
	}
	lines, ok := stmt.(interface {
		CopyData(context.Context, string) (driver.Result, error)
	})
	if !ok {
		return errors.New("the PostgreSQL driver cannot copy lines")
	}
	send := func() error {
		if len(t.buf) == 0 {
			return nil
		}
		// The driver copies the text before it returns, and adds a line break.
		_, err := lines.CopyData(context.Background(), unsafe.String(&t.buf[0], len(t.buf)-1))
		if t.buf = t.buf[:0]; cap(t.buf) > 4*copyBytes {
			t.buf = nil
		}
		return err
	}
	for i, r := range rows {
		size := copySize(r)
		if len(t.buf)+size > copyBytes {
			if err = send(); err != nil {
				break // Exec says what the server said
			}
		}
		t.buf = slices.Grow(t.buf, size)
		if sql == copySQL {
			t.buf = append(strconv.AppendInt(t.buf, int64(i), 10), '\t')
		}
		t.buf = appendCopyLine(t.buf, r)
	}
	if err == nil {
		err = send()
	}
	t.buf = t.buf[:0]
	//lint:ignore SA1019 a COPY of this driver has no other end
	done, end := stmt.Exec(nil)
	// Where the server's error was there already, Exec did not wait for the end of
	// its answer: the connection would still be in the middle of it.
	if closed := stmt.Close(); end == nil {
		end = closed
	}
	if end != nil {
		return end
	}
	if err != nil {
		return err
	}
	if n, err := done.RowsAffected(); err != nil || n != int64(len(rows)) {
		return errors.Join(err, errTaken)
	}
	return nil
}

// copyBytes is how much is given to the driver at a time, if a row is not longer.
const copyBytes = 56 << 10

// copySize is how long a row's line is at most, if its texts have no tabs and
// line breaks.
func copySize(r *row) int {
	n := 64 + 2*len(r.id)
	for _, c := range r.columns {
		n += len(c) + bytes.Count(c, []byte{'\\'})
	}
	return n
}

// appendCopyLine appends a row in the text format of COPY.
func appendCopyLine(b []byte, r *row) []byte {
	b = appendCopyText(b, []byte(r.id))
	for i, c := range r.columns {
		b = append(b, '\t')
		switch {
		case c == nil:
			b = append(b, `\N`...)
		case i == atPayload || i == atMeta:
			b = appendCopyJSON(b, c)
		default:
			b = appendCopyText(b, c)
		}
	}
	return append(b, '\n')
}

// appendCopyJSON appends JSON, in whose strings nothing but the backslash means
// something to COPY; between them, a record may have a tab.
func appendCopyJSON(b, text []byte) []byte {
	for {
		i := bytes.IndexByte(text, '\\')
		if i < 0 {
			return append(b, text...)
		}
		b = append(append(b, text[:i]...), '\\', '\\')
		text = text[i+1:]
	}
}

func appendCopyText(b, text []byte) []byte {
	for {
		i := bytes.IndexAny(text, "\\\t\n\r")
		if i < 0 {
			return append(b, text...)
		}
		b = append(b, text[:i]...)
		switch text[i] {
		case '\t':
			b = append(b, '\\', 't')
		case '\n':
			b = append(b, '\\', 'n')
		case '\r':
			b = append(b, '\\', 'r')
		default:
			b = append(b, '\\', '\\')
		}
		text = text[i+1:]
	}
}

// copyLine finds the row that a failed COPY names: "COPY readsync_staging, line 7, column payload". It
// is -1 if it names none.
func copyLine(err error, rows int) int {
	pe, ok := errors.AsType[*pq.Error](err)
	if !ok {
		return -1
	}
	_, rest, ok := strings.Cut(pe.Where, "COPY readsync_staging, line ")
	if !ok {
		_, rest, ok = strings.Cut(pe.Where, "COPY reading_analytics, line ")
	}
	if !ok {
		return -1
	}
	end := 0
	for end < len(rest) && rest[end] >= '0' && rest[end] <= '9' {
		end++
	}
	n, err := strconv.Atoi(rest[:end])
	if err != nil || n < 1 || n > rows {
		return -1
	}
	return n - 1
}

// Package stage reads and writes the stream between readsync extract, load and mark.
// Each line is a record. The last line is a trailer with the number of records, which
// proves that the previous stage did not die.
package stage

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"observability-hub/lib/sysexits"
)

// maxLine limits a line of stdin. A document of 16 MiB can be several times longer in
// JSON.
const maxLine = 256 << 20

// ErrTooLong is the error of a line that is skipped. The lines after it can be read.
var ErrTooLong = errors.New("longer than 256 MiB")

// Lines reads lines, which may be very long.
type Lines struct {
	r        *bufio.Reader
	Number   int   // number of the last line
	Read     int64 // bytes up to the end of the last line
	Complete bool  // the last line ends in a line break
}

// NewLines returns a reader of lines.
func NewLines(r io.Reader) *Lines { return &Lines{r: bufio.NewReaderSize(r, 64<<10)} }

// Next returns the next line without its line break. Each line has its own memory. At
// the end Next returns io.EOF. A last line without a line break counts as a line.
func (l *Lines) Next() (line []byte, err error) {
	long := false
	l.Complete = false
	for {
		part, err := l.r.ReadSlice('\n')
		l.Read += int64(len(part))
		if long = long || len(line)+len(part) > maxLine; !long {
			line = append(line, part...)
		}
		if err == bufio.ErrBufferFull {
			continue
		}
		if err != nil && (err != io.EOF || len(line) == 0 && !long) {
			return nil, err
		}
		l.Number++
		l.Complete = err == nil
		if long {
			return nil, ErrTooLong
		}
		if l.Complete {
			line = line[:len(line)-1]
		}
		return line, nil
	}
}

// Trailer returns the last line of a stage's stream, for n records.
func Trailer(n int64) []byte {
	return append(strconv.AppendInt([]byte(`{"_eof":true,"n":`), n, 10), '}', '\n')
}

// parseTrailer reports whether a line is a trailer, and returns its number.
func parseTrailer(line []byte) (n int64, ok bool) {
	if len(line) > 200 {
		return 0, false
	}
	var t struct {
		EOF bool   `json:"_eof"`
		N   *int64 `json:"n"`
	}
	if err := json.Unmarshal(line, &t); err != nil || !t.EOF || t.N == nil || *t.N < 0 {
		return 0, false
	}
	return *t.N, true
}

// Line is one line of a stage's stdin.
type Line struct {
	Number int
	Text   []byte
	Err    error // the line could not be read, or is too long
}

// Limit limits a batch.
type Limit struct {
	Lines, Bytes int
	Pause        time.Duration // maximum wait for a full batch, from its first line
}

// Input is a stage's stdin.
type Input struct {
	limit    Limit
	lines    chan Line
	Complete bool  // the trailer was read
	N        int64 // the number in the trailer
	after    int64 // lines after the trailer
	err      error
}

// Open starts to read lines in the background. Next needs this to return an unfinished
// batch of a slow stream.
func Open(ctx context.Context, r io.Reader, limit Limit) *Input {
	s := &Input{limit: limit, lines: make(chan Line)}
	go func() {
		defer close(s.lines)
		in := NewLines(r)
		for {
			text, err := in.Next()
			if err == io.EOF {
				return
			}
			select {
			case s.lines <- Line{in.Number, text, err}:
			case <-ctx.Done():
				return
			}
			if err != nil && !errors.Is(err, ErrTooLong) {
				return
			}
		}
	}()
	return s
}

// Next returns the next batch: it ends when it is full, at the end of the stream, or
// after limit.Pause. Empty lines are skipped. more is false at the end, and
// after ctx has ended.
func (s *Input) Next(ctx context.Context) (batch []Line, more bool) {
	size := 0
	var pause <-chan time.Time
	for len(batch) < s.limit.Lines && size < s.limit.Bytes {
		select {
		case line, ok := <-s.lines:
			switch {
			case !ok:
				return batch, false
			case line.Err != nil && !errors.Is(line.Err, ErrTooLong):
				s.err = fmt.Errorf("read stdin: %w", line.Err)
				return batch, false
			case line.Err == nil && len(line.Text) == 0:
				continue
			}
			if n, ok := parseTrailer(line.Text); ok && line.Err == nil && !s.Complete {
				s.Complete, s.N = true, n
				continue
			}
			if s.Complete {
				s.after++
				continue
			}
			batch, size = append(batch, line), size+len(line.Text)
			if pause == nil {
				pause = time.After(s.limit.Pause) // from the first line: a slow stream must not prolong it
			}
		case <-pause:
			return batch, true
		case <-ctx.Done():
			return batch, false
		}
	}
	return batch, true
}

// Verdict returns an error if the stream is incomplete. seen is the number of records
// that were read, stage the name of this command, and before that of the previous one.
func (s *Input) Verdict(seen int64, stage, before string) error {
	var problem string
	switch {
	case s.err != nil:
		problem = s.err.Error()
	case !s.Complete:
		problem = "stdin ended without its last line {\"_eof\":true,…}"
	case s.after > 0:
		problem = fmt.Sprintf("its last line is followed by %d more lines", s.after)
	case seen > s.N:
		problem = fmt.Sprintf("stdin contains %d records, but its last line says %d", seen, s.N)
	default:
		return nil
	}
	return sysexits.New(sysexits.DataErr, "stream_incomplete", fmt.Errorf("%s: %s; the records before that are done", stage, problem)).
		WithHint("readsync " + before + " or a filter after it died or dropped that line; run the pipe again: nothing is done twice")
}

// Package stage is the stream between readsync extract, load and mark: a record a
// line, and a trailer that says how many there were, and that the stage before did
// not die.
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

// maxLine bounds a line of stdin. A document of 16 MiB can be several times as
// long in JSON.
const maxLine = 256 << 20

// ErrTooLong is a line that is not read, unlike those after it.
var ErrTooLong = errors.New("longer than 256 MiB")

// Lines reads lines, of which some may be very long.
type Lines struct {
	r        *bufio.Reader
	Number   int   // of the last line
	Read     int64 // bytes, up to the end of the last line
	Complete bool  // the last line ended in a line break
}

// NewLines returns a reader of lines.
func NewLines(r io.Reader) *Lines { return &Lines{r: bufio.NewReaderSize(r, 64<<10)} }

// Next returns the next line without its line break, in memory of its own. At the
// end it returns io.EOF; a last line without a line break is a line.
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

// Trailer is the last line of a stage's stream: it says how many records there
// were, and that the stage did not die.
func Trailer(n int64) []byte {
	return append(strconv.AppendInt([]byte(`{"_eof":true,"n":`), n, 10), '}', '\n')
}

// parseTrailer reports whether a line is a trailer, and what it says.
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
	Err    error // it could not be read, or is too long
}

// Limit is how much is read at a time.
type Limit struct {
	Lines, Bytes int
	Pause        time.Duration // that an unfinished batch waits for more of a slow stream
}

// Input is a stage's stdin.
type Input struct {
	limit    Limit
	lines    chan Line
	Complete bool  // the trailer came
	N        int64 // what it says
	after    int64 // lines behind the trailer
	err      error
}

// Open reads lines in the background, so that a slow stream can be
// noticed.
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

// Next returns the lines up to a full batch, the end, or a pause. Blank lines are
// passed over.
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
				pause = time.After(s.limit.Pause) // since the first line: a trickle must not be held for long
			}
		case <-pause:
			return batch, true
		case <-ctx.Done():
			return batch, false
		}
	}
	return batch, true
}

// Verdict is the error of a stream that is not whole.
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

package main

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

var errTooLong = errors.New("longer than 256 MiB")

// lines reads lines, of which some may be very long.
type lines struct {
	r        *bufio.Reader
	number   int
	read     int64 // bytes, up to the end of the last line
	complete bool  // the last line ended in a line break
}

func newLines(r io.Reader) *lines { return &lines{r: bufio.NewReaderSize(r, 64<<10)} }

// next returns the next line without its line break, in memory of its own. At the
// end it returns io.EOF; a last line without a line break is a line.
func (l *lines) next() (line []byte, err error) {
	long := false
	l.complete = false
	for {
		part, err := l.r.ReadSlice('\n')
		l.read += int64(len(part))
		if long = long || len(line)+len(part) > maxLine; !long {
			line = append(line, part...)
		}
		if err == bufio.ErrBufferFull {
			continue
		}
		if err != nil && (err != io.EOF || len(line) == 0 && !long) {
			return nil, err
		}
		l.number++
		l.complete = err == nil
		if long {
			return nil, errTooLong
		}
		if l.complete {
			line = line[:len(line)-1]
		}
		return line, nil
	}
}

// trailer is the last line of a stage's stream: it says how many records there
// were, and that the stage did not die.
func trailer(n int64) []byte {
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

func jsonString(raw []byte) (string, error) {
	if len(raw) < 2 || raw[0] != '"' {
		return "", errors.New("not a string")
	}
	return unquote(raw)
}

func plural(n int64, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// streamLine is one line of a stage's stdin.
type streamLine struct {
	number int
	text   []byte
	err    error
}

// stream is a stage's stdin.
type stream struct {
	lines    chan streamLine
	complete bool  // the trailer came
	n        int64 // what it says
	after    int64 // lines behind the trailer
	err      error
}

// readStream reads lines in the background, so that a slow stream can be
// noticed.
func readStream(ctx context.Context, r io.Reader) *stream {
	s := &stream{lines: make(chan streamLine)}
	go func() {
		defer close(s.lines)
		in := newLines(r)
		for {
			text, err := in.next()
			if err == io.EOF {
				return
			}
			select {
			case s.lines <- streamLine{in.number, text, err}:
			case <-ctx.Done():
				return
			}
			if err != nil && !errors.Is(err, errTooLong) {
				return
			}
		}
	}()
	return s
}

// batch returns the lines up to a full batch, the end, or a pause. Blank lines are
// passed over.
func (s *stream) batch(ctx context.Context) (batch []streamLine, more bool) {
	size := 0
	var pause <-chan time.Time
	for len(batch) < batchDocuments && size < batchBytes {
		select {
		case line, ok := <-s.lines:
			switch {
			case !ok:
				return batch, false
			case line.err != nil && !errors.Is(line.err, errTooLong):
				s.err = fmt.Errorf("read stdin: %w", line.err)
				return batch, false
			case line.err == nil && len(line.text) == 0:
				continue
			}
			if n, ok := parseTrailer(line.text); ok && line.err == nil && !s.complete {
				s.complete, s.n = true, n
				continue
			}
			if s.complete {
				s.after++
				continue
			}
			batch, size = append(batch, line), size+len(line.text)
			if pause == nil {
				pause = time.After(idle) // since the first line: a trickle must not be held for long
			}
		case <-pause:
			return batch, true
		case <-ctx.Done():
			return batch, false
		}
	}
	return batch, true
}

// verdict is the error of a stream that is not whole.
func (s *stream) verdict(seen int64, stage, before string) error {
	var problem string
	switch {
	case s.err != nil:
		problem = s.err.Error()
	case !s.complete:
		problem = "stdin ended without its last line {\"_eof\":true,…}"
	case s.after > 0:
		problem = plural(s.after, "line") + " behind the end of the stream"
	case seen > s.n:
		problem = fmt.Sprintf("stdin holds %d records where its last line says %d", seen, s.n)
	default:
		return nil
	}
	return sysexits.New(sysexits.DataErr, "stream_incomplete", fmt.Errorf("%s: %s; what was read is done", stage, problem)).
		WithHint("readsync " + before + " or a filter behind it has died or has dropped that line; run the pipe again: nothing is done twice")
}

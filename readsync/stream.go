package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
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

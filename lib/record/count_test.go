package record

import (
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

// The last line counts only when it is complete.
func TestCount(t *testing.T) {
	for text, want := range map[string][2]int64{"": {0, 0}, "a": {0, 1}, "a\n": {1, 2}, "a\nb": {1, 3}, "\n\n": {2, 2}} {
		for _, r := range []io.Reader{strings.NewReader(text), iotest.DataErrReader(strings.NewReader(text)), iotest.OneByteReader(strings.NewReader(text))} {
			if lines, size, err := Count(r); lines != want[0] || size != want[1] || err != nil {
				t.Errorf("Count(%q) = %d, %d, %v; want %v", text, lines, size, err, want)
			}
		}
	}
	broken := errors.New("broken")
	if _, _, err := Count(iotest.ErrReader(broken)); err != broken {
		t.Errorf("an error of the reader: %v", err)
	}
}

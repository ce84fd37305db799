package repository

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"testing"
	"testing/iotest"
)

func TestDigestOf(t *testing.T) {
	const mib = 1 << 20
	data := bytes.Repeat([]byte("0123456789abcde"), 4*mib/15)
	for _, n := range []int{0, 1, mib - 1, mib, mib + 1, 2 * mib, 3*mib + 7} {
		want := sha256.Sum256(data[:n])
		for name, r := range map[string]io.Reader{"whole": bytes.NewReader(data[:n]), "in halves": iotest.HalfReader(bytes.NewReader(data[:n]))} {
			if got, err := digestOf(r); err != nil || !bytes.Equal(got, want[:]) {
				t.Errorf("%d bytes, %s: %x, %v; want %x", n, name, got, err, want)
			}
		}
	}
	broken := errors.New("the disk is broken")
	if got, err := digestOf(io.MultiReader(bytes.NewReader(data[:mib+5]), iotest.ErrReader(broken))); !errors.Is(err, broken) {
		t.Errorf("%x, %v; want the error of the disk", got, err)
	}
}

package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"testing"
	"testing/iotest"

	"github.com/klauspost/compress/zstd"
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

// A few kilobytes of zstd can stand for a terabyte; the manifest says how much there is.
func TestPourStopsWhereTheManifestDoes(t *testing.T) {
	data := big(t, 1000, 0)
	encoder, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	stored := encoder.EncodeAll(append(data, make([]byte, 64<<20)...), nil)
	sum := sha256.Sum256(data)
	m := &manifest{File: "f", Bytes: int64(len(data)), Entries: 1, Content: hex.EncodeToString(sum[:])}
	var out bytes.Buffer
	if err := pour(t.Context(), bytes.NewReader(stored), m, nil, &out); err == nil {
		t.Error("more than the manifest says was taken")
	}
	if out.Len() > len(data)+1 {
		t.Errorf("%d bytes were written of %d", out.Len(), len(data))
	}
}

package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"testing"

	"github.com/klauspost/compress/zstd"

	"observability-hub/volbackup/internal/repository"
)

// A few kilobytes of zstd can expand to a terabyte. The manifest limits the length.
func TestPourStopsWhereTheManifestDoes(t *testing.T) {
	data := big(t, 1000, 0)
	encoder, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	stored := encoder.EncodeAll(append(data, make([]byte, 64<<20)...), nil)
	sum := sha256.Sum256(data)
	m := &repository.Manifest{File: "f", Bytes: int64(len(data)), Entries: 1, Content: hex.EncodeToString(sum[:])}
	var out bytes.Buffer
	if _, err := pour(t.Context(), bytes.NewReader(stored), m, nil, &out); err == nil {
		t.Error("a stream longer than in the manifest was accepted")
	}
	if out.Len() > len(data)+1 {
		t.Errorf("%d bytes were written of %d", out.Len(), len(data))
	}
}

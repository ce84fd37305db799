package main

import (
	"errors"
	"fmt"
	"io"

	"filippo.io/age"
	"github.com/klauspost/compress/zstd"
)

// unpack returns the tar stream of a stored archive.
func unpack(r io.Reader, m *manifest, identities []age.Identity) (io.ReadCloser, error) {
	if len(m.Recipients) > 0 {
		plain, err := age.Decrypt(r, identities...)
		if _, ok := errors.AsType[*age.NoIdentityMatchError](err); ok {
			return nil, badIdentity(fmt.Errorf("none of the keys opens %s", m.File))
		}
		if err != nil {
			return nil, fmt.Errorf("decrypt: %w", err)
		}
		r = plain
	}
	d, err := zstd.NewReader(r, zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(128<<20), zstd.WithDecoderConcurrency(2))
	if err != nil {
		return nil, fmt.Errorf("zstd: %w", err)
	}
	return d.IOReadCloser(), nil
}

package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"

	"filippo.io/age"
	"github.com/klauspost/compress/zstd"

	"observability-hub/volbackup/internal/repository"
	"observability-hub/volbackup/internal/tarcheck"
)

// unpack returns the tar stream of a stored archive.
func unpack(r io.Reader, m *repository.Manifest, identities []age.Identity) (io.ReadCloser, error) {
	if len(m.Recipients) > 0 {
		plain, err := age.Decrypt(r, identities...)
		if _, ok := errors.AsType[*age.NoIdentityMatchError](err); ok {
			return nil, badIdentity(fmt.Errorf("no key can decrypt %s", m.File))
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

// pour writes the tar stream of an archive to w, and verifies the stream. The
// caller has already verified the stored bytes. outside is the first name in the
// stream that leads out of the volume, "" if there is none.
func pour(ctx context.Context, f io.Reader, m *repository.Manifest, identities []age.Identity, w io.Writer) (outside string, err error) {
	r, err := unpack(repository.Interruptible(ctx, f), m, identities)
	if err != nil {
		return "", err
	}
	defer r.Close()
	h := sha256.New()
	var tar tarcheck.Check
	_, err = io.CopyBuffer(onlyWriter{io.MultiWriter(h, &tar, w)}, io.LimitReader(r, m.Bytes+1), make([]byte, 256<<10))
	if err == nil {
		err = tar.Close()
	}
	if err == nil && (tar.Bytes != m.Bytes || tar.Entries != m.Entries || hex.EncodeToString(h.Sum(nil)) != m.Content) {
		err = errors.New("the content does not match the manifest")
	}
	return tar.Outside, err
}

// onlyWriter hides all other methods of a writer, which makes io.CopyBuffer use its buffer.
type onlyWriter struct{ io.Writer }

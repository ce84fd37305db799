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

// pour writes the tar stream of an archive, whose stored bytes were checked, to
// w, and checks the stream too. It returns the first name in it that leads out of
// the volume.
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
		err = errors.New("the content is not what the manifest says")
	}
	return tar.Outside, err
}

// onlyWriter keeps io.Copy from taking a short cut past the buffer.
type onlyWriter struct{ io.Writer }

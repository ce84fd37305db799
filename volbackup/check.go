package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"filippo.io/age"
)

// check reads the stored bytes of an archive and compares them with its
// manifest: those on the disk, not what the kernel may still have of them in
// memory, and without pushing out of memory what others need.
func (r *repository) check(ctx context.Context, m *manifest) error {
	err := r.checkAs(ctx, m, syscall.O_DIRECT)
	if errors.Is(err, syscall.EINVAL) { // not every file system can
		err = r.checkAs(ctx, m, 0)
	}
	return err
}

func (r *repository) checkAs(ctx context.Context, m *manifest, flag int) error {
	f, err := os.OpenFile(r.path(m), os.O_RDONLY|flag, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	return checkFile(ctx, f, m)
}

// checked compares the bytes as they are read next, and returns the file, at its
// beginning: what was checked is what is read then, whatever happens to the name.
func (r *repository) checked(ctx context.Context, m *manifest) (*os.File, error) {
	f, err := os.Open(r.path(m))
	if err != nil {
		return nil, err
	}
	err = checkFile(ctx, f, m)
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// take finds an archive that is to be used, and opens it: checked, with what it
// can be decrypted with.
func (f repositoryFlags) take(ctx context.Context, keys identityFlags, volume, id string) (*os.File, *manifest, []age.Identity, error) {
	r, err := f.open()
	if err != nil {
		return nil, nil, nil, err
	}
	m, err := r.find(volume, id)
	if err != nil {
		return nil, nil, nil, err
	}
	identities, err := keys.identitiesFor(m)
	if err != nil {
		return nil, nil, nil, err
	}
	file, err := r.checked(ctx, m)
	if err != nil {
		return nil, nil, nil, damaged(volume, m.ID, err)
	}
	return file, m, identities, nil
}

func checkFile(ctx context.Context, f *os.File, m *manifest) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Size() != m.StoredBytes {
		return fmt.Errorf("%s has %d bytes, its manifest says %d", m.File, info.Size(), m.StoredBytes)
	}
	digest, err := digestOf(&upTo{interruptible{ctx, f}, info.Size()})
	if err != nil {
		return fmt.Errorf("read %s: %w", m.File, err)
	}
	if sum := hex.EncodeToString(digest); sum != m.SHA256 {
		return fmt.Errorf("%s has SHA-256 %s, its manifest says %s", m.File, sum, m.SHA256)
	}
	return nil
}

// digestOf returns the SHA-256 of all that r holds. One piece is hashed while the
// disk delivers the next. As large as they are, the pieces begin at a page of
// memory, which reads past the page cache need.
func digestOf(r io.Reader) ([]byte, error) {
	const size = 1 << 20
	h := sha256.New()
	free, full, done := make(chan []byte, 2), make(chan []byte), make(chan struct{})
	for range cap(free) {
		free <- make([]byte, size)
	}
	go func() {
		defer close(done)
		for p := range full {
			h.Write(p)
			free <- p[:size]
		}
	}()
	var err error
	for err == nil {
		p, n := <-free, 0
		if n, err = io.ReadFull(r, p); n > 0 {
			full <- p[:n]
		}
	}
	close(full)
	<-done
	if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, err
	}
	return h.Sum(nil), nil
}

// upTo reads n bytes, and nothing behind them: a read that bypasses the page
// cache must begin at a multiple of a block, but may ask for more than there is.
type upTo struct {
	r io.Reader
	n int64
}

func (u *upTo) Read(p []byte) (int, error) {
	if u.n <= 0 {
		return 0, io.EOF
	}
	n, err := u.r.Read(p)
	u.n -= int64(n)
	return n, err
}

// onlyWriter and interruptible keep io.Copy from taking a short cut past the
// buffer or past ctx.
type onlyWriter struct{ io.Writer }

type interruptible struct {
	ctx context.Context
	r   io.Reader
}

func (i interruptible) Read(p []byte) (int, error) {
	if i.ctx.Err() != nil {
		return 0, context.Cause(i.ctx)
	}
	return i.r.Read(p)
}

// pour writes the tar stream of an archive, whose stored bytes were checked, to
// w, and checks the stream too.
func pour(ctx context.Context, f io.Reader, m *manifest, identities []age.Identity, w io.Writer) error {
	r, err := unpack(interruptible{ctx, f}, m, identities)
	if err != nil {
		return err
	}
	defer r.Close()
	h := sha256.New()
	var tar tarCheck
	if _, err := io.CopyBuffer(onlyWriter{io.MultiWriter(h, &tar, w)}, io.LimitReader(r, m.Bytes+1), make([]byte, 256<<10)); err != nil {
		return err
	}
	if err := tar.Close(); err != nil {
		return err
	}
	if tar.Bytes != m.Bytes || tar.Entries != m.Entries || hex.EncodeToString(h.Sum(nil)) != m.Content {
		return errors.New("the content is not what the manifest says")
	}
	return nil
}

package repository

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"syscall"
)

// Check reads the stored bytes of an archive and compares them with its manifest.
// It reads from the disk past the page cache: otherwise it could verify a copy in
// memory, and it would displace the cached data of other programs.
func (r *Repository) Check(ctx context.Context, m *Manifest) error {
	err := r.checkAs(ctx, m, syscall.O_DIRECT)
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOTSUP) { // not supported by every file system
		err = r.checkAs(ctx, m, 0)
	}
	return err
}

func (r *Repository) checkAs(ctx context.Context, m *Manifest, flag int) error {
	f, err := os.OpenFile(r.Path(m), os.O_RDONLY|flag, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	return checkFile(ctx, f, m)
}

// Open compares the stored bytes with the manifest and returns the file, at its
// beginning. The caller reads the same file that was checked, even if the archive is
// removed or replaced.
func (r *Repository) Open(ctx context.Context, m *Manifest) (*os.File, error) {
	f, err := os.Open(r.Path(m))
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

func checkFile(ctx context.Context, f *os.File, m *Manifest) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Size() != m.StoredBytes {
		return fmt.Errorf("%s has %d bytes, but its manifest says %d", m.File, info.Size(), m.StoredBytes)
	}
	digest, err := digestOf(&upTo{Interruptible(ctx, f), info.Size()})
	if err != nil {
		return fmt.Errorf("read %s: %w", m.File, err)
	}
	if sum := hex.EncodeToString(digest); sum != m.SHA256 {
		return fmt.Errorf("%s has SHA-256 %s, but its manifest says %s", m.File, sum, m.SHA256)
	}
	return nil
}

// digestOf returns the SHA-256 of the bytes of r. It hashes one piece while it reads
// the next. Reads past the page cache need buffers that begin at a memory page, as
// buffers of this size do.
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

// upTo returns io.EOF after n bytes, without another read. A read past the page cache
// must begin at a multiple of a block. The last read may return less than it asked for,
// and the offset after it is not such a multiple.
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

// Interruptible returns a reader that fails when ctx is done. If ctx has a counter of
// [Counted], the reader adds the number of bytes that it reads.
func Interruptible(ctx context.Context, r io.Reader) io.Reader {
	counter, _ := ctx.Value(counterKey{}).(*atomic.Int64)
	return interruptible{ctx, r, counter}
}

type interruptible struct {
	ctx     context.Context
	r       io.Reader
	counter *atomic.Int64
}

func (i interruptible) Read(p []byte) (int, error) {
	if i.ctx.Err() != nil {
		return 0, context.Cause(i.ctx)
	}
	n, err := i.r.Read(p)
	if i.counter != nil {
		i.counter.Add(int64(n))
	}
	return n, err
}

// Counted returns a context and a counter of the bytes of archives that are read with
// this context. Progress is shown from it.
func Counted(ctx context.Context) (context.Context, *atomic.Int64) {
	counter := new(atomic.Int64)
	return context.WithValue(ctx, counterKey{}, counter), counter
}

type counterKey struct{}

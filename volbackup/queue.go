package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"observability-hub/lib/sysexits"
)

const (
	// blockSize is the unit in which a stream is read, staged and compressed. A
	// frame has a window of its own, and frames of 2 MiB cost little ratio.
	blockSize = 2 << 20
	// ringBlocks is how many blocks wait in memory; more wait in a file.
	ringBlocks = 6
)

// block is a piece of the stream: in memory, or in the spill file.
type block struct {
	buf    []byte // nil: in the spill file
	offset int64
	len    int
}

// queue holds what was read and not yet used. While it may spill, the reader
// never waits for the compressor: what does not fit into memory goes to a file
// without a name, which is gone with the process. So a container is down only
// while its volume is read.
type queue struct {
	dir string // for the spill file

	mu     sync.Mutex
	more   sync.Cond // blocks, free or err
	spills bool
	blocks []block
	free   [][]byte
	made   int // buffers made, at most ringBlocks
	spill  *os.File
	end    int64 // of the spill file
	held   int   // blocks of the spill file that are not released
	err    error // io.EOF: the stream is complete
}

func newQueue(dir string, spills bool) *queue {
	q := &queue{dir: dir, spills: spills}
	q.more.L = &q.mu
	return q
}

// fill reads r to its end. It returns when all is read, or at an error, which
// the other side gets after what was read.
func (q *queue) fill(ctx context.Context, r io.Reader) error {
	err := q.read(ctx, r)
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.err == nil {
		q.err = err
		if err == nil {
			q.err = io.EOF
		}
	}
	q.more.Broadcast()
	return err
}

func (q *queue) read(ctx context.Context, r io.Reader) error {
	var scratch []byte // for blocks that go to the file
	for {
		buf := q.buffer()
		inMemory := buf != nil
		if !inMemory {
			if scratch == nil {
				scratch = make([]byte, blockSize)
			}
			buf = scratch
		}
		n, err := io.ReadFull(r, buf)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if n > 0 {
			b := block{buf: buf[:n], len: n}
			if !inMemory {
				if b, err = q.write(buf[:n], err); b.len == 0 {
					return err
				}
			}
			q.push(b)
		}
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return nil
		case err != nil:
			return fmt.Errorf("read the tar stream: %w", err)
		}
	}
}

// buffer returns a free buffer, nil if all are in use and the queue spills.
func (q *queue) buffer() []byte {
	q.mu.Lock()
	defer q.mu.Unlock()
	for {
		if n := len(q.free); n > 0 {
			b := q.free[n-1]
			q.free = q.free[:n-1]
			return b
		}
		if q.made < ringBlocks {
			q.made++
			return make([]byte, blockSize)
		}
		if q.spills || q.err != nil {
			return nil
		}
		q.more.Wait()
	}
}

// setSpills says whether the reader may go on when memory is full.
func (q *queue) setSpills(spills bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.spills = spills
	q.more.Broadcast()
}

// write puts a block into the spill file and hands on how its reading ended.
func (q *queue) write(p []byte, readErr error) (block, error) {
	q.mu.Lock()
	if q.held == 0 {
		q.end = 0
	}
	offset := q.end
	q.end += int64(len(p))
	q.held++
	q.mu.Unlock()
	if q.spill == nil {
		f, err := unnamed(q.dir)
		if err != nil {
			return block{}, stagingError(err)
		}
		q.mu.Lock()
		q.spill = f
		q.mu.Unlock()
	}
	if _, err := q.spill.WriteAt(p, offset); err != nil {
		return block{}, stagingError(err)
	}
	return block{offset: offset, len: len(p)}, readErr
}

func (q *queue) push(b block) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.blocks = append(q.blocks, b)
	q.more.Broadcast()
}

// next returns the next block; io.EOF after the last.
func (q *queue) next() (block, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.blocks) == 0 && q.err == nil {
		q.more.Wait()
	}
	if len(q.blocks) == 0 {
		return block{}, q.err
	}
	b := q.blocks[0]
	q.blocks = q.blocks[1:]
	return b, nil
}

// bytes returns the content of a block, in scratch if it is in the file.
func (q *queue) bytes(b block, scratch []byte) ([]byte, error) {
	if b.buf != nil {
		return b.buf, nil
	}
	if _, err := q.spill.ReadAt(scratch[:b.len], b.offset); err != nil {
		return nil, stagingError(err)
	}
	return scratch[:b.len], nil
}

// release gives back the memory of a block, or its place in the file.
func (q *queue) release(b block) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if b.buf != nil {
		q.free = append(q.free, b.buf[:blockSize])
		q.more.Broadcast()
	} else {
		q.held--
	}
}

func (q *queue) close() {
	if q.spill != nil {
		q.spill.Close() // nothing in it is wanted any more
	}
}

// unnamed opens a file that has no name, or had one for a moment where the file
// system knows no better.
func unnamed(dir string) (*os.File, error) {
	const tmpfile = 0o20200000 // O_TMPFILE of open(2)
	if f, err := os.OpenFile(dir, os.O_RDWR|tmpfile, 0o600); err == nil {
		return f, nil
	}
	f, err := os.CreateTemp(dir, tempPrefix)
	if err != nil {
		return nil, err
	}
	return f, os.Remove(f.Name())
}

func stagingError(err error) error {
	hint := "give --staging a folder that the user of this run can write"
	if full(err) {
		hint = "make room there, or give --staging a folder with room for the volume; the backups are unchanged"
	}
	return sysexits.New(sysexits.CantCreate, "staging_unwritable", fmt.Errorf("staging: %w", err)).WithHint(hint)
}

// abort ends the stream for the other side, now.
func (q *queue) abort(err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.blocks, q.err = nil, err
	q.more.Broadcast()
}

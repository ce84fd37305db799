package main

import (
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
	"runtime"
	"syscall"

	"filippo.io/age"
	"github.com/klauspost/compress/zstd"
)

// compressor writes a stream as zstd frames of one block each, compressed on
// several cores, in order, encrypted if there are recipients.
type compressor struct {
	encoder *zstd.Encoder
	jobs    chan *job
	order   chan *job
	done    chan struct{}
	err     error // valid after done

	out     io.Writer // sink, or age's writer before it
	age     io.WriteCloser
	sink    *sink
	scratch chan []byte
	failed  chan struct{}
}

type job struct {
	in      []byte
	out     []byte
	release func()
	ready   chan struct{}
}

// maxWorkers bounds memory; four cores are faster than a volume is read.
const maxWorkers = 4

// sink counts and hashes what is stored.
type sink struct {
	w      io.Writer
	hash   hash.Hash
	length int64
}

func (s *sink) Write(p []byte) (int, error) {
	n, err := s.w.Write(p)
	s.hash.Write(p[:n])
	s.length += int64(n)
	if err != nil {
		return n, unwritable(err)
	}
	return n, nil
}

// newCompressor returns one that writes to w. If it yields, it leaves the CPU to
// whoever wants it: to tar and the container that waits for it first.
func newCompressor(w io.Writer, recipients []age.Recipient, yields bool) (*compressor, error) {
	workers := min(runtime.NumCPU(), maxWorkers)
	// A goroutine that yields to others in the eyes of the kernel does not in
	// those of Go: without spare places the reader would wait for a worker.
	runtime.GOMAXPROCS(runtime.NumCPU() + workers + 2)
	encoder, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(workers),
		zstd.WithWindowSize(2<<20), zstd.WithLowerEncoderMem(true))
	if err != nil {
		return nil, fmt.Errorf("zstd: %w", err)
	}
	c := &compressor{
		encoder: encoder,
		jobs:    make(chan *job, workers), order: make(chan *job, workers),
		done: make(chan struct{}), failed: make(chan struct{}),
		sink: &sink{w: w, hash: sha256.New()},
	}
	c.out = c.sink
	if len(recipients) > 0 {
		if c.age, err = age.Encrypt(c.sink, recipients...); err != nil {
			return nil, fmt.Errorf("encrypt: %w", err)
		}
		c.out = c.age
	}
	c.scratch = make(chan []byte, workers+2)
	for range workers {
		go c.work(yields)
	}
	go c.write(yields)
	return c, nil
}

// work compresses blocks.
func (c *compressor) work(yields bool) {
	if yields {
		yield()
	}
	for j := range c.jobs {
		j.out = c.encoder.EncodeAll(j.in, c.buffer()[:0])
		j.release()
		close(j.ready)
	}
}

// yield gives the calling goroutine a thread that leaves the CPU to whoever wants
// it. The thread ends with the goroutine: nothing is started from it, as a child
// would inherit its priority.
func yield() {
	runtime.LockOSThread()
	_ = syscall.Setpriority(syscall.PRIO_PROCESS, syscall.Gettid(), 19) // else the reader is only slower
}

func (c *compressor) buffer() []byte {
	select {
	case b := <-c.scratch:
		return b
	default:
		return make([]byte, 0, blockSize+blockSize/128)
	}
}

func (c *compressor) write(yields bool) {
	defer close(c.done)
	if yields {
		yield()
	}
	for j := range c.order {
		<-j.ready
		if c.err == nil {
			if _, c.err = c.out.Write(j.out); c.err != nil {
				close(c.failed)
			}
		}
		select {
		case c.scratch <- j.out:
		default:
		}
	}
}

// add takes a block, which is released when it is compressed. It fails when the
// file could not be written.
func (c *compressor) add(p []byte, release func()) error {
	j := &job{in: p, release: release, ready: make(chan struct{})}
	select {
	case <-c.failed:
		return c.err
	case c.order <- j:
	}
	c.jobs <- j
	return nil
}

// stop ends the work and says whether all was written.
func (c *compressor) stop() error {
	close(c.jobs)
	close(c.order)
	<-c.done
	if c.err == nil && c.age != nil {
		c.err = c.age.Close()
	}
	return c.err
}

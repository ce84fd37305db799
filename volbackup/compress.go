package main

import (
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
	"runtime"

	"filippo.io/age"
	"github.com/klauspost/compress/zstd"

	"observability-hub/volbackup/internal/repository"
)

const (
	// blockSize is the unit in which a stream is read and compressed. Each block is
	// a separate frame. Frames of 2 MiB reduce the compression ratio only a little.
	blockSize = 2 << 20
	// maxWorkers limits memory. Four cores compress faster than a volume is read.
	maxWorkers = 4
)

func workers() int { return min(runtime.NumCPU(), maxWorkers) }

// compressor compresses blocks to zstd frames on several cores, writes the frames
// in order, and encrypts them if there are recipients.
type compressor struct {
	encoder *zstd.Encoder
	out     io.Writer      // sink, or age's writer, which writes to sink
	age     io.WriteCloser // nil: not encrypted
	sink    *sink
	input   chan<- []byte      // receives the buffers of compressed blocks
	spare   chan []byte        // buffers for frames
	frames  chan (chan []byte) // in order; each channel receives one frame
	failed  chan struct{}
	done    chan struct{}
	err     error // valid after failed or done is closed
}

// sink counts and hashes the stored bytes.
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
		return n, repository.Unwritable(err)
	}
	return n, nil
}

// newCompressor returns a compressor that writes to w and returns buffers to input.
func newCompressor(w io.Writer, recipients []age.Recipient, input chan<- []byte) (*compressor, error) {
	n := workers()
	encoder, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(n),
		zstd.WithWindowSize(blockSize), zstd.WithLowerEncoderMem(true))
	if err != nil {
		return nil, fmt.Errorf("zstd: %w", err)
	}
	c := &compressor{encoder: encoder, sink: &sink{w: w, hash: sha256.New()}, input: input,
		spare: make(chan []byte, n+1), frames: make(chan (chan []byte), n), failed: make(chan struct{}), done: make(chan struct{})}
	c.out = c.sink
	if len(recipients) > 0 {
		if c.age, err = age.Encrypt(c.sink, recipients...); err != nil {
			return nil, fmt.Errorf("encrypt: %w", err)
		}
		c.out = c.age
	}
	for range cap(c.spare) {
		c.spare <- make([]byte, 0, blockSize+blockSize/128)
	}
	go c.write()
	return c, nil
}

// add compresses a block in the background and then returns its buffer to input.
// It fails if an earlier frame could not be written.
func (c *compressor) add(block []byte) error {
	frame := make(chan []byte, 1)
	select {
	case <-c.failed:
		return c.err
	case c.frames <- frame:
	}
	go func() {
		frame <- c.encoder.EncodeAll(block, (<-c.spare)[:0])
		c.input <- block[:blockSize]
	}()
	return nil
}

// write writes the frames in order.
func (c *compressor) write() {
	defer close(c.done)
	for frame := range c.frames {
		b := <-frame
		if c.err == nil {
			if _, c.err = c.out.Write(b); c.err != nil {
				close(c.failed)
			}
		}
		c.spare <- b
	}
}

// close waits until all frames are written, and finishes the encryption.
func (c *compressor) close() error {
	close(c.frames)
	<-c.done
	if c.err == nil && c.age != nil {
		c.err = c.age.Close()
	}
	return c.err
}

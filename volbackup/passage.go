package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"time"

	"observability-hub/lib/sysexits"
)

// passage is one stream on its way into the repository.
type passage struct {
	s     *store
	q     *queue
	stage bool // the source is not to wait for the compressor
	m     *manifest
	base  *manifest // the newest archive; nil: none
	hash  hash.Hash
	tar   tarCheck
	own   *prefixes

	old       *prefixes // of base, while the stream is the same; nil: it differs, or that is not known
	same      int64     // bytes that are the same, as far as is known
	held      []block   // those after them
	draft     *draft
	c         *compressor
	inputs    chan []byte
	read      bool // the stream was read to its end
	empty     bool // and held nothing
	unchanged bool
}

// run takes the stream to its end. Afterwards either the passage is unchanged,
// or its archive is in the draft.
func (p *passage) run() error {
	if p.base != nil && (p.stage || len(p.base.Recipients) == 0) {
		p.old = p.s.readPrefixes(p.base)
	}
	if p.old != nil {
		p.q.setSpills(true) // what is held back while it is the same could fill the memory
	} else {
		if err := p.begin(); err != nil {
			return err
		}
	}
	scratch := make([]byte, blockSize)
	for {
		b, err := p.q.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if err := p.take(b, scratch); err != nil {
			return err
		}
	}
	p.read = true
	return p.end()
}

func (p *passage) take(b block, scratch []byte) error {
	if p.old == nil && b.buf == nil {
		scratch = p.input()
	}
	data, err := p.q.bytes(b, scratch)
	if err != nil {
		return err
	}
	p.hash.Write(data)
	p.s.seen.Add(int64(len(data)))
	if _, err := p.tar.Write(data); err != nil {
		return refused(err)
	}
	if len(data) == blockSize {
		p.own.add(p.tar.Bytes, p.hash)
	}
	if p.old == nil {
		return p.compress(b, data)
	}
	p.held = append(p.held, b)
	same, known := p.old.matches(p.tar.Bytes, p.hash)
	switch {
	case same:
		p.same = p.tar.Bytes
		if len(p.base.Recipients) == 0 { // else it could not be read again
			p.releaseHeld()
		}
	case known, p.tar.Bytes > p.base.Bytes:
		return p.diverge()
	}
	return nil
}

// compress hands a block on.
func (p *passage) compress(b block, data []byte) error {
	return p.c.add(data, func() {
		if b.buf == nil {
			p.inputs <- data[:blockSize]
		}
		p.q.release(b)
	})
}

// input returns a buffer for a block from the spill file.
func (p *passage) input() []byte { return <-p.inputs }

func (p *passage) releaseHeld() {
	for _, b := range p.held {
		p.q.release(b)
	}
	p.held = nil
}

// begin opens the draft and starts compressing.
func (p *passage) begin() error {
	d, err := p.s.draft(p.m)
	if err != nil {
		return err
	}
	f, err := d.create()
	if err != nil {
		return err
	}
	p.draft = d
	if p.c, err = newCompressor(f, p.s.recipients, p.stage); err != nil {
		return err
	}
	p.inputs = make(chan []byte, 2)
	for range cap(p.inputs) {
		p.inputs <- make([]byte, blockSize)
	}
	p.old = nil
	p.q.setSpills(p.stage)
	return nil
}

// diverge begins to compress a stream that is no longer the same as the last:
// first what was the same, taken from the last archive, then what was held back.
func (p *passage) diverge() error {
	same, old := p.same, p.old
	if len(p.base.Recipients) > 0 {
		same = 0
	}
	if err := p.begin(); err != nil {
		return err
	}
	if same > 0 {
		if err := p.again(same, old); err != nil {
			p.s.dropPrefixes(p.m.Volume)
			return err
		}
	}
	for _, b := range p.held {
		var scratch []byte
		if b.buf == nil {
			scratch = p.input()
		}
		data, err := p.q.bytes(b, scratch)
		if err != nil {
			return err
		}
		if err := p.compress(b, data); err != nil {
			return err
		}
	}
	p.held = nil
	return nil
}

// again compresses the first n bytes of the last archive.
func (p *passage) again(n int64, old *prefixes) error {
	f, err := os.Open(p.s.path(p.base))
	if err != nil {
		return fmt.Errorf("repository: %w", err)
	}
	defer f.Close()
	r, err := unpack(f, p.base, nil)
	if err != nil {
		return err
	}
	defer r.Close()
	sum := sha256.New()
	for at := int64(0); at < n; at += blockSize {
		buf := p.input()
		if _, err := io.ReadFull(r, buf); err != nil {
			return fmt.Errorf("read %s: %w", p.base.File, err)
		}
		sum.Write(buf)
		if err := p.c.add(buf, func() { p.inputs <- buf }); err != nil {
			return err
		}
	}
	if same, _ := old.matches(n, sum); !same {
		return sysexits.New(sysexits.TempFail, "archive_differs", fmt.Errorf("%s does not begin as .prefixes says", p.base.File)).
			WithHint("run it again: the volume is then read as if it were new")
	}
	return nil
}

// end looks at the whole stream.
func (p *passage) end() error {
	if p.empty = p.tar.Bytes == 0; p.empty {
		return p.stop()
	}
	if err := p.tar.Close(); err != nil {
		return refused(err)
	}
	p.m.Bytes, p.m.Entries, p.m.Content = p.tar.Bytes, p.tar.Entries, hex.EncodeToString(p.hash.Sum(nil))
	if p.base != nil && p.base.Bytes == p.m.Bytes && p.base.Content == p.m.Content {
		p.unchanged = true
		p.releaseHeld()
	} else if p.old != nil {
		if err := p.diverge(); err != nil {
			return err
		}
	}
	return p.stop()
}

// stop ends the compressor, if there is one.
func (p *passage) stop() error {
	if p.c == nil {
		return nil
	}
	c := p.c
	p.c = nil
	if err := c.stop(); err != nil {
		return err
	}
	p.m.SHA256, p.m.StoredBytes = hex.EncodeToString(c.sink.hash.Sum(nil)), c.sink.length
	return nil
}

// errBaseDamaged says that a source delivered nothing, as its volume has the
// same tree as the last archive, which meanwhile has proved damaged.
var errBaseDamaged = errors.New("the last archive is damaged, and the volume was not read: run it again")

// sameTree takes an empty stream for the content of the last archive, if the
// source says that it has the tree that it was asked about.
func (p *passage) sameTree(asked, is string) error {
	if is == "" || is != asked {
		return refused(p.tar.Close())
	}
	if p.base == nil {
		return errBaseDamaged
	}
	p.m.Bytes, p.m.Entries, p.m.Content = p.base.Bytes, p.base.Entries, p.base.Content
	p.unchanged = true
	return nil
}

// refused is the error of a stream that is no whole archive.
func refused(err error) error {
	return sysexits.New(sysexits.DataErr, "stream_refused", err).
		WithHint("nothing was stored; see whether the program that makes the stream failed, and run it again")
}

// publish makes the archive appear.
func (p *passage) publish() error {
	if p.unchanged {
		if p.draft == nil {
			d, err := p.s.draft(p.m)
			if err != nil {
				return err
			}
			p.draft = d
		}
		if err := p.draft.link(p.base); err != nil {
			return err
		}
		p.m.SHA256, p.m.StoredBytes = p.base.SHA256, p.base.StoredBytes
		p.m.LinkOf = p.base.ID
		if p.base.LinkOf != "" {
			p.m.LinkOf = p.base.LinkOf
		}
	}
	p.m.Finished = time.Now().UTC().Truncate(time.Millisecond)
	p.m.Verified = p.m.Finished
	if err := p.draft.publish(); err != nil {
		return err
	}
	p.draft = nil
	if !p.empty { // else those of the same content are there
		p.s.writePrefixes(p.m, p.own)
	}
	return nil
}

// discard removes what was begun and not published.
func (p *passage) discard() {
	if p.c != nil {
		_ = p.c.stop() // the stream failed, which is said already
		p.c = nil
	}
	if p.draft != nil {
		p.draft.discard()
		p.draft = nil
	}
}

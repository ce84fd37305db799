package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync/atomic"
	"time"

	"filippo.io/age"

	"observability-hub/lib/cli"
	"observability-hub/lib/sysexits"
	"observability-hub/volbackup/internal/repository"
	"observability-hub/volbackup/internal/tarcheck"
)

// store defines where and how archives are stored.
type store struct {
	*repository.Repository
	staging    string
	always     bool // stage the stream of every source
	reread     bool // read a volume even if its tree is unchanged
	recipients []age.Recipient
	names      []string                // of the recipients
	seen       atomic.Int64            // number of bytes of the stream that have been read
	spool      atomic.Pointer[os.File] // the staged stream that is being written
}

// source is the origin of a tar stream.
type source interface {
	// open starts the stream and returns it. The stream may be empty if the source
	// finds the same tree. If spool is not nil, the stream is written to it instead,
	// and is complete when finish returns.
	open(ctx context.Context, tree string, spool *os.File) (io.Reader, error)
	// finish waits for the end of the source. It fails if the stream must be discarded.
	finish() (ending, error)
	// running reports whether the source runs before open.
	running() bool
	// waited reports whether something, such as a stopped container, waits for the end of the stream.
	waited() bool
	// reads returns the directory that the source reads, "" if it is not known.
	reads() string
}

// ending is the result of a source that succeeded.
type ending struct {
	consistency string
	tree        string // digest of the metadata of the tree that was read, "" if it is not known
}

// errBaseDamaged means that a source wrote an empty stream because its volume has
// the tree of the newest archive, but this archive is damaged.
var errBaseDamaged = errors.New("the last archive is damaged, and the volume was not read: run the backup again")

// put stores the stream of a source as the newest archive of m.Volume. It completes
// the fields of m. unchanged reports that the newest archive had the same content.
//
// If something waits for the source, put first writes the whole stream to an
// unnamed file, which releases the source. Then the stream passes once through the
// digest, the tar check and the compressor.
func (s *store) put(ctx context.Context, m *repository.Manifest, src source) (unchanged bool, err error) {
	s.name(m)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	base, err := s.base(m.Volume)
	if err != nil {
		return false, err
	}
	stage := s.always || src.waited()
	if !src.running() {
		if err := s.checkRoom(stage, need{m.Volume, base, src.reads()}); err != nil {
			return false, err
		}
	}
	tree := ""
	if base != nil && !s.reread {
		tree = base.Tree
	}
	var end ending
	if stage {
		spool, err := s.stage()
		if err != nil {
			return false, err
		}
		defer s.unstage(spool)
		if _, err := src.open(ctx, tree, spool); err != nil {
			return false, s.spoolError(spool, err)
		}
		if end, err = src.finish(); err != nil {
			return false, s.spoolError(spool, err)
		}
		return s.keep(ctx, m, base, spool, tree, end)
	}
	r, err := src.open(ctx, tree, nil)
	if err != nil {
		return false, err
	}
	p := &packing{s: s, m: m}
	defer p.discard()
	err = p.run(ctx, r)
	if err != nil {
		cancel(err)
		p.discard() // before finish, because a source may take longer to end than the run has after a signal
	}
	end, ended := src.finish()
	if ended != nil && (err == nil || p.read) {
		err = ended // the program's own error explains why its stream ends early
	}
	if err != nil {
		return false, err
	}
	return p.publish(ctx, base, tree, end)
}

// name sets the time and the ID of an archive.
func (s *store) name(m *repository.Manifest) {
	s.seen.Store(0)
	m.Version, m.Tool = repository.ManifestVersion, name+" "+cli.Version
	if m.Time.IsZero() {
		m.Time = time.Now()
	}
	m.Time = m.Time.UTC().Truncate(time.Millisecond)
	m.ID = m.Time.Format(repository.IDLayout)
	m.Recipients = s.names
}

// stage opens an unnamed file in the staging directory.
func (s *store) stage() (*os.File, error) {
	spool, err := repository.Unnamed(s.staging)
	if err != nil {
		return nil, stagingError(err)
	}
	s.spool.Store(spool)
	return spool, nil
}

func (s *store) unstage(spool *os.File) {
	s.spool.Store(nil)
	spool.Close() // an error does not matter, because the content is no longer needed
}

// spoolError returns the error of a stream that could not be staged. It tests
// whether the disk is full, because then the program that writes the file may report
// only that it failed.
func (s *store) spoolError(spool *os.File, err error) error {
	if _, full := spool.Write(make([]byte, 64<<10)); repository.Full(full) {
		return stagingError(fmt.Errorf("%w: %v", full, err))
	}
	return err
}

// keep stores a staged stream.
func (s *store) keep(ctx context.Context, m *repository.Manifest, base *repository.Manifest, spool *os.File, tree string, end ending) (unchanged bool, err error) {
	s.spool.Store(nil)
	info, err := spool.Stat()
	if err != nil {
		return false, stagingError(err)
	}
	// A stream of the same length may be unchanged. Compute the digest first, because that is cheaper than compressing.
	p := &packing{s: s, m: m, digestOnly: base != nil && base.Bytes == info.Size()}
	defer p.discard()
	for {
		if _, err := spool.Seek(0, io.SeekStart); err != nil {
			return false, stagingError(err)
		}
		if err := p.run(ctx, spool); err != nil {
			return false, err
		}
		if !p.digestOnly {
			return p.publish(ctx, base, tree, end)
		}
		if m.Content == base.Content {
			if unchanged, err := p.publish(ctx, base, tree, end); !errors.Is(err, errBaseDamaged) {
				return unchanged, err
			}
		}
		*p = packing{s: s, m: m}
	}
}

// base returns the newest archive of a volume if it has the same recipients, else
// nil. A new archive with the same content can be a link to its file.
func (s *store) base(volume string) (*repository.Manifest, error) {
	all, err := s.Archives(volume)
	if err != nil {
		return nil, err
	}
	if m := repository.Newest(all, time.Now()); m != nil && slices.Equal(m.Recipients, s.names) {
		return m, nil
	}
	return nil, nil
}

// packing stores one stream in the repository.
type packing struct {
	s          *store
	m          *repository.Manifest
	digestOnly bool // compute only the digest, to see whether the stream is unchanged
	read       bool // the stream was read to its end
	draft      *repository.Draft
	c          *compressor
}

// piece is a part of a stream. The last piece has err set.
type piece struct {
	data []byte
	err  error
}

// run reads the stream to its end, checks it, and sets the fields of m that describe
// it. If the stream is empty, m.Bytes stays 0.
func (p *packing) run(ctx context.Context, r io.Reader) error {
	buffers, pieces := make(chan []byte, maxWorkers+2), make(chan piece)
	for range workers() + 2 {
		buffers <- make([]byte, blockSize)
	}
	go func() {
		for {
			select {
			case b := <-buffers:
				n, err := io.ReadFull(r, b)
				select {
				case pieces <- piece{b[:n], err}:
				case <-ctx.Done():
					return
				}
				if err != nil {
					return
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	digest := sha256.New()
	var tar tarcheck.Check
	for !p.read {
		var b piece
		select {
		case b = <-pieces: // a source may block in Read after ctx is done, so read it in another goroutine
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		switch {
		case errors.Is(b.err, io.EOF), errors.Is(b.err, io.ErrUnexpectedEOF):
			p.read = true
		case b.err != nil:
			return fmt.Errorf("read the tar stream: %w", b.err)
		}
		if len(b.data) == 0 {
			break
		}
		p.s.seen.Add(int64(len(b.data)))
		digest.Write(b.data)
		if _, err := tar.Write(b.data); err != nil {
			return refused(p.m.Volume, err)
		}
		if p.digestOnly {
			buffers <- b.data[:blockSize]
			continue
		}
		if err := p.compress(b.data, buffers); err != nil {
			return err
		}
	}
	if p.m.Bytes = tar.Bytes; tar.Bytes == 0 {
		return nil
	}
	if err := tar.Close(); err != nil {
		return refused(p.m.Volume, err)
	}
	if tar.Outside != "" {
		return leadsOut(p.m.Volume, tar.Outside)
	}
	p.m.Entries, p.m.Content = tar.Entries, hex.EncodeToString(digest.Sum(nil))
	return p.finish()
}

// compress adds a block to the archive. The first block creates the archive's file.
func (p *packing) compress(block []byte, buffers chan<- []byte) error {
	if p.c == nil {
		d, err := p.s.Draft(p.m)
		if err != nil {
			return err
		}
		p.draft = d
		f, err := d.Create()
		if err != nil {
			return err
		}
		if p.c, err = newCompressor(f, p.s.recipients, buffers); err != nil {
			return err
		}
	}
	return p.c.add(block)
}

// finish waits until all blocks are compressed and written.
func (p *packing) finish() error {
	if p.c == nil {
		return nil
	}
	c := p.c
	p.c = nil
	if err := c.close(); err != nil {
		return err
	}
	p.m.SHA256, p.m.StoredBytes = hex.EncodeToString(c.sink.hash.Sum(nil)), c.sink.length
	return nil
}

// publish publishes the archive. asked is the tree that was passed to the source. If
// the source found the same tree, an empty stream means the content of base.
func (p *packing) publish(ctx context.Context, base *repository.Manifest, asked string, end ending) (unchanged bool, err error) {
	m := p.m
	empty := m.Bytes == 0
	if empty {
		if end.tree == "" || end.tree != asked {
			return false, refused(m.Volume, (&tarcheck.Check{}).Close())
		}
		m.Bytes, m.Entries, m.Content = base.Bytes, base.Entries, base.Content
	}
	m.Consistency, m.Tree = end.consistency, end.tree
	if base != nil && base.Bytes == m.Bytes && base.Content == m.Content {
		if unchanged, err = p.s.whole(ctx, base); err != nil {
			return false, err
		}
		if !unchanged && (empty || p.digestOnly) {
			return false, errBaseDamaged
		}
	}
	if unchanged {
		if err := p.link(base); err != nil {
			return false, err
		}
	}
	m.Finished = time.Now().UTC().Truncate(time.Millisecond)
	m.Verified = m.Finished
	if err := p.draft.Publish(); err != nil {
		return false, err
	}
	p.draft = nil
	return unchanged, nil
}

// link makes the archive a link to the file of base, which has the same content.
func (p *packing) link(base *repository.Manifest) error {
	if p.draft == nil {
		d, err := p.s.Draft(p.m)
		if err != nil {
			return err
		}
		p.draft = d
	}
	linked, err := p.draft.Link(base)
	if err != nil {
		return err
	}
	p.m.SHA256, p.m.StoredBytes = base.SHA256, base.StoredBytes
	if linked {
		p.m.LinkOf = cmp.Or(base.LinkOf, base.ID)
	}
	return nil
}

// whole reports whether an archive matches its manifest, and marks it as damaged if
// it does not. A link to a damaged file would be a second damaged backup.
func (s *store) whole(ctx context.Context, base *repository.Manifest) (bool, error) {
	wrong := s.Check(ctx, base)
	if wrong == nil {
		return true, nil
	}
	if ctx.Err() != nil {
		return false, context.Cause(ctx)
	}
	base.Damaged = wrong.Error()
	return false, s.Update(base)
}

// discard removes the files of an archive that was not published.
func (p *packing) discard() {
	if p.c != nil {
		_ = p.c.close() // the failure of the stream is already reported
		p.c = nil
	}
	if p.draft != nil {
		p.draft.Discard()
		p.draft = nil
	}
}

// refused returns the error for a stream that is not a complete archive.
func refused(volume string, err error) error {
	hint := "nothing was stored; see whether the program that writes the stream failed, and run it again"
	if other, ok := errors.AsType[*tarcheck.Foreign](err); ok {
		hint = fmt.Sprintf("convert it to tar: %s FILE | volbackup put %s", other.Unpack, volume)
	} else if errors.Is(err, tarcheck.ErrNoEndMark) {
		hint = fmt.Sprintf("if the archive is complete and its tar, such as busybox in a pipe, writes no end-of-archive mark, add the mark: (cat FILE; head -c 1024 /dev/zero) | volbackup put %s", volume)
	} else if errors.Is(err, tarcheck.ErrTrailing) {
		hint = fmt.Sprintf("if the stream is several archives in a row, convert them to one: mkdir D && tar -x --ignore-zeros -C D -f FILE && tar -C D -c . | volbackup put %s", volume)
	}
	return sysexits.New(sysexits.DataErr, "stream_refused", err).WithHint(hint)
}

// leadsOut returns the error for an archive with a name that GNU tar does not restore unchanged.
func leadsOut(volume, entry string) error {
	return sysexits.New(sysexits.DataErr, "stream_refused", fmt.Errorf("the archive has names that lead out of the volume, such as %.200q (tar -P), and could not be restored", entry)).
		WithHint(fmt.Sprintf("pack it again without them: mkdir D && tar -C D -xf FILE && tar -C D/PATH -c . | volbackup put %s, where PATH is the directory of the volume in the archive", volume))
}

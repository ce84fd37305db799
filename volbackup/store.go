package main

import (
	"context"
	"crypto/sha256"
	"io"
	"slices"
	"sync/atomic"
	"time"

	"filippo.io/age"

	"observability-hub/lib/cli"
)

// store is where and how archives are stored.
type store struct {
	*repository
	staging    string
	always     bool // stage whatever the source is
	reread     bool // a volume that has the same tree
	recipients []age.Recipient
	names      []string     // of the recipients
	seen       atomic.Int64 // bytes of the stream that is being stored
}

// source is a tar stream to be.
type source interface {
	// open starts it. It may deliver nothing if what it reads still has this tree.
	open(ctx context.Context, tree string) (io.Reader, error)
	// finish says, after its end, whether it is good.
	finish() (ending, error)
	// running reports whether it is under way before open.
	running() bool
	// waited reports whether a container may be down until all is read.
	waited() bool
	// reads returns the folder that it reads, empty if that is not known.
	reads() string
}

// ending is how a source ended.
type ending struct {
	consistency string
	tree        string // what it read, by its metadata; empty: not known
}

// put stores the stream of a source as the newest archive of m.Volume. m has
// what is known before; the rest is filled in. unchanged says that the newest
// archive had the same content.
func (s *store) put(ctx context.Context, m *manifest, src source) (unchanged bool, err error) {
	s.seen.Store(0)
	m.Version, m.Tool = manifestVersion, name+" "+cli.Version
	m.Time = time.Now().UTC().Truncate(time.Millisecond)
	m.ID = m.Time.Format(idLayout)
	m.Recipients = s.names
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)

	stage := s.always || src.waited()
	q := newQueue(s.staging, stage)
	defer q.close()
	stop := context.AfterFunc(ctx, func() { q.abort(context.Cause(ctx)) })
	defer stop()
	base, err := s.candidate(m.Volume)
	if err != nil {
		return false, err
	}
	if !src.running() {
		if err := s.checkRoom(m.Volume, base, src.reads(), stage); err != nil {
			return false, err
		}
	}
	if src.waited() { // while nothing is down yet
		if base, err = s.base(ctx, base); err != nil {
			return false, err
		}
	}
	tree := s.tree(base)
	r, err := src.open(ctx, tree)
	if err != nil {
		return false, err
	}
	go q.fill(ctx, r)
	p := &passage{s: s, q: q, stage: stage, m: m, base: base, hash: sha256.New(), own: newPrefixes()}
	defer p.discard()
	done := make(chan error)
	go func() {
		if stage {
			yield()
		}
		var err error
		if !src.waited() {
			p.base, err = s.base(ctx, base)
		}
		if err == nil {
			err = p.run()
		}
		done <- err
	}()
	err = <-done
	if err != nil {
		cancel(err)
		p.discard() // first, as the source may take longer than a run that is told to end has
	}
	end, ended := src.finish()
	if p.read && ended != nil {
		err = ended // why a stream ends early, its maker knows best
	}
	if err == nil && p.empty {
		err = p.sameTree(tree, end.tree)
	}
	if err != nil {
		return false, err
	}
	m.Consistency, m.Tree = end.consistency, end.tree
	return p.unchanged, p.publish()
}

// tree returns that of an archive, which is not read again if its volume still
// has it.
func (s *store) tree(base *manifest) string {
	if base == nil || s.reread {
		return ""
	}
	return base.Tree
}

// candidate returns the newest archive of a volume if it is for the same
// recipients, so that a new one may share its file once that proves whole.
func (s *store) candidate(volume string) (*manifest, error) {
	all, err := s.archives(volume)
	if err != nil {
		return nil, err
	}
	if m := newest(all, time.Now()); m != nil && slices.Equal(m.Recipients, s.names) {
		return m, nil
	}
	return nil, nil
}

// base returns the candidate if it is there and whole, and marks it if not.
func (s *store) base(ctx context.Context, candidate *manifest) (*manifest, error) {
	if candidate == nil {
		return nil, nil
	}
	base := *candidate
	if err := s.check(ctx, &base); err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		base.Damaged = err.Error()
		return nil, s.update(&base)
	}
	return candidate, nil
}

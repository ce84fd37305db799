package main

import (
	"bytes"
	"encoding/json"
	"hash"
	"os"
	"path/filepath"
)

// prefixes are digests of the beginnings of a content: of its first Step bytes,
// its first 2*Step bytes, and so on. As long as a new stream has the same, it is
// the old content, and nothing need be compressed. They cost nothing: a running
// SHA-256 can be asked at any time.
//
// The newest archive's are in the file .prefixes of its volume. Without it, or
// with a wrong one, an unchanged volume is seen at its end instead.
type prefixes struct {
	Content string   `json:"content_sha256"`
	Step    int64    `json:"step"`
	Sums    [][]byte `json:"sums"`
}

const (
	prefixesFile = ".prefixes"
	maxPrefixes  = 4096
)

func newPrefixes() *prefixes { return &prefixes{Step: blockSize} }

// add takes the hash of the first n bytes. Of a large content there are too
// many: then every second one goes.
func (p *prefixes) add(n int64, h hash.Hash) {
	if n%p.Step != 0 {
		return
	}
	p.Sums = append(p.Sums, h.Sum(nil))
	if len(p.Sums) < maxPrefixes {
		return
	}
	for i := range maxPrefixes / 2 {
		p.Sums[i] = p.Sums[2*i+1]
	}
	p.Sums, p.Step = p.Sums[:maxPrefixes/2], 2*p.Step
}

// at returns the digest of the first n bytes, nil if there is none.
func (p *prefixes) at(n int64) []byte {
	if n%p.Step != 0 || n/p.Step > int64(len(p.Sums)) || n == 0 {
		return nil
	}
	return p.Sums[n/p.Step-1]
}

// matches reports whether the first n bytes, of which h is the hash, are those
// of p; known is false if p has no digest there.
func (p *prefixes) matches(n int64, h hash.Hash) (same, known bool) {
	sum := p.at(n)
	return sum != nil && bytes.Equal(sum, h.Sum(nil)), sum != nil
}

// readPrefixes returns those of the content, nil if they are not there.
func (r *repository) readPrefixes(m *manifest) *prefixes {
	b, err := readSmall(filepath.Join(r.folder(m.Volume), prefixesFile))
	if err != nil {
		return nil
	}
	var p prefixes
	if json.Unmarshal(b, &p) != nil || p.Content != m.Content || p.Step < blockSize || p.Step%blockSize != 0 {
		return nil
	}
	return &p
}

// writePrefixes keeps those of a content. The archive is there by now: that they
// cannot be written, on a disk that is now full, fails nothing.
func (r *repository) writePrefixes(m *manifest, p *prefixes) {
	p.Content = m.Content
	b, err := json.Marshal(p)
	if err != nil {
		return
	}
	_ = replace(filepath.Join(r.folder(m.Volume), prefixesFile), b)
}

// dropPrefixes forgets them.
func (r *repository) dropPrefixes(volume string) {
	_ = os.Remove(filepath.Join(r.folder(volume), prefixesFile))
}

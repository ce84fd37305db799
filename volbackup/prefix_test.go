package main

import (
	"crypto/sha256"
	"testing"
)

// Of a large content there are fewer digests, farther apart, and those that are
// left are right.
func TestPrefixes(t *testing.T) {
	p, h := newPrefixes(), sha256.New()
	want := map[int64][sha256.Size]byte{}
	const blocks = 3*maxPrefixes + 4
	for i := range int64(blocks) {
		h.Write([]byte{byte(i)}) // stands for a block
		p.add((i+1)*blockSize, h)
		want[(i+1)*blockSize] = [sha256.Size]byte(h.Sum(nil))
	}
	if p.Step != 4*blockSize || len(p.Sums) != blocks/4 {
		t.Errorf("%d digests, %d bytes apart", len(p.Sums), p.Step)
	}
	for n := int64(0); n <= blocks*blockSize; n += blockSize {
		sum := p.at(n)
		if (sum != nil) != (n > 0 && n%p.Step == 0) {
			t.Fatalf("at %d: %x", n, sum)
		}
		if sum != nil && want[n] != [sha256.Size]byte(sum) {
			t.Fatalf("at %d: not the digest of the first %d bytes", n, n)
		}
	}
}

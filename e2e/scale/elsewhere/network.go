package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"observability-hub/e2e/link"
)

// Each volume has volumeBytes, of which a round replaces changedBytes.
const (
	volumeBytes  = 6 << 20
	changedBytes = 3 << 20
	// patience is --timeout of the runs whose network no longer answers. restic 0.14 retries for 15 minutes.
	patience = 10 * time.Second
)

// fault is a kind of bad network. It strikes at a random place: total is the number of bytes of a whole run.
type fault struct {
	name  string
	make  func(b *bench, total int64) link.Fault
	limit time.Duration // --timeout, 0 for the default
	flips bool
}

var faults = []fault{
	{name: "none", make: func(*bench, int64) link.Fault { return link.Fault{} }},
	{name: "every connection cut at random", make: func(b *bench, total int64) link.Fault {
		return link.Fault{CutAfter: total/4 + b.random.Int64N(total/2)}
	}, limit: 2 * patience},
	{name: "dead from a random byte on", make: func(b *bench, total int64) link.Fault { return link.Fault{DeadAfter: 1 + b.random.Int64N(total)} }, limit: patience},
	{name: "stalled from a random byte on", make: func(b *bench, total int64) link.Fault { return link.Fault{StallAfter: 1 + b.random.Int64N(total)} }, limit: patience},
	{name: "slow: 2 MB/s, 5 ms", make: func(*bench, int64) link.Fault { return link.Fault{Rate: 2 << 20, Delay: 5 * time.Millisecond} }},
	{name: "bits flipped on the way there", make: func(b *bench, total int64) link.Fault { return link.Fault{FlipUp: total / 4} }, limit: 2 * patience, flips: true},
	{name: "bits flipped on the way back", make: func(b *bench, total int64) link.Fault { return link.Fault{FlipDown: 20_000} }, limit: 2 * patience, flips: true},
}

// cell is a row of the table: a server and a fault.
type cell struct {
	outcomes, next, verified tally
	struck                   int64
	claimed, lost            int // backups that the faulty runs reported; those that were not there or not whole
	down                     int // containers that were down after a run
	longest                  time.Duration
	took                     time.Duration
}

func (c *cell) stopped() string {
	if c.longest == 0 {
		return "not stopped"
	}
	return fmt.Sprintf("%.1f s", c.longest.Seconds())
}

// network runs volbackup through each fault to each server.
func (b *bench) network(w io.Writer) error {
	if err := b.web1.container("database", "data"); err != nil {
		return err
	}
	rows := [][]string{{"server", "network", "struck", "exit status, events", "backups reported", "of them not whole", "containers left down", "longest stop", "next run", "verify --deep then"}}
	for _, s := range b.servers {
		if b.server != "" && b.server != s.name {
			continue
		}
		var total int64
		if err := b.newRepository(s); err != nil {
			return err
		}
		for _, f := range faults {
			if f.name != "none" && (b.fault != "" && !strings.Contains(f.name, b.fault) || s.name == "rest-tls" && !f.flips) {
				continue
			}
			c := &cell{}
			for round := range b.rounds {
				b.progress("%s, %s, round %d of %d", s.name, f.name, round+1, b.rounds)
				passed, err := b.round(c, s, f, total)
				if err != nil {
					return fmt.Errorf("%s, %s: %w", s.name, f.name, err)
				}
				if f.name == "none" {
					total = passed
				}
			}
			rows = append(rows, []string{s.name, f.name, fmt.Sprint(c.struck), c.outcomes.String(), fmt.Sprint(c.claimed), fmt.Sprint(c.lost), fmt.Sprint(c.down),
				c.stopped(), c.next.String(), c.verified.String()})
		}
	}
	fmt.Fprintf(w, "\nvolbackup run --engine restic of a volume of %d MB, of which %d MB changed; %d runs with each fault. --timeout is %v, or %v if connections are cut or changed:\n\n",
		volumeBytes>>20, changedBytes>>20, b.rounds, patience, 2*patience)
	markdown(w, rows)
	return nil
}

// newRepository gives the host an empty repository at the server.
func (b *bench) newRepository(s *server) error {
	s.repositories++
	_, err := b.web1.must(s.at(fmt.Sprint("web1-", s.repositories)), "restic init")
	return err
}

// round changes the volume, runs volbackup through the fault, checks what that run reported, and runs it again through the
// good network. It returns the number of bytes of the first run.
func (b *bench) round(c *cell, s *server, f fault, total int64) (passed int64, err error) {
	env := s.at(fmt.Sprint("web1-", s.repositories))
	h := b.web1
	if err := h.fill(b.random, "data", volumeBytes, changedBytes); err != nil {
		return 0, err
	}
	digest, err := h.digest("data")
	if err != nil {
		return 0, err
	}

	line := "volbackup run"
	if f.limit > 0 {
		line += fmt.Sprintf(" --timeout %v", f.limit)
	}
	before, err := h.lastStop("database")
	if err != nil {
		return 0, err
	}
	s.link.Set(f.make(b, max(total, 1<<20)))
	r, err := h.try(env, line)
	passed, struck := s.link.Set(link.Fault{})
	if err != nil {
		return passed, err
	}
	if b.verbose {
		b.progress("%d after %.1f s, %d bytes, struck %d\n%s%s", r.status, r.took.Seconds(), passed, struck, r.stdout, r.stderr)
	}
	c.struck += struck
	c.took = max(c.took, r.took)
	c.outcomes.add(r.failure())
	if !slices.Contains([]int{0, 11, 69, 75}, r.status) && !(f.flips && (r.status == 1 || r.status == 65)) {
		b.wrong("%s, %s: exit status %d: %s", s.name, f.name, r.status, r.stderr)
	}
	if f.name == "none" && r.status != 0 {
		b.wrong("%s without a fault: exit status %d: %s", s.name, r.status, r.stderr)
	}
	if r.status != 0 && r.failure() == fmt.Sprint(r.status) {
		b.wrong("%s, %s: exit status %d without an error on stderr", s.name, f.name, r.status)
	}
	down, err := h.down()
	if err != nil {
		return passed, err
	}
	if c.down += len(down); len(down) > 0 {
		b.wrong("%s, %s: %s", s.name, f.name, strings.Join(down, ", "))
	}
	after, err := h.lastStop("database")
	if err != nil {
		return passed, err
	}
	if after != before { // else the run did not stop it
		c.longest = max(c.longest, after.to.Sub(after.from))
	}

	// What the run reported must be there.
	for _, one := range r.records() {
		if one.Msg != "backed_up" || one.Outcome != "stored" {
			continue
		}
		c.claimed++
		whole, err := b.whole(h, env, one.Volume, one.ID, digest)
		if err != nil {
			return passed, err
		}
		if whole {
			continue
		}
		c.lost++
		if !(s.plain && f.flips) {
			b.wrong("%s, %s: %s@%s is reported, but not whole", s.name, f.name, one.Volume, one.ID)
		}
	}

	// The next run must succeed by itself.
	next, err := h.try(env, "volbackup run")
	if err != nil {
		return passed, err
	}
	c.next.add(next.failure())
	verified, err := h.try(env, "volbackup verify --deep")
	if err != nil {
		return passed, err
	}
	c.verified.add(verified.failure())
	if s.plain && f.flips { // verify has to find the damage, and the manual says how to repair it
		if verified.status == 65 {
			repaired, err := b.repair(s, env)
			if err != nil {
				return passed, err
			}
			c.verified.add("repaired: " + repaired.failure())
		}
		return passed, b.newRepository(s)
	}
	if next.status != 0 || verified.status != 0 {
		b.wrong("%s, %s: next run %d, verify --deep %d: %s%s", s.name, f.name, next.status, verified.status, next.stderr, verified.stderr)
		return passed, b.newRepository(s)
	}
	if whole, err := b.whole(h, env, "data", "", digest); err != nil || !whole {
		b.wrong("%s, %s: the newest backup is not the volume after the next run: %v", s.name, f.name, err)
	}
	return passed, nil
}

// repair removes the damaged packs, as volbackup(1) says for restic before version 0.17, and returns the result of verify.
func (b *bench) repair(s *server, env []string) (result, error) {
	h := b.web1
	found, err := h.try(env, `restic check --read-data 2>&1 | grep -o 'want [0-9a-f]\{64\}' | cut -c 6- | sort -u`)
	if err != nil {
		return found, err
	}
	for id := range strings.Lines(found.stdout) {
		id = strings.TrimSpace(id)
		if err := os.Remove(filepath.Join(s.dir, fmt.Sprint("web1-", s.repositories), "data", id[:2], id)); err != nil {
			return found, err
		}
	}
	// The earlier snapshots are forgotten: each may miss a part of its content.
	for _, line := range []string{"restic rebuild-index", "restic snapshots --json | jq -r '.[].id' | xargs -r restic forget", "volbackup run", "volbackup run"} {
		r, err := h.try(env, line)
		if err != nil {
			return r, err
		}
		if b.verbose {
			b.progress("%s: %d\n%s%s", line, r.status, r.stdout, r.stderr)
		}
	}
	return h.try(env, "volbackup verify --deep")
}

// whole reports whether a backup has exactly the content of the volume.
func (b *bench) whole(h *host, env []string, volume, id, digest string) (bool, error) {
	if id != "" {
		volume += "@" + id
	}
	r, err := h.try(env, "volbackup cat "+volume+" | sha256sum")
	if err != nil {
		return false, err
	}
	if b.verbose && r.status != 0 {
		b.progress("cat %s: %d %s", volume, r.status, r.stderr)
	}
	return r.status == 0 && strings.TrimSpace(r.stdout) == digest, nil
}

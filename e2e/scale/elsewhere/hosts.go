package main

import (
	"fmt"
	"io"
	"sync"
	"time"

	"observability-hub/e2e/link"
)

// hosts lets web2 verify and restore what web1 backed up, and both hosts back up into one repository at the same time.
func (b *bench) hosts(w io.Writer) error {
	rows := [][]string{{"server", "list", "verify --deep", "restore", "equal to web1's volume"}}
	both := [][]string{{"server", "repository", "web1", "web2", "containers left down", "next run, one after the other"}}
	for i, h := range []*host{b.web1, b.web2} {
		if err := h.container("shared", fmt.Sprintf("web%d_data", i+1)); err != nil {
			return err
		}
	}
	for _, s := range b.servers {
		if b.server != "" && b.server != s.name || s.name == "rest-tls" {
			continue
		}
		b.progress("%s: a second host", s.name)
		env := s.at("shared")
		if _, err := b.web1.must(env, "restic init"); err != nil {
			return err
		}
		if err := b.web1.fill(b.random, "web1_data", volumeBytes, volumeBytes); err != nil {
			return err
		}
		if _, err := b.web1.must(env, "volbackup run web1_data"); err != nil {
			return err
		}
		digest, err := b.web1.digest("web1_data")
		if err != nil {
			return err
		}
		row := []string{s.name}
		for _, line := range []string{"volbackup list | jq -e 'select(.host == \"web1\" and .volume == \"web1_data\")'", "volbackup verify --deep", "volbackup restore web1_data"} {
			r, err := b.web2.try(env, line)
			if err != nil {
				return err
			}
			if r.status != 0 {
				b.wrong("%s: on web2: %s: %d %s", s.name, line, r.status, r.stderr)
			}
			row = append(row, fmt.Sprintf("%s (%.1f s)", r.failure(), r.took.Seconds()))
		}
		restored, err := b.web2.digest("web1_data")
		if err != nil {
			return err
		}
		if restored != digest {
			b.wrong("%s: web2 restored another content", s.name)
		}
		rows = append(rows, append(row, yes(restored == digest)))

		if len(both) > 1 { // restic's locks do not depend on the server
			continue
		}
		for _, shared := range []bool{true, false} {
			row, err := b.together(s, shared)
			if err != nil {
				return err
			}
			both = append(both, row)
		}
	}
	fmt.Fprintf(w, "\nA second host, with nothing but the repository's location, its password and the access to the server:\n\n")
	markdown(w, rows)
	fmt.Fprintf(w, "\nTwo hosts run volbackup at the same time, %d times:\n\n", b.pairs())
	markdown(w, both)
	return nil
}

func (b *bench) pairs() int { return 2 * b.rounds }

// together runs volbackup on both hosts at the same time, in one repository or in two.
func (b *bench) together(s *server, shared bool) ([]string, error) {
	hosts := []*host{b.web1, b.web2}
	envs := [][]string{s.at("shared"), s.at("shared")}
	name := "one for both"
	if !shared {
		name = "one for each"
		for i, h := range hosts {
			envs[i] = s.at("only-" + h.name)
			if _, err := h.must(envs[i], "restic init"); err != nil {
				return nil, err
			}
		}
	}
	var outcomes [2]tally
	var next tally
	down := 0
	for range b.pairs() {
		b.progress("%s: two hosts at once, %s", s.name, name)
		for i, h := range hosts {
			if err := h.fill(b.random, fmt.Sprintf("web%d_data", i+1), volumeBytes, changedBytes); err != nil {
				return nil, err
			}
		}
		var results [2]result
		var errs [2]error
		var all sync.WaitGroup
		for i, h := range hosts {
			all.Go(func() { results[i], errs[i] = h.try(envs[i], fmt.Sprintf("volbackup run web%d_data", i+1)) })
		}
		all.Wait()
		for i, h := range hosts {
			if errs[i] != nil {
				return nil, errs[i]
			}
			outcomes[i].add(results[i].failure())
			if results[i].status != 0 && (results[i].status != 75 || !shared) {
				b.wrong("%s, %s: %s: %d %s", s.name, name, h.name, results[i].status, results[i].stderr)
			}
			names, err := h.down()
			if err != nil {
				return nil, err
			}
			if down += len(names); len(names) > 0 {
				b.wrong("%s: %v", s.name, names)
			}
		}
		for i, h := range hosts {
			r, err := h.try(envs[i], fmt.Sprintf("volbackup run web%d_data", i+1))
			if err != nil {
				return nil, err
			}
			if next.add(r.failure()); r.status != 0 {
				b.wrong("%s, %s: next run of %s: %d %s", s.name, name, h.name, r.status, r.stderr)
			}
		}
	}
	return []string{s.name, name, outcomes[0].String(), outcomes[1].String(), fmt.Sprint(down), next.String()}, nil
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// measured runs a line on a host and returns the number of bytes that pass through the link of the server.
func (b *bench) measured(s *server, h *host, env []string, line string) (bytes int64, took time.Duration, err error) {
	s.link.Set(link.Fault{})
	began := time.Now()
	_, err = h.must(env, line)
	took = time.Since(began)
	bytes, _ = s.link.Set(link.Fault{})
	return bytes, took, err
}

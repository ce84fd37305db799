package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"observability-hub/e2e/workspace"
)

// fleet is a number of simulated hosts. Each runs sysmetrics as the unit does, with its own name and state directory.
type fleet struct {
	hosts    []*host
	dir      string
	stopping chan struct{}
	once     sync.Once
	running  sync.WaitGroup
}

type host struct {
	name, state, url, tool string

	mu   sync.Mutex
	runs []run
}

// run is one run of sysmetrics collect --flush, which takes one sample.
type run struct {
	began, ended time.Time
	status       int
	flushed      flushed
	stderr       string
}

// flushed is the record that a run prints.
type flushed struct {
	Inserted, Duplicates, Rejected, Spooled, Dropped, Lost int
	SpoolBytes                                             int `json:"spool_bytes"`
}

func (f flushed) incomplete() bool { return f.Rejected+f.Dropped+f.Lost > 0 }

const (
	exitUnavailable = 69
	// The timeout of system-metrics.service.
	timeout = "7s"
)

// startFleet starts the hosts. Their samples are spread over the period. Every second host tries the servers in the other order.
func startFleet(s *site, n int, period time.Duration) (*fleet, error) {
	tool, err := workspace.Binary("sysmetrics")
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "hub-failover-")
	if err != nil {
		return nil, err
	}
	f := &fleet{dir: dir, stopping: make(chan struct{})}
	for i := range n {
		name := fmt.Sprintf("host%03d", i)
		f.hosts = append(f.hosts, &host{name: name, state: filepath.Join(dir, name), url: s.url(i), tool: tool})
	}
	for i, h := range f.hosts {
		first := time.After(period * time.Duration(i) / time.Duration(n))
		f.running.Go(func() {
			select {
			case <-first:
			case <-f.stopping:
				return
			}
			tick := time.NewTicker(period)
			defer tick.Stop()
			for {
				h.sample()
				select {
				case <-tick.C:
				case <-f.stopping:
					return
				}
			}
		})
	}
	return f, nil
}

// sample runs the tool once, and keeps the result.
func (h *host) sample() {
	r := h.exec("collect", "--flush", "--host", h.name)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.runs = append(h.runs, r)
}

func (h *host) exec(args ...string) run {
	cmd := exec.Command(h.tool, append(args, "--timeout", timeout)...)
	cmd.Env = []string{"PATH=/usr/bin:/bin", "HOME=" + h.state, "SYSMETRICS_STATE_DIR=" + h.state, "DATABASE_URL=" + h.url}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	r := run{began: time.Now()}
	err := cmd.Run()
	r.ended, r.stderr = time.Now(), stderr.String()
	if err == nil {
		err = json.Unmarshal(stdout.Bytes(), &r.flushed)
	} else {
		_ = json.Unmarshal(stdout.Bytes(), &r.flushed) // a killed run prints nothing
	}
	r.status = cmd.ProcessState.ExitCode()
	if r.status == 0 && err != nil {
		r.status, r.stderr = -1, err.Error()
	}
	return r
}

// stop ends the timers and returns after the last run has ended.
func (f *fleet) stop() {
	f.once.Do(func() { close(f.stopping) })
	f.running.Wait()
}

// drain inserts what still waits in the spools, and removes the hosts' state.
func (f *fleet) drain() error {
	for _, h := range f.hosts {
		r := h.exec("flush")
		if r.status != 0 || r.flushed.SpoolBytes != 0 {
			return fmt.Errorf("%s: the last flush exits with %d, and %d bytes are spooled: %s", h.name, r.status, r.flushed.SpoolBytes, r.stderr)
		}
		h.mu.Lock()
		h.runs = append(h.runs, run{flushed: r.flushed})
		h.mu.Unlock()
	}
	return os.RemoveAll(f.dir)
}

// awaitDelivery returns when the last host has delivered everything in a run that began after t, and the time of that.
func (f *fleet) awaitDelivery(t time.Time) (last time.Time, err error) {
	deadline := time.Now().Add(time.Minute)
	for _, h := range f.hosts {
		for {
			at := h.delivered(t)
			if !at.IsZero() {
				if at.After(last) {
					last = at
				}
				break
			}
			if time.Now().After(deadline) {
				return last, fmt.Errorf("%s delivers nothing a minute after the promotion: %s", h.name, h.lastWords())
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
	return last, nil
}

func (h *host) delivered(after time.Time) time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, r := range h.runs {
		if r.began.After(after) && r.status == 0 && r.flushed.SpoolBytes == 0 {
			return r.ended
		}
	}
	return time.Time{}
}

func (h *host) lastWords() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.runs) == 0 {
		return "no run"
	}
	return strings.TrimSpace(h.runs[len(h.runs)-1].stderr)
}

// unexpected returns an error for each run that ended in a way that a failover does not explain.
func (f *fleet) unexpected() error {
	var errs []error
	for _, h := range f.hosts {
		for _, r := range h.runs {
			if r.status != 0 && r.status != exitUnavailable || r.flushed.incomplete() {
				errs = append(errs, fmt.Errorf("%s: exit status %d, %+v: %s", h.name, r.status, r.flushed, r.stderr))
			}
		}
	}
	return errors.Join(errs...)
}

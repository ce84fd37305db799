package main

import (
	"context"
	"net"
	"net/http"
	"sync"
	"time"
)

// quiet tells when there was no connection for a while.
type quiet struct {
	over chan struct{} // is closed then

	mu    sync.Mutex
	open  map[net.Conn]http.ConnState
	ended bool
	after time.Duration
	timer *time.Timer
	moved chan struct{} // gets something whenever a connection has ended
}

// newQuiet returns a quiet of that length, which never comes if it is zero.
func newQuiet(after time.Duration) *quiet {
	q := &quiet{over: make(chan struct{}), open: map[net.Conn]http.ConnState{}, after: after, moved: make(chan struct{}, 1)}
	if after > 0 {
		q.timer = time.AfterFunc(after, q.end)
	}
	return q
}

// end is called when the timer fires, perhaps while it is being stopped.
func (q *quiet) end() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.open) == 0 && !q.ended {
		q.ended = true
		close(q.over)
	}
}

// note is http.Server's hook for connections that begin and end.
func (q *quiet) note(c net.Conn, state http.ConnState) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if state == http.StateClosed || state == http.StateHijacked {
		delete(q.open, c)
		select {
		case q.moved <- struct{}{}:
		default:
		}
	} else {
		q.open[c] = state
	}
	if q.timer == nil {
		return
	}
	if q.timer.Stop(); len(q.open) == 0 {
		q.timer.Reset(q.after)
	}
}

// wait returns when every connection has ended. When ctx is done it waits for
// those alone from which a call has come, and not for longer than most.
func (q *quiet) wait(ctx context.Context, most time.Duration) {
	stopped, limit := ctx.Done(), (<-chan time.Time)(nil)
	for q.count(ctx.Err() != nil) > 0 {
		select {
		case <-q.moved:
		case <-stopped:
			stopped, limit = nil, time.After(most)
		case <-limit:
			return
		}
	}
}

// count returns how many connections there are, or only those with a call.
func (q *quiet) count(called bool) (n int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, state := range q.open {
		if !called || state == http.StateActive {
			n++
		}
	}
	return n
}

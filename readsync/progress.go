package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"observability-hub/lib/cli"
)

// progress is the line that a run shows on a terminal: documents, rate, time left.
type progress struct {
	began, shown time.Time
	total, done  int64
	off          bool
}

// newProgress counts the documents, if stderr is a terminal.
func newProgress(ctx context.Context, env *cli.Env, s *source) *progress {
	p := &progress{began: time.Now(), off: !env.Diag.Terminal}
	if p.off {
		return p
	}
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	// If the count fails, the line does not show the time left.
	p.total, _ = s.count(ctx, bson.D{{Key: "status", Value: statusIngested}})
	return p
}

// at updates the line to n documents, at most twice a second.
func (p *progress) at(n int64) {
	if p.done = n; p.off || time.Since(p.shown) < 500*time.Millisecond {
		return
	}
	p.shown = time.Now()
	rate := float64(n) / max(p.shown.Sub(p.began).Seconds(), 0.001)
	text := fmt.Sprintf("%s: %d documents, %.0f a second", name, n, rate)
	if p.total > n && rate > 0 {
		left := time.Duration(float64(p.total-n) / rate * float64(time.Second))
		text = fmt.Sprintf("%s: %d of %d documents, %.0f a second, %v left", name, n, p.total, rate, left.Round(time.Second))
	}
	fmt.Fprintf(os.Stderr, "\r\x1b[K%s", text) // an error cannot be reported if stderr fails
}

// end removes the line.
func (p *progress) end() {
	if !p.off && !p.shown.IsZero() {
		fmt.Fprint(os.Stderr, "\r\x1b[K")
	}
}

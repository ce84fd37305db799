package main

import (
	"context"
	"fmt"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"observability-hub/lib/cli"
	"observability-hub/lib/diag"
)

// progress is the line that a run shows on a terminal: documents, rate, time left.
type progress struct {
	began, shown time.Time
	total, done  int64
	off          bool
	diag         *diag.Logger
}

// newProgress counts the documents, if stderr is a terminal.
func newProgress(ctx context.Context, env *cli.Env, s *source) *progress {
	p := &progress{began: time.Now(), off: !env.Diag.Terminal, diag: env.Diag}
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
	text := fmt.Sprintf("%d documents, %.0f a second", n, rate)
	if p.total > n && rate > 0 {
		left := time.Duration(float64(p.total-n) / rate * float64(time.Second))
		text = fmt.Sprintf("%d of %d documents, %.0f a second, %v left", n, p.total, rate, left.Round(time.Second))
	}
	p.diag.Progress(text)
}

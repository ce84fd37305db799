package main

import (
	"fmt"
	"time"

	"observability-hub/lib/cli"
)

// progress shows on a terminal how many bytes are done. total is the number of all
// bytes, 0 if it is unknown. The caller calls end to remove the line.
func progress(env *cli.Env, what string, total int64, done func() int64) (end func()) {
	if !env.Diag.Terminal {
		return func() {}
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		begun := time.Now()
		defer env.Diag.EndProgress()
		tick := time.NewTicker(500 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case now := <-tick.C:
				env.Diag.Progress(progressText(what, done(), total, now.Sub(begun)))
			}
		}
	}()
	return func() {
		close(stop)
		<-stopped
	}
}

// progressText returns what the line says.
func progressText(what string, done, total int64, took time.Duration) string {
	const mib, longest = 1 << 20, 32 // longest limits what
	if len(what) > longest {
		what = what[:longest-3] + "..."
	}
	rate := float64(done) / mib / max(took.Seconds(), 0.001)
	line := fmt.Sprintf("%s: %d MiB, %.0f MiB/s", what, done/mib, rate)
	if total > 0 {
		line = fmt.Sprintf("%s: %d of %d MiB, %.0f MiB/s", what, done/mib, total/mib, rate)
		if left := total - done; left > 0 && done > 0 {
			rest := time.Duration(float64(took) * float64(left) / float64(done))
			line += fmt.Sprintf(", %v left", rest.Round(time.Second))
		}
	}
	return line
}

// progressed returns how many bytes of the current stream have been read.
func (s *store) progressed() int64 {
	if spool := s.spool.Load(); spool != nil {
		if info, err := spool.Stat(); err == nil {
			return info.Size()
		}
	}
	return s.seen.Load()
}

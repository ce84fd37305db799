package main

import (
	"fmt"
	"io"
	"time"

	"observability-hub/lib/cli"
)

// progress shows on a terminal, in one line that is written over, how much of a
// volume is read. It returns how to end that.
func (s *store) progress(env *cli.Env, volume string) (end func()) {
	if !env.Diag.Terminal {
		return func() {}
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		begun := time.Now()
		tick := time.NewTicker(500 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				io.WriteString(env.Diag.W, "\r\x1b[K") // nowhere is left to report a failing stderr
				return
			case now := <-tick.C:
				mib := float64(s.progressed()) / (1 << 20)
				fmt.Fprintf(env.Diag.W, "\r\x1b[K%s: %s: %.0f MiB, %.0f MiB/s", env.Name, volume, mib, mib/now.Sub(begun).Seconds())
			}
		}
	}()
	return func() {
		close(stop)
		<-stopped
	}
}

// progressed returns how much is read of the stream that is being stored.
func (s *store) progressed() int64 {
	if spool := s.spool.Load(); spool != nil {
		if info, err := spool.Stat(); err == nil {
			return info.Size()
		}
	}
	return s.seen.Load()
}

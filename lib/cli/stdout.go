package cli

import (
	"fmt"
	"os"

	"observability-hub/lib/journal"
	"observability-hub/lib/sysexits"
)

// Stdout is the stream of records. Each Write is one write(2). Stdout keeps the
// first error, so that the run fails on a full disk even if a caller ignores the
// error.
type Stdout struct {
	f   *os.File
	err error
}

func (s *Stdout) Write(p []byte) (int, error) {
	n, err := s.f.Write(p)
	if err != nil {
		err = sysexits.New(sysexits.CantCreate, "output_failed", fmt.Errorf("write stdout: %w", err))
		if s.err == nil {
			s.err = err
		}
	}
	return n, err
}

// Record writes lines that package record built. If stdout is the journal's
// stream, it adds the priority prefix of level.
func (s *Stdout) Record(level string, lines []byte) error {
	if prefix := journal.Prefix(level); prefix != "" && journal.Connected(s.f) {
		lines = append([]byte(prefix), lines...)
	}
	_, err := s.Write(lines)
	return err
}

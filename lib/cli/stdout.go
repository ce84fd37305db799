package cli

import (
	"fmt"
	"os"

	"observability-hub/lib/journal"
	"observability-hub/lib/sysexits"
)

// Stdout is the stream of records. Each Write is one write(2); the first
// failure is kept, so that output lost to a full disk fails the run even
// where nobody looked at the error.
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

// Record writes lines that package record made, with the priority of level
// if stdout is the journal's stream.
func (s *Stdout) Record(level string, lines []byte) error {
	if prefix := journal.Prefix(level); prefix != "" && journal.Connected(s.f) {
		lines = append([]byte(prefix), lines...)
	}
	_, err := s.Write(lines)
	return err
}

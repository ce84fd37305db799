package cli

import (
	"fmt"
	"io"
	"os"

	"observability-hub/lib/diag"
	"observability-hub/lib/journal"
	"observability-hub/lib/sysexits"
)

// Stdout is the stream of records. Each Write is one write(2). Stdout keeps the
// first error, so that the run fails on a full disk even if a caller ignores the
// error.
type Stdout struct {
	f    *os.File
	err  error
	view Viewer // shows records instead, on a terminal
}

// Viewable is implemented by a command that can show its records to a person. Main
// calls it if stdout is a terminal. If it returns nil, the records are printed.
type Viewable interface {
	Viewer(terminal io.Writer) Viewer
}

// Viewer shows records: View any number of times, then Close.
type Viewer interface {
	View(lines []byte) error
	Close() error
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
// stream, it adds the priority prefix of level. On a terminal the command's
// [Viewer] shows them.
func (s *Stdout) Record(level string, lines []byte) error {
	if s.view != nil {
		return s.view.View(lines)
	}
	if prefix := journal.Prefix(level); prefix != "" && journal.Connected(s.f) {
		lines = append([]byte(prefix), lines...)
	}
	_, err := s.Write(lines)
	return err
}

// show lets a command show its records, if it can and stdout is a terminal.
func (s *Stdout) show(command any) {
	if c, ok := command.(Viewable); ok && diag.IsTerminal(s.f) {
		s.view = c.Viewer(s)
	}
}

// close ends what show began.
func (s *Stdout) close() error {
	if s.view == nil {
		return nil
	}
	return s.view.Close()
}

package main

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"sync"

	"observability-hub/lib/diag"
)

// said reads the stderr of a program. It prints warnings immediately, and keeps the
// last error for the message about the program's failure.
type said struct {
	Diag *diag.Logger // nil: print nothing

	mu    sync.Mutex
	part  []byte // an incomplete line
	error string // the last error, else the last line
	hint  string
	event string          // of the last error, if it was a JSON record of the toolkit
	seen  map[string]bool // events
	down  float64         // for how many seconds containers were down
}

// containersUp is the event with which manage_volume.sh says how long containers were
// down. It prints the event when they run again.
const containersUp = "containers_up"

// maxSaid limits the length of a line. A longer line is split.
const maxSaid = 8 << 10

func (s *said) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.part = append(s.part, p...)
	for {
		line, rest, ok := bytes.Cut(s.part, []byte("\n"))
		if !ok && len(s.part) <= maxSaid {
			return len(p), nil
		}
		if !ok {
			line, rest = s.part[:maxSaid], s.part[maxSaid:]
		}
		s.line(strings.TrimSpace(string(line)))
		s.part = append([]byte(nil), rest...)
	}
}

// line processes one line of manage_volume.sh or of any other program.
func (s *said) line(line string) {
	if line == "" {
		return
	}
	var envelope struct {
		Level, Msg, Detail, Error, Hint string
		Downtime                        float64 `json:"downtime_s"`
	}
	if json.Unmarshal([]byte(line), &envelope) != nil || envelope.Msg == "" {
		if s.event == "" {
			s.error = line
		}
		if s.Diag != nil {
			s.Diag.Warn("command_message", line)
		}
		return
	}
	if s.seen == nil {
		s.seen = map[string]bool{}
	}
	s.seen[envelope.Msg] = true
	switch {
	case envelope.Msg == containersUp: // part of the record of the backup
		s.down += envelope.Downtime
	case envelope.Level == "ERROR":
		s.error, s.hint, s.event = envelope.Error, envelope.Hint, envelope.Msg
	case s.Diag == nil:
	case envelope.Level == "WARN":
		s.Diag.Warn("command_message", envelope.Msg+": "+envelope.Detail)
	default:
		s.Diag.Debug("command_message", envelope.Msg+": "+envelope.Detail)
	}
}

// passOn prints the last error of a program that succeeded, as a warning. For
// example, if a container does not start again, the backup is kept, but the
// problem must be reported.
func (s *said) passOn() {
	if text, hint := s.last(); s.event != "" && s.Diag != nil {
		if hint != "" {
			text += " (" + hint + ")"
		}
		s.Diag.Warn("command_message", text)
	}
}

// saw reports whether the program printed one of these events.
func (s *said) saw(events ...string) bool {
	s.last()
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(events, func(e string) bool { return s.seen[e] })
}

// last returns the last error or line of the program, and its hint.
func (s *said) last() (text, hint string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.part) > 0 {
		s.line(strings.TrimSpace(string(s.part)))
		s.part = nil
	}
	return s.error, s.hint
}

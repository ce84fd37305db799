package main

import (
	"bytes"

	"observability-hub/lib/diag"
)

// fetchProgress shows the progress of git fetch on a terminal.
type fetchProgress struct {
	diag *diag.Logger
	line []byte // the line that git is writing
}

// Write receives the stderr of git. In it, \r ends a line that the next line
// overwrites.
func (p *fetchProgress) Write(b []byte) (int, error) {
	for _, c := range b {
		if c != '\r' && c != '\n' {
			p.line = append(p.line, c)
			continue
		}
		if isProgress(p.line) {
			p.diag.Progress(string(p.line))
		}
		p.line = p.line[:0]
	}
	return len(b), nil
}

// isProgress reports whether a line is about the progress of a fetch. The prefixes
// are those of git 2.11 to 2.50.
func isProgress(line []byte) bool {
	line = bytes.TrimPrefix(line, []byte("remote: "))
	for _, prefix := range []string{"Enumerating objects:", "Counting objects:", "Compressing objects:", "Receiving objects:", "Unpacking objects:", "Resolving deltas:", "Checking connectivity:", "Total "} {
		if bytes.HasPrefix(line, []byte(prefix)) {
			return true
		}
	}
	return false
}

// withoutProgress returns the messages that git prints with --quiet. It removes the
// progress and the list of the fetched refs.
func withoutProgress(messages []byte) []byte {
	var kept []byte
	for line := range bytes.Lines(bytes.ReplaceAll(messages, []byte("\r"), []byte("\n"))) {
		fetched := bytes.HasPrefix(line, []byte("From ")) || bytes.HasPrefix(line, []byte(" ")) && !bytes.HasPrefix(line, []byte(" ! "))
		if !isProgress(line) && !fetched && len(bytes.TrimSpace(line)) > 0 {
			kept = append(kept, line...)
		}
	}
	return kept
}

// Package journal tells whether a stream goes to the systemd journal and
// gives the syslog prefix that the journal turns into a priority.
package journal

import (
	"fmt"
	"os"
	"syscall"

	"observability-hub/lib/record"
)

// Connected reports whether f is the journal's stream: whether its device and
// inode are those that systemd names in JOURNAL_STREAM (systemd.exec(5)).
// A pipe or file that the caller put in its place has others.
func Connected(f *os.File) bool {
	want := os.Getenv("JOURNAL_STREAM")
	if want == "" {
		return false
	}
	info, err := f.Stat()
	if err != nil {
		return false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && want == fmt.Sprintf("%d:%d", st.Dev, st.Ino)
}

// Prefix returns the sd-daemon(3) prefix for a level: WARN and ERROR have
// one, the rest keep the priority that the unit sets.
func Prefix(level string) string {
	switch level {
	case record.Warn:
		return "<4>"
	case record.Error:
		return "<3>"
	}
	return ""
}

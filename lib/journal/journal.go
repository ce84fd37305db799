// Package journal detects whether a stream is connected to the systemd journal. It
// also provides the syslog prefix that the journal turns into a priority.
package journal

import (
	"fmt"
	"os"
	"syscall"

	"observability-hub/lib/record"
)

// Connected reports whether f is the journal's stream: whether f has the device
// and inode that systemd puts into JOURNAL_STREAM (systemd.exec(5)). A pipe or
// file to which the caller redirected f has another device or inode.
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

// Prefix returns the sd-daemon(3) prefix for a level. It is empty for levels other
// than WARN and ERROR: these lines keep the priority that the unit sets.
func Prefix(level string) string {
	switch level {
	case record.Warn:
		return "<4>"
	case record.Error:
		return "<3>"
	}
	return ""
}

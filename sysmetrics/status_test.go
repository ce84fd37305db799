package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"observability-hub/lib/cli"
	"observability-hub/lib/mantest"
	"observability-hub/lib/sysexits"
)

func TestCountRecords(t *testing.T) {
	const line = `{"time":"2026-01-02T03:04:05.678Z","host":"web1","metric_type":"cpu","payload":{}}` + "\n"
	at := time.Date(2026, 1, 2, 3, 4, 5, 678e6, time.UTC)
	for _, c := range []struct {
		name, content string
		records       int64
		oldest        time.Time
	}{
		{"no record", "", 0, time.Time{}},
		{"one", line, 1, at},
		{"more than the buffer holds", strings.Repeat(line, 20000), 20000, at},
		{"half a record at the end", line + line[:20], 1, at},
		{"nothing but half a record", line[:20], 0, time.Time{}},
		{"a first line that is not a record", "junk\n" + line, 2, time.Time{}},
		{"a first line that is too long", strings.Repeat("x", maxRecord+1) + "\n" + line, 2, time.Time{}},
	} {
		path := filepath.Join(t.TempDir(), spoolFile)
		if err := os.WriteFile(path, []byte(c.content), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := countRecords(path)
		if err != nil || got.records != c.records || !got.oldest.Equal(c.oldest) {
			t.Errorf("%s: %+v, %v; want %d records, the oldest of %v", c.name, got, err, c.records, c.oldest)
		}
		if c.records > 0 && got.bytes != int64(len(c.content)) {
			t.Errorf("%s: %d bytes; want %d", c.name, got.bytes, len(c.content))
		}
	}
	if got, err := countRecords(filepath.Join(t.TempDir(), "missing")); err != nil || got.records != 0 {
		t.Errorf("a missing file: %+v, %v; want an empty queue", got, err)
	}
	if _, err := countRecords(t.TempDir()); err == nil {
		t.Error("a directory in the place of the file is not an error")
	}
}

func TestStatus(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{
		spoolFile:    `{"time":"2026-01-02T03:04:05.678Z"}` + "\n{}\n",
		rejectedFile: "{}\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got := mantest.Stdout(t, app(), "status", "--state-dir", dir)
	for _, want := range []string{`"msg":"spool_status"`, `"spooled":2,"spool_bytes":39,"oldest_age_s":`, `"rejected":1}`} {
		if !strings.Contains(got, want) {
			t.Errorf("status printed %s; it lacks %s", got, want)
		}
	}
	// The state of no run at all is an error, not an empty spool.
	missing := filepath.Join(dir, "missing")
	err := (&statusCmd{StateDir: missing}).Run(t.Context(), &cli.Env{App: app()})
	if e, ok := errors.AsType[*sysexits.Error](err); !ok || e.Event != "no_state_directory" {
		t.Errorf("status of a missing directory: %v", err)
	}
}

package main

import (
	"strings"
	"testing"
	"time"

	"observability-hub/lib/cli"
	"observability-hub/lib/diag"
)

func TestProgressText(t *testing.T) {
	for _, tc := range []struct {
		what        string
		done, total int64
		took        time.Duration
		want        string
	}{
		{"db", 5 << 20, 0, time.Second, "db: 5 MiB, 5 MiB/s"},
		{"db", 0, 0, 0, "db: 0 MiB, 0 MiB/s"},
		{"restore db", 100 << 20, 1000 << 20, 10 * time.Second, "restore db: 100 of 1000 MiB, 10 MiB/s, 1m30s left"},
		{"restore db", 7, 7, time.Second, "restore db: 0 of 0 MiB, 0 MiB/s"},
		{strings.Repeat("v", 200), 1 << 60, 1 << 61, time.Hour, strings.Repeat("v", 29) + "...: 1099511627776 of 2199023255552 MiB, 305419897 MiB/s, 1h0m0s left"},
	} {
		if got := progressText(tc.what, tc.done, tc.total, tc.took); got != tc.want {
			t.Errorf("%s\nwant %s", got, tc.want)
		}
	}
}

// Progress is shown only on a terminal, and is removed at the end.
func TestProgress(t *testing.T) {
	for _, terminal := range []bool{true, false} {
		var shown strings.Builder
		env := &cli.Env{App: cli.App{Name: "volbackup"}, Diag: &diag.Logger{Name: "volbackup", W: &shown, Terminal: terminal}}
		asked := make(chan struct{}, 10)
		end := progress(env, "db", 0, func() int64 { asked <- struct{}{}; return 1 << 20 })
		if terminal {
			<-asked
		}
		end()
		progress(env, "short", 0, func() int64 { return 0 })() // too short to be shown
		if got := shown.String(); strings.Contains(got, "db: 1 MiB") != terminal || terminal && !strings.HasSuffix(got, "\r\x1b[K") || !terminal && got != "" {
			t.Errorf("terminal %v: %q", terminal, got)
		}
	}
}

package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"observability-hub/lib/sysexits"
)

func TestParseUnits(t *testing.T) {
	got := parseUnits("a.service loaded active running A service\nb.timer not-found inactive dead b.timer\n\n")
	if got["a.service"] != (unitState{"loaded", "active", "running"}) || got["b.timer"].active != "inactive" || len(got) != 2 {
		t.Errorf("parseUnits = %v", got)
	}
}

func TestParseProperties(t *testing.T) {
	got := parseProperties("Id=a.service\nResult=exit-code\nX=a=b\n\nId=b.timer\nResult=success\n")
	if len(got) != 2 || got["a.service"]["X"] != "a=b" || got["b.timer"]["Result"] != "success" {
		t.Errorf("parseProperties = %v", got)
	}
}

func TestParseCgroup(t *testing.T) {
	for text, want := range map[string]string{
		"0::/system.slice/gitops-apply.service\n":                        "gitops-apply.service",
		"0::/system.slice/gitops-apply.service/child\n":                  "gitops-apply.service",
		"5:cpu:/x.service\n1:name=systemd:/system.slice/a.service\n":     "a.service",
		"0::/user.slice/user-0.slice/session-1.scope\n":                  "",
		"0::/user.slice/user-1.slice/user@1.service/app.slice/x.scope\n": "user@1.service",
		"0::/\n": "", "": "", "nonsense": "",
	} {
		if got := parseCgroup(text); got != want {
			t.Errorf("parseCgroup(%q) = %q; want %q", text, got, want)
		}
	}
}

func TestJudge(t *testing.T) {
	for _, tc := range []struct {
		p    map[string]string
		want string
	}{
		{map[string]string{"ActiveState": "active", "SubState": "running", "NRestarts": "2"}, ""},
		{map[string]string{"ActiveState": "failed", "Result": "exit-code"}, "failed: exit-code"},
		{map[string]string{"ActiveState": "activating", "SubState": "auto-restart", "Result": "signal"}, "waits to be restarted: signal"},
		{map[string]string{"ActiveState": "active", "NRestarts": "3"}, "restarted 1 times"},
		{map[string]string{"LoadState": "bad-setting"}, "cannot load"},
		// A job is queued. The state is the one before it, but restarts count.
		{map[string]string{"ActiveState": "activating", "SubState": "auto-restart", "Result": "exit-code", "Job": "1234"}, ""},
		{map[string]string{"ActiveState": "failed", "Result": "exit-code", "Job": "1234"}, ""},
		{map[string]string{"ActiveState": "activating", "SubState": "start-pre", "NRestarts": "3", "Job": "1234"}, "restarted 1 times"},
	} {
		err := judge("a.service", tc.p, 2)
		if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("judge(%v) = %v; want %q", tc.p, err, tc.want)
		}
	}
	for _, tc := range []struct {
		p  map[string]string
		ok bool
	}{
		{map[string]string{"ActiveState": "active", "SubState": "waiting", "NextElapseUSecRealtime": "Sat 2099-01-01"}, true},
		{map[string]string{"ActiveState": "active", "SubState": "waiting", "NextElapseUSecMonotonic": "5min"}, true},
		{map[string]string{"ActiveState": "active", "SubState": "running"}, true},
		{map[string]string{"ActiveState": "inactive"}, true},
		{map[string]string{"ActiveState": "active", "SubState": "elapsed", "NextElapseUSecMonotonic": "infinity", "TimersMonotonic": "{ OnUnitActiveUSec=1h ; next_elapse=0 }"}, false},
		{map[string]string{"ActiveState": "active", "SubState": "elapsed", "NextElapseUSecMonotonic": "infinity", "TimersMonotonic": "{ OnBootUSec=1s ; next_elapse=0 }"}, true},
	} {
		if err := judgeTimer("a.timer", tc.p); (err == nil) != tc.ok {
			t.Errorf("judgeTimer(%v) = %v", tc.p, err)
		}
	}
}

// A commit is bad only because of its units, not because a systemctl was killed.
func TestBlame(t *testing.T) {
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for _, tc := range []struct {
		name, script string
		ctx          context.Context
		bad          bool
	}{
		{"unit failed", "exit 1", t.Context(), true},
		{"systemctl killed", "kill -TERM $$", t.Context(), false},
		{"run ended", "exit 1", ended, false},
		{"no service manager", "echo 'Failed to connect to bus: No such file or directory' >&2; exit 1", t.Context(), false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			bin := t.TempDir()
			if err := os.WriteFile(filepath.Join(bin, "systemctl"), []byte("#!/bin/sh\n"+tc.script+"\n"), 0o755); err != nil {
				t.Fatal(err)
			}
			t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
			_, err := systemctl(t.Context(), time.Minute, "start", "x.service")
			if err == nil {
				t.Fatal("systemctl did not fail")
			}
			err = blame(tc.ctx, "x.service", err)
			if _, bad := errors.AsType[*unhealthy](err); bad != tc.bad || err == nil {
				t.Errorf("blame = %v; bad %v, want %v", err, bad, tc.bad)
			}
		})
	}
}

// Without systemd's tools the exit status is 78.
func TestNoSystemd(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	if _, err := systemctl(t.Context(), time.Minute, "daemon-reload"); sysexits.Code(err) != sysexits.Config {
		t.Errorf("systemctl = %v; want status 78", err)
	}
	p := &plan{view: view{host: host{"/"}}}
	if _, _, err := p.analyze(t.Context(), "", []string{"a.service"}); sysexits.Code(err) != sysexits.Config {
		t.Errorf("analyze = %v; want status 78", err)
	}
}

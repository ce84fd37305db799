package main

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestSpan(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"": 0, "0": maxWait, "90s": 90 * time.Second, "1min 30s": 90 * time.Second, "1h 2min 3s 4ms 5us": time.Hour + 2*time.Minute + 3*time.Second + 4*time.Millisecond + 5*time.Microsecond,
		"1.5s": 1500 * time.Millisecond, "2d": 48 * time.Hour, "1w 1day": 8 * 24 * time.Hour, "infinity": maxWait, "5 parsecs": maxWait, "1.2.3s": maxWait,
	} {
		if got := span(text); got != want {
			t.Errorf("span(%q) = %v; want %v", text, got, want)
		}
	}
}

func TestVerbFor(t *testing.T) {
	active, dead := unitState{"loaded", "active", "x"}, unitState{"loaded", "inactive", "dead"}
	for _, tc := range []struct {
		name  string
		state unitState
		want  string
	}{
		{"a.service", active, "restart"}, {"a.service", dead, "start"}, {"a.service", unitState{"loaded", "activating", "auto-restart"}, "restart"}, {"a.service", unitState{"loaded", "failed", "failed"}, "start"}, {"a.timer", active, "restart"},
		{"m.mount", active, "reload"}, {"m.mount", dead, "start"}, {"t.target", active, "start"}, {"t.target", dead, "start"},
	} {
		if got := verbFor(tc.name, tc.state); got != tc.want {
			t.Errorf("verbFor(%s, %v) = %s", tc.name, tc.state, got)
		}
	}
}

// settle returns the units that take longer than the limit. A unit that waits to be
// restarted has no job and counts as done.
func TestSettle(t *testing.T) {
	f := newFakeSystemd(t)
	f.put("show-done.service", "ActiveState=active\nSubState=running\nJob=\n")
	f.put("show-retries.service", "ActiveState=activating\nSubState=auto-restart\nJob=\n")
	f.put("show-slow.service", "ActiveState=activating\nSubState=start\nTimeoutStartUSec=10min\n")
	f.put("show-queued.service", "ActiveState=inactive\nSubState=dead\nJob=7\n")
	if busy, err := settle(t.Context(), nil, time.Minute); len(busy) > 0 || err != nil {
		t.Errorf("settle of no units: %v, %v", busy, err)
	}
	if busy, err := settle(t.Context(), []string{"done.service", "retries.service"}, time.Minute); len(busy) > 0 || err != nil {
		t.Errorf("settle of units without jobs: %v, %v", busy, err)
	}
	busy, err := settle(t.Context(), []string{"slow.service", "done.service", "queued.service"}, 50*time.Millisecond)
	if err != nil || !slices.Equal(busy, []string{"slow.service", "queued.service"}) {
		t.Errorf("settle of busy units: %v, %v", busy, err)
	}
	why := errors.New("stopped")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(why)
	if _, err := settle(ctx, []string{"slow.service"}, time.Minute); err == nil {
		t.Error("settle goes on after the run has ended")
	}
	f.put("fail-show", "Failed to connect to bus\n")
	if _, err := settle(t.Context(), []string{"slow.service"}, time.Minute); err == nil {
		t.Error("settle ignores a systemctl that fails")
	}
}

// To take up a change, a failed unit is reset first, a socket's service is stopped
// first, and gitsync's own units are last.
func TestRestartUnits(t *testing.T) {
	f := newFakeSystemd(t)
	w := newWorld(t)
	want := wantOf(map[string]string{unitDir + "/s.socket": "[Socket]\nListenStream=/run/x\n", unitDir + "/s.service": service})
	env, said := testEnv(t)
	p := &plan{want: want, after: newAfter(host{w.root}, want, nil)}
	p.running = f.units("broken.service failed failed", "s.socket active running", "s.service active running", "m.mount active mounted", "gitops-sync.timer active waiting")
	more, err := p.restartUnits(t.Context(), []string{"gitops-sync.timer", "broken.service", "m.mount", "s.socket"}, nil, env.Diag)
	if err != nil || !slices.Equal(more, []string{"s.service"}) {
		t.Errorf("restartUnits = %v, %v", more, err)
	}
	same(t, "calls", f.calls(), []string{
		"reset-failed broken.service", "stop s.service", "--no-block restart s.socket", "--no-block start s.service",
		"--no-block start broken.service", "--no-block reload m.mount", "--no-block restart gitops-sync.timer",
	})
	if _, err := p.restartUnits(t.Context(), []string{"s.service", "s.socket"}, nil, env.Diag); err != nil {
		t.Error(err)
	}
	same(t, "a socket and its service", f.calls(), []string{"stop s.service", "--no-block restart s.socket", "--no-block start s.service"})
	f.put("fail-start", "Job type start is not applicable\n")
	var bad *unhealthy
	if _, err := p.restartUnits(t.Context(), []string{"a.service"}, nil, env.Diag); !errors.As(err, &bad) || bad.unit != "a.service" {
		t.Errorf("a start that systemd refuses: %v", err)
	}
	if _, err := p.restartUnits(t.Context(), []string{"a.service"}, map[string]bool{"a.service": true}, env.Diag); err != nil || !strings.Contains(said(), `"start_failed"`) {
		t.Errorf("a start for healing that systemd refuses: %v, %s", err, said())
	}
	f.put("fail-stop", "no\n")
	if _, err := p.restartUnits(t.Context(), []string{"s.socket"}, nil, env.Diag); err == nil {
		t.Error("a service that does not stop is ignored")
	}
	f.put("fail-reset-failed", "no\n")
	f.put("fail-start", "Start request repeated too quickly.\n")
	if _, err := p.restartUnits(t.Context(), []string{"broken.service"}, nil, env.Diag); !errors.As(err, &bad) || bad.unit != "broken.service" {
		t.Errorf("a start after a reset-failed that fails: %v; want the error of the start", err)
	}
	if err := queue(t.Context(), "start"); err != nil {
		t.Errorf("queue of no units = %v", err)
	}
}

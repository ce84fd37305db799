package main

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestWatch(t *testing.T) {
	const runs = "LoadState=loaded\nActiveState=active\nSubState=running\nNRestarts=3\n"
	for _, tc := range []struct {
		name, show string
		started    bool
		want       string // in the reason; empty if the unit is healthy
	}{
		{"runs", runs, true, ""},
		{"failed", "ActiveState=failed\nResult=exit-code\n", false, "failed: exit-code"},
		{"waits to be restarted", "ActiveState=activating\nSubState=auto-restart\nResult=signal\n", false, "waits to be restarted: signal"},
		{"cannot be loaded", "LoadState=bad-setting\n", false, "cannot load"},
		{"its assertion is not met", "LoadState=loaded\nActiveState=inactive\nAssertResult=no\nAssertTimestampMonotonic=7\n", true, "assertions"},
		{"its assertion was not met before", "LoadState=loaded\nActiveState=inactive\nAssertResult=no\nAssertTimestampMonotonic=7\n", false, ""},
		{"its condition is not met", "LoadState=loaded\nActiveState=inactive\nConditionResult=no\nAssertResult=no\nAssertTimestampMonotonic=0\n", true, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := newFakeSystemd(t)
			f.put("show-a.service", tc.show)
			err := watch(t.Context(), map[string]bool{"a.service": tc.started}, 0)
			if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
				t.Errorf("watch = %v; want %q", err, tc.want)
			}
		})
	}
	if err := watch(t.Context(), nil, time.Hour); err != nil {
		t.Errorf("watch of nothing = %v", err)
	}
	newFakeSystemd(t)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := watch(ctx, map[string]bool{"a.service": true}, time.Hour); err == nil {
		t.Error("watch goes on after the run has ended")
	}
}

func TestTimersThatNeverElapse(t *testing.T) {
	const elapsed = "ActiveState=active\nSubState=elapsed\nNextElapseUSecRealtime=\nNextElapseUSecMonotonic=infinity\n"
	for text, ok := range map[string]bool{
		elapsed + "TimersMonotonic={ OnUnitActiveUSec=1h ; next_elapse=0 }\n":                                                    false,
		elapsed + "TimersMonotonic={ OnUnitInactiveUSec=1h ; next_elapse=0 }\n":                                                  false,
		elapsed + "TimersMonotonic={ OnBootUSec=1min ; next_elapse=1min }\n":                                                     true,
		elapsed + "TimersMonotonic={ OnStartupUSec=1min ; next_elapse=1min }\n":                                                  true,
		elapsed + "TimersMonotonic={ OnActiveUSec=1min ; next_elapse=1min }\n":                                                   true,
		elapsed + "TimersCalendar={ OnCalendar=2020-01-01 ; next_elapse=n/a }\n":                                                 true,
		elapsed + "OnClockChange=yes\nTimersMonotonic={ OnUnitActiveUSec=1h ; next_elapse=0 }\n":                                 true,
		strings.Replace(elapsed, "elapsed", "running", 1) + "TimersMonotonic={ OnUnitActiveUSec=1h ; next_elapse=0 }\n":          true,
		"ActiveState=active\nSubState=waiting\nNextElapseUSecRealtime=Sat 2099-01-03\nTimersMonotonic={ OnUnitActiveUSec=1h }\n": true,
		"ActiveState=inactive\n": true,
	} {
		p := parseProperties("Id=a.timer\n" + text)["a.timer"]
		if err := judgeTimer("a.timer", p); (err == nil) != ok {
			t.Errorf("judgeTimer(%v) = %v", p, err)
		}
		if err := judgeTimer("a.service", p); err != nil {
			t.Errorf("judgeTimer of a service = %v", err)
		}
	}
}

func TestRunProbe(t *testing.T) {
	f := newFakeSystemd(t)
	if err := runProbe(t.Context(), "p.service", false); err != nil {
		t.Errorf("a probe that succeeds: %v", err)
	}
	f.put("fail-start", "Job for p.service failed\n")
	var bad *unhealthy
	if err := runProbe(t.Context(), "p.service", false); !errors.As(err, &bad) || bad.unit != "p.service" || !strings.Contains(bad.reason, "its probe failed") {
		t.Errorf("a probe that fails: %v", err)
	}
	f.calls()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := runProbe(ctx, "p.service", false); errors.As(err, &bad) {
		t.Errorf("a run that ended blames the unit: %v", err)
	}
	stop := "stop --no-block p.service"
	if !slices.Contains(f.calls(), stop) {
		t.Error("a run that ended does not stop its probe")
	}
	if _ = runProbe(ctx, "p.service", true); slices.Contains(f.calls(), stop) {
		t.Error("a probe that was starting already is stopped")
	}
}

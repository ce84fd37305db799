package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"observability-hub/lib/command"
	"observability-hub/lib/sysexits"
)

// unhealthy is why a deployment is not good. It leads to a rollback.
type unhealthy struct{ unit, reason string }

// isUnhealthy reports whether an error is a unit's fault.
func isUnhealthy(err error) bool {
	_, is := errors.AsType[*unhealthy](err)
	return is
}

func (u *unhealthy) Error() string { return u.unit + ": " + u.reason }

// watch looks at the units that a deployment touched for as long as window. The
// value of a unit says that this run started it. watch returns an *unhealthy as
// soon as one failed or waits to be restarted, or, at the end, if a unit that
// was started does not run or a timer can never elapse.
//
// Units that systemd is about to restart never show as failed, hence the
// look at SubState and NRestarts.
func watch(ctx context.Context, evidence map[string]bool, window time.Duration) error {
	units := slices.Sorted(maps.Keys(evidence))
	if len(units) == 0 {
		return nil
	}
	var restarts map[string]int
	for deadline := time.Now().Add(window); ; {
		all, err := properties(ctx, units, "ActiveState", "SubState", "Result", "NRestarts", "LoadState", "Job", "NextElapseUSecRealtime", "NextElapseUSecMonotonic",
			"TimersMonotonic", "TimersCalendar", "OnClockChange", "OnTimezoneChange", "AssertResult", "AssertTimestampMonotonic")
		if err != nil {
			return err
		}
		first := restarts == nil
		if first {
			restarts = map[string]int{}
		}
		for _, unit := range slices.Sorted(maps.Keys(all)) {
			p := all[unit]
			if first {
				restarts[unit] = number(p["NRestarts"])
			}
			if err := judge(unit, p, restarts[unit]); err != nil {
				return err
			}
		}
		left := time.Until(deadline)
		if left <= 0 {
			for _, unit := range slices.Sorted(maps.Keys(all)) {
				if err := judgeTimer(unit, all[unit]); err != nil {
					return err
				}
				if evidence[unit] && all[unit]["ActiveState"] == "inactive" && assertFailed(all[unit]) {
					return &unhealthy{unit, "its assertions are not met"}
				}
			}
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(min(left, time.Second)):
		}
	}
}

// blame makes a systemctl that failed the fault of the unit: a reason for a
// rollback and quarantine. One that was killed, or that found no service
// manager, says nothing about the unit; nor does one that this run gave up.
func blame(ctx context.Context, unit string, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if status := command.Status(err); sysexits.Code(err) == sysexits.Unavailable || status <= 0 || status > 128 {
		return err
	}
	return &unhealthy{unit, err.Error()}
}

// judge says what is wrong with a unit at this moment.
func judge(unit string, p map[string]string, restarts int) error {
	switch {
	case p["LoadState"] == "error" || p["LoadState"] == "bad-setting" || p["LoadState"] == "not-found":
		return &unhealthy{unit, "systemd cannot load it: " + p["LoadState"]}
	case number(p["NRestarts"]) > restarts:
		return &unhealthy{unit, fmt.Sprintf("restarted %d times", number(p["NRestarts"])-restarts)}
	case p["Job"] != "": // as in settle
		// The start that this run asked for, or that systemd owed the unit, has not
		// begun: the state is the one before it.
	case p["ActiveState"] == "failed":
		return &unhealthy{unit, "failed: " + p["Result"]}
	case (unitState{sub: p["SubState"]}).retries():
		return &unhealthy{unit, "failed, and waits to be restarted: " + p["Result"]}
	}
	return nil
}

// judgeTimer says whether an active timer can never fire: it counts only from
// runs of the unit that it alone would start. A time that has passed, such as
// OnBootSec= on a host that is up for longer, is no mistake. While the service of
// a timer runs, it has no next elapse yet.
func judgeTimer(name string, p map[string]string) error {
	if !strings.HasSuffix(name, ".timer") || p["ActiveState"] != "active" || p["SubState"] == "running" {
		return nil
	}
	never := func(s string) bool { return s == "" || s == "0" || s == "infinity" || s == "n/a" }
	if !never(p["NextElapseUSecRealtime"]) || !never(p["NextElapseUSecMonotonic"]) {
		return nil
	}
	once := strings.Contains(p["TimersMonotonic"], "OnBoot") || strings.Contains(p["TimersMonotonic"], "OnStartup") || strings.Contains(p["TimersMonotonic"], "OnActive")
	if p["TimersMonotonic"] == "" || once || p["TimersCalendar"] != "" || p["OnClockChange"] == "yes" || p["OnTimezoneChange"] == "yes" {
		return nil
	}
	return &unhealthy{name, "it will never elapse: it counts from runs of its unit, which nothing else starts"}
}

// probeTimeout bounds a probe whose unit has no TimeoutStartSec= of its own.
const probeTimeout = 5 * time.Minute

// runProbe starts a oneshot that asks for it (Probe=yes) and waits for its end.
// One that this run started and no longer waits for must not go on while what
// it probes is undone. busy says that it was already at work.
func runProbe(ctx context.Context, unit string, busy bool) error {
	_, err := systemctl(ctx, probeTimeout, "start", "--", unit)
	if err == nil {
		return nil
	}
	late := errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil
	if !busy && (late || ctx.Err() != nil) {
		// Its TimeoutStopSec= may be longer than we have.
		_, stopErr := systemctl(context.WithoutCancel(ctx), systemctlTimeout, "stop", "--no-block", "--", unit)
		err = errors.Join(err, stopErr)
	}
	err = fmt.Errorf("its probe failed: %w", err)
	if late {
		return &unhealthy{unit, err.Error()}
	}
	return blame(ctx, unit, err)
}

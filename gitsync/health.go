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

// unhealthy is the error of a deployment that broke a unit. It leads to a rollback.
type unhealthy struct{ unit, reason string }

// isUnhealthy reports whether an error is an *unhealthy.
func isUnhealthy(err error) bool {
	_, is := errors.AsType[*unhealthy](err)
	return is
}

func (u *unhealthy) Error() string { return u.unit + ": " + u.reason }

// watch watches the units of evidence for the time window. The value of a unit says
// whether this run started it. watch returns an *unhealthy as soon as a unit has
// failed or waits to be restarted. At the end of the window it also returns one if
// the assertions of a unit that was started are not met, or if a timer can never
// elapse.
//
// A unit that systemd is about to restart never has the state failed. Therefore
// watch also reads SubState and NRestarts.
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

// blame turns the error of a systemctl into an *unhealthy of the unit, which leads
// to rollback and quarantine. It returns other errors unchanged: a systemctl that
// was killed, that found no service manager, or whose context ended says nothing
// about the unit.
func blame(ctx context.Context, unit string, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if status := command.Status(err); sysexits.Code(err) == sysexits.Unavailable || status <= 0 || status > 128 {
		return err
	}
	return &unhealthy{unit, err.Error()}
}

// judge returns an *unhealthy if something is wrong with a unit at this moment.
// restarts is its NRestarts at the start of the watch.
func judge(unit string, p map[string]string, restarts int) error {
	switch {
	case p["LoadState"] == "error" || p["LoadState"] == "bad-setting" || p["LoadState"] == "not-found":
		return &unhealthy{unit, "systemd cannot load it: " + p["LoadState"]}
	case number(p["NRestarts"]) > restarts:
		return &unhealthy{unit, fmt.Sprintf("restarted %d times", number(p["NRestarts"])-restarts)}
	case p["Job"] != "": // as in settle
		// A start, by this run or by systemd, is queued and has not begun. The state is
		// still the one before it.
	case p["ActiveState"] == "failed":
		return &unhealthy{unit, "failed: " + p["Result"]}
	case (unitState{sub: p["SubState"]}).retries():
		return &unhealthy{unit, "failed, and waits to be restarted: " + p["Result"]}
	}
	return nil
}

// judgeTimer returns an *unhealthy if an active timer can never elapse, because it
// only counts from runs of its unit and nothing else starts that unit. A time that
// has passed, such as OnBootSec= on a host that booted earlier, is not a mistake. A
// timer has no next elapse while its service runs.
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
	return &unhealthy{name, "it will never elapse: it only counts from runs of its unit, and nothing else starts that unit"}
}

// probeTimeout limits a probe, which may have no TimeoutStartSec=.
const probeTimeout = 5 * time.Minute

// runProbe starts a service with Probe=yes and waits until the start is done. busy
// says that the service was starting already. If runProbe started the service and
// stops waiting for it, it also stops the service, which must not go on while the
// commit that it tests is undone.
func runProbe(ctx context.Context, unit string, busy bool) error {
	_, err := systemctl(ctx, probeTimeout, "start", "--", unit)
	if err == nil {
		return nil
	}
	late := errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil
	if !busy && (late || ctx.Err() != nil) {
		// Do not wait: its TimeoutStopSec= may be longer than the time that is left.
		_, stopErr := systemctl(context.WithoutCancel(ctx), systemctlTimeout, "stop", "--no-block", "--", unit)
		err = errors.Join(err, stopErr)
	}
	err = fmt.Errorf("its probe failed: %w", err)
	if late {
		return &unhealthy{unit, err.Error()}
	}
	return blame(ctx, unit, err)
}

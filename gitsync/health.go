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

func (u *unhealthy) Error() string { return u.unit + ": " + u.reason }

// watch looks at the units that a deployment touched for as long as window: it
// returns an *unhealthy as soon as one failed or waits to be restarted, or, at
// the end, if a timer has no next elapse.
//
// Units that systemd is about to restart never show as failed, hence the
// look at SubState and NRestarts.
func watch(ctx context.Context, units []string, window time.Duration) error {
	if len(units) == 0 {
		return nil
	}
	var restarts map[string]int
	for deadline := time.Now().Add(window); ; {
		all, err := properties(ctx, units, "ActiveState", "SubState", "Result", "NRestarts", "LoadState", "NextElapseUSecRealtime", "NextElapseUSecMonotonic")
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
	case p["LoadState"] == "error" || p["LoadState"] == "bad-setting":
		return &unhealthy{unit, "systemd cannot load it: " + p["LoadState"]}
	case p["ActiveState"] == "failed":
		return &unhealthy{unit, "failed: " + p["Result"]}
	case p["SubState"] == "auto-restart":
		return &unhealthy{unit, "failed, and waits to be restarted: " + p["Result"]}
	case number(p["NRestarts"]) > restarts:
		return &unhealthy{unit, fmt.Sprintf("restarted %d times", number(p["NRestarts"])-restarts)}
	}
	return nil
}

// judgeTimer says whether an active timer will never fire. While its service
// runs it has no next elapse yet.
func judgeTimer(unit string, p map[string]string) error {
	if !strings.HasSuffix(unit, ".timer") || p["ActiveState"] != "active" || p["SubState"] == "running" {
		return nil
	}
	never := func(s string) bool { return s == "" || s == "0" || s == "infinity" || s == "n/a" }
	if never(p["NextElapseUSecRealtime"]) && never(p["NextElapseUSecMonotonic"]) {
		return &unhealthy{unit, "it will never elapse"}
	}
	return nil
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

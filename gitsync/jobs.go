package main

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"observability-hub/gitsync/internal/unit"
	"observability-hub/lib/diag"
)

// maxWait limits how long an apply waits for jobs that systemd itself does not
// limit (TimeoutStartSec=infinity). It is much shorter than the TimeoutStartSec= of
// gitops-apply.service.
const maxWait = 15 * time.Minute

// queue queues a job for each unit and does not wait for it. It returns an error if
// systemd does not accept the jobs.
func queue(ctx context.Context, verb string, units ...string) error {
	if len(units) == 0 {
		return nil
	}
	_, err := systemctl(ctx, systemctlTimeout, append([]string{"--no-block", verb, "--"}, units...)...)
	return err
}

// settle waits until no unit has a job and none is starting, stopping or reloading.
// It waits as long as the units' timeouts in systemd allow, but not longer than
// most. It returns the units that are not done then.
func settle(ctx context.Context, units []string, most time.Duration) ([]string, error) {
	if len(units) == 0 {
		return nil, nil
	}
	began := time.Now()
	for pause := 20 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		all, err := properties(ctx, units, "Job", "ActiveState", "SubState", "TimeoutStartUSec", "TimeoutStopUSec")
		if err != nil {
			return nil, err
		}
		var busy []string
		var limit time.Duration
		for _, name := range units {
			p := all[name]
			changing := p["ActiveState"] == "activating" || p["ActiveState"] == "deactivating" || p["ActiveState"] == "reloading"
			if p["Job"] == "" && (!changing || (unitState{"", "", p["SubState"]}).retries()) {
				continue
			}
			busy = append(busy, name)
			limit = max(limit, span(p["TimeoutStartUSec"])+span(p["TimeoutStopUSec"])+10*time.Second)
		}
		if len(busy) == 0 || time.Since(began) > min(limit, most) {
			return busy, nil
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(pause):
		}
	}
}

// span parses a time span as systemctl prints it, such as "1min 30s". It returns
// maxWait for anything else, such as "infinity".
func span(text string) time.Duration {
	var total time.Duration
	for _, word := range strings.Fields(text) {
		i := strings.IndexFunc(word, func(r rune) bool { return (r < '0' || r > '9') && r != '.' })
		if i <= 0 {
			return maxWait
		}
		n, err := strconv.ParseFloat(word[:i], 64)
		length, known := map[string]time.Duration{"us": time.Microsecond, "ms": time.Millisecond, "s": time.Second, "min": time.Minute,
			"h": time.Hour, "d": 24 * time.Hour, "day": 24 * time.Hour, "w": 7 * 24 * time.Hour, "month": 30 * 24 * time.Hour, "y": 365 * 24 * time.Hour}[word[i:]]
		if err != nil || !known {
			return maxWait
		}
		total += time.Duration(n * float64(length))
	}
	return total
}

// verbFor returns the systemctl verb that makes a unit take up a change or starts
// it. A running mount is reloaded, because a restart would unmount it. A target is
// started, which starts the units that it now wants.
func verbFor(name string, s unitState) string {
	switch unit.Type(name) {
	case "mount":
		if s.runs() {
			return "reload"
		}
	case "target":
		return "start"
	}
	if !s.runs() && !s.retries() && s.active != "activating" {
		return "start" // systemd refuses a restart of a unit with RefuseManualStop=
	}
	return "restart"
}

// restartUnits queues a start, restart or reload for each unit, gitsync's own units
// last. A socket cannot be bound again while its service runs, so it stops the
// service first and starts it after the socket. The units in healing do not count
// against the commit, even if systemd does not accept their jobs. It returns the
// units that it queued in addition.
func (p *plan) restartUnits(ctx context.Context, units []string, healing map[string]bool, d *diag.Logger) (more []string, err error) {
	var failed []string
	for _, name := range units {
		if s := p.running[name]; s.active == "failed" {
			failed = append(failed, name)
		}
	}
	if len(failed) > 0 {
		// If a unit has hit its start limit, systemd would otherwise refuse the start.
		// Ignore the error: a unit that systemd has unloaded since needs no reset, and
		// the start reports everything else.
		_, _ = systemctl(ctx, systemctlTimeout, append([]string{"reset-failed", "--"}, failed...)...)
	}
	started := map[string]bool{} // services that were started after their sockets
	for _, name := range slices.SortedFunc(slices.Values(units), startOrder) {
		if started[name] {
			continue
		}
		step("restart")
		var service string
		if u := p.after.unit(name); unit.Type(name) == "socket" && u != nil {
			for _, s := range u.Triggers() {
				if p.running[s].runs() && s != p.own {
					service = s
					if err := stopUnits(ctx, s); err != nil {
						return more, err
					}
				}
			}
		}
		if err := queue(ctx, verbFor(name, p.running[name]), name); err != nil {
			if err = blame(ctx, name, err); healing[name] && isUnhealthy(err) {
				d.Warn("start_failed", err.Error(), diag.Field{Key: "unit", Value: name})
				continue
			}
			return more, err
		}
		if service != "" {
			if _, err := settle(ctx, []string{name}, maxWait); err != nil {
				return more, err
			}
			if err := queue(ctx, "start", service); err != nil {
				return more, blame(ctx, service, err)
			}
			more = append(more, service)
			started[service] = true
		}
	}
	return more, nil
}

// stopUnits stops units and waits until they have stopped. Names may be patterns.
func stopUnits(ctx context.Context, units ...string) error {
	if len(units) == 0 {
		return nil
	}
	_, err := systemctl(ctx, maxWait, append([]string{"stop", "--"}, units...)...)
	return err
}

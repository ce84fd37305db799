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

// maxWait bounds how long an apply waits for jobs that systemd itself does not
// bound (TimeoutStartSec=infinity). It is well below the TimeoutStartSec= of
// gitops-apply.service.
const maxWait = 15 * time.Minute

// queue queues a job. An error says that systemd does not take it.
func queue(ctx context.Context, verb string, units ...string) error {
	if len(units) == 0 {
		return nil
	}
	_, err := systemctl(ctx, systemctlTimeout, append([]string{"--no-block", verb, "--"}, units...)...)
	return err
}

// settle waits until no unit has a job and none is starting or stopping, for as
// long as systemd lets them take. It returns the units that are not done then.
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

// span reads a time span as systemctl prints it: "1min 30s", "infinity".
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

// verbFor returns how a unit takes up what changed, or is started. A mount is
// not unmounted, and a target only starts what it has come to want.
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
		return "start" // a restart would be refused with RefuseManualStop=
	}
	return "restart"
}

// restartUnits queues what the units need, those of gitsync's own family last.
// A socket whose service runs cannot be bound again: the service stops first
// and is started after it. Units in healing are no evidence against the commit,
// also if systemd does not take their job. It returns what it queued in addition.
func (p *plan) restartUnits(ctx context.Context, units []string, healing map[string]bool, d *diag.Logger) (more []string, err error) {
	var failed []string
	for _, name := range units {
		if s := p.running[name]; s.active == "failed" {
			failed = append(failed, name)
		}
	}
	if len(failed) > 0 {
		// Or a start limit that was hit would refuse the start. A unit that systemd
		// has unloaded meanwhile needs none: what is wrong the start itself says.
		_, _ = systemctl(ctx, systemctlTimeout, append([]string{"reset-failed", "--"}, failed...)...)
	}
	started := map[string]bool{} // with their sockets
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

// stopUnits stops units and waits for it. Names may be patterns.
func stopUnits(ctx context.Context, units ...string) error {
	if len(units) == 0 {
		return nil
	}
	_, err := systemctl(ctx, maxWait, append([]string{"stop", "--"}, units...)...)
	return err
}

package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"observability-hub/lib/record"
	"observability-hub/lib/sysexits"
)

// goBack undoes the change, also when this run is being ended: it has a few
// seconds for that, and what it does not manage the next run does.
func (x *execution) goBack(why error) error {
	ctx := context.Background()
	bad, isBad := errors.AsType[*unhealthy](why)
	if isBad {
		x.journal.Bad = bad.Error()
		// Where there is no room for it, undo says so, after it put the host back.
		_ = keepJournal(x.dir, x.journal)
	}
	step("go-back")
	if err := x.undo(ctx, x.journal); err != nil {
		return errors.Join(why, err)
	}
	if !isBad {
		return x.explain(why)
	}
	l := record.New(time.Now(), record.Error, "rolled_back", x.env.Service)
	l.String("commit", x.wish.d.commit)
	l.String("unit", bad.unit)
	l.String("reason", bad.reason)
	if x.ledger.Commit != "" {
		l.String("back_to", x.ledger.Commit)
	} else {
		l.Null("back_to")
	}
	if err := x.env.Stdout.Record(record.Error, l.End()); err != nil {
		return err
	}
	return sysexits.New(sysexits.RolledBack, "unhealthy", fmt.Errorf("commit %s is unhealthy and undone: %w", x.wish.d.commit, why)).
		WithHint("mend it and push: this commit is not tried again")
}

// explain gives a failure to write its exit status.
func (x *execution) explain(err error) error {
	if _, ok := errors.AsType[*sysexits.Error](err); ok || !isPathError(err) {
		return err
	}
	return sysexits.New(sysexits.CantCreate, "host_unwritable", fmt.Errorf("apply: %w; undone", err)).
		WithHint("run it as root, and see that there is room on that file system")
}

// quieten stops what did not run before, and forgets that it failed. A timer
// whose file is taken away while it runs would complain that its service vanished.
func (j *journal) quieten(ctx context.Context) error {
	own := ownUnit()
	now, err := listUnits(ctx)
	for _, unit := range slices.Sorted(maps.Keys(now)) {
		t, instance := template(unit)
		ours := slices.Contains(j.Units, unit) || instance && slices.Contains(j.Units, t)
		state := now[unit].active
		if !ours || unit == own || slices.Contains(j.Active, unit) || state == "inactive" {
			continue
		}
		step("revive")
		if state == "failed" {
			_, failed := systemctl(ctx, systemctlTimeout, "reset-failed", "--", unit)
			err = errors.Join(err, failed)
			continue
		}
		_, failed := systemctl(ctx, jobTimeout, "stop", "--", unit)
		err = errors.Join(err, failed)
	}
	return err
}

// revive makes the running system match what was put back: read it again, stop
// what did not run before, restart what did.
func (j *journal) revive(ctx context.Context) error {
	_, err := systemctl(ctx, jobTimeout, "daemon-reload")
	// Once more: to be stopped can be what made a unit fail.
	err = errors.Join(err, j.quieten(ctx))
	own := ownUnit()
	for _, unit := range slices.SortedFunc(slices.Values(j.Active), lastOurs) {
		if unit == own {
			continue
		}
		step("revive")
		if _, failed := systemctl(ctx, jobTimeout, "restart", "--", unit); failed != nil && unitType(unit) == "timer" {
			err = errors.Join(err, failed) // a service may have been broken before
		}
	}
	return err
}

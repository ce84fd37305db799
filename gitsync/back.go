package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"observability-hub/gitsync/internal/unit"
	"observability-hub/lib/record"
	"observability-hub/lib/sysexits"
)

// rollBack undoes the change. It does so even if this run is being stopped: it then
// has a few seconds, and the next run does the rest.
func (x *execution) rollBack(why error) error {
	ctx := context.Background()
	bad, isBad := errors.AsType[*unhealthy](why)
	if isBad {
		x.journal.Bad = bad.Error()
		// If the file system is full, undo reports that after it has restored the host.
		_ = writeState(x.dir, journalFile, x.journal)
	}
	step("go-back")
	if err := x.undo(ctx, x.journal); err != nil {
		return errors.Join(why, err)
	}
	if !isBad {
		return x.explain(why)
	}
	l := record.New(time.Now(), record.Error, "rolled_back", x.env.Service)
	l.String("commit", x.plan.want.commit)
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
	return sysexits.New(sysexits.RolledBack, "unhealthy", fmt.Errorf("commit %s is unhealthy and was undone: %w", x.plan.want.commit, why)).
		WithHint("correct it and push a new commit: this commit is not tried again")
}

// uncommitted undoes the change if the ledger could not be written. A write can
// also fail after the rename of the new ledger. Then the commit is applied, and the
// next run finds the journal and finishes the work. Undoing the change in that case
// would make the host differ from the ledger.
func (x *execution) uncommitted(why error) error {
	if x.journal == nil {
		return why
	}
	is, err := readLedger(x.dir.Path)
	if err != nil || is.Run == x.journal.Run {
		return errors.Join(why, err)
	}
	return errors.Join(why, x.undo(context.Background(), x.journal))
}

// undo restores the host from the journal and removes the journal. If something
// cannot be restored, the journal stays and the next run tries again.
func (a *apply) undo(ctx context.Context, j *journal) error {
	var quarantineErr error // returned after the host is restored, which is more important
	if j.Bad != "" {
		quarantineErr = writeQuarantine(a.dir, j.Commit, j.Bad)
	}
	if j.Running {
		// Ignore units that fail to stop: restoring the files comes first, and
		// revive stops them again.
		_ = j.stopNew(ctx)
	}
	err := j.restore(a.host)
	if j.Running {
		err = errors.Join(err, j.revive(ctx))
	}
	if err != nil {
		return sysexits.New(sysexits.Failed, "undo_failed", fmt.Errorf("undo commit %s: %w", j.Commit, err)).
			WithHint("keep " + a.dir.Join(journalFile) + ": it holds the files and links from before the change. Correct what the error names (df -h, findmnt -T, lsattr), then run systemctl start gitops-apply.service, or gitsync apply by hand: each apply undoes this commit first")
	}
	if quarantineErr != nil {
		return quarantineErr
	}
	step("undone")
	return a.forget(j)
}

// explain gives a failed write to the host its exit status.
func (x *execution) explain(err error) error {
	if _, ok := errors.AsType[*sysexits.Error](err); ok || !isPathError(err) {
		return err
	}
	return sysexits.New(sysexits.CantCreate, "host_unwritable", fmt.Errorf("apply: %w; the change was undone", err)).
		WithHint("run it as root, and check that the file system has space (df -h); the unit may write only below /etc/systemd/system, /usr/local and /etc/containers: another --scripts-dir needs ReadWritePaths= in a drop-in")
}

// stopNew stops the units of the change that were not running before it, and resets
// those that have failed. undo calls it before it restores the files, because
// systemd complains about a running timer whose service has vanished.
func (j *journal) stopNew(ctx context.Context) error {
	own := ownUnit()
	now, err := listUnits(ctx)
	if err != nil {
		return err
	}
	var failed, stop []string
	for _, name := range slices.Sorted(maps.Keys(now)) {
		t, instance := unit.Template(name)
		ours := slices.Contains(j.Units, name) || instance && slices.Contains(j.Units, t)
		state := now[name].active
		if !ours || name == own || unit.Type(name) == "slice" || state == "inactive" || slices.Contains(j.Active, name) || slices.Contains(j.Retrying, name) || slices.Contains(j.Starting, name) {
			continue
		}
		if state == "failed" {
			failed = append(failed, name)
		} else {
			stop = append(stop, name)
		}
	}
	step("revive")
	if len(failed) > 0 {
		_, err = systemctl(ctx, systemctlTimeout, append([]string{"reset-failed", "--"}, failed...)...)
	}
	return errors.Join(err, stopUnits(ctx, stop...))
}

// revive makes the running system match the restored files. systemd reads its units
// again. Units that were not running before are stopped. Units that were running or
// about to be restarted are started again.
func (j *journal) revive(ctx context.Context) error {
	_, err := systemctl(ctx, 2*time.Minute, "daemon-reload")
	// undo has called stopNew before. A unit can fail because it was stopped, so
	// call it again. If a unit does not stop at the second try here either, such as a
	// mount in use, return the error.
	if stopErr := j.stopNew(ctx); stopErr != nil {
		err = errors.Join(err, j.stopNew(ctx))
	}
	own := ownUnit()
	now, listErr := listUnits(ctx)
	err = errors.Join(err, listErr)
	var started, failed []string
	for _, name := range slices.SortedFunc(slices.Values(append(slices.Clone(j.Active), j.Retrying...)), startOrder) {
		if name == own || unit.Type(name) == "slice" {
			continue
		}
		if now[name].active == "failed" {
			failed = append(failed, name)
		}
		started = append(started, name)
	}
	if len(failed) > 0 {
		_, resetErr := systemctl(ctx, systemctlTimeout, append([]string{"reset-failed", "--"}, failed...)...)
		err = errors.Join(err, resetErr)
	}
	for _, name := range started {
		step("revive")
		failed := queue(ctx, verbFor(name, now[name]), name)
		if failed != nil && unit.Type(name) == "timer" {
			err = errors.Join(err, failed) // not for a service, which may have been broken before
		}
	}
	more, boundErr := j.reviveBound(ctx, own)
	err = errors.Join(err, boundErr)
	_, settleErr := settle(ctx, append(started, more...), reviveWait)
	return errors.Join(err, settleErr)
}

// reviveBound starts the units that systemd stopped together with a unit of the
// change.
func (j *journal) reviveBound(ctx context.Context, own string) (started []string, err error) {
	if len(j.Bound) == 0 {
		return nil, nil
	}
	now, err := listUnits(ctx)
	if err != nil {
		return nil, err
	}
	for _, name := range slices.SortedFunc(slices.Values(j.Bound), startOrder) {
		s := now[name]
		if name == own || s.runs() || s.active == "activating" || unit.Type(name) == "slice" {
			continue
		}
		if s.active == "failed" {
			_, resetErr := systemctl(ctx, systemctlTimeout, "reset-failed", "--", name)
			err = errors.Join(err, resetErr)
		}
		_ = queue(ctx, "start", name) // ignore a refusal: the commit changed nothing of this unit
		started = append(started, name)
	}
	return started, err
}

// reviveWait limits the wait for units that start again after a rollback.
const reviveWait = 30 * time.Second

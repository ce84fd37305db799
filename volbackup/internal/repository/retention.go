package repository

import (
	"fmt"
	"time"
)

// Retention defines which backups of a volume are kept: the newest of each of the
// last KeepDaily days, KeepWeekly weeks (ISO 8601) and KeepMonthly months that have a
// backup, in UTC.
type Retention struct {
	KeepDaily   int `default:"7" placeholder:"N"`
	KeepWeekly  int `default:"4" placeholder:"N"`
	KeepMonthly int `default:"6" placeholder:"N"`
}

// Validate checks the flags after they are parsed.
func (k Retention) Validate() error {
	if k.KeepDaily < 0 || k.KeepWeekly < 0 || k.KeepMonthly < 0 {
		return fmt.Errorf("--keep-daily, --keep-weekly and --keep-monthly must not be negative")
	}
	return nil
}

// Expired returns the archives of a volume that can be removed, oldest first.
//
// It counts only days that have a backup. Therefore a host that was off for a year
// loses no archive, and a clock that is wrong today expires none. An archive with a
// time in the future was made while the clock was wrong: it is kept until that time,
// and does not count. An archive that is damaged, unreadable or not verified does not
// count either, and only an administrator removes it. The newest verified archive is
// always kept.
func (k Retention) Expired(all []Archive, now time.Time) []*Manifest {
	limit := now.Add(ClockError)
	var good []*Manifest // newest first
	for i := len(all) - 1; i >= 0; i-- {
		m := all[i].Manifest
		if m != nil && m.Damaged == "" && !m.Verified.IsZero() && !m.Time.After(limit) {
			good = append(good, m)
		}
	}
	keep := map[*Manifest]bool{}
	if len(good) > 0 {
		keep[good[0]] = true
	}
	for _, rule := range []struct {
		n    int
		slot func(time.Time) string
	}{
		{k.KeepDaily, func(t time.Time) string { return t.Format(time.DateOnly) }},
		{k.KeepWeekly, func(t time.Time) string { y, w := t.ISOWeek(); return fmt.Sprint(y, "-", w) }},
		{k.KeepMonthly, func(t time.Time) string { return t.Format("2006-01") }},
	} {
		seen := map[string]bool{}
		for _, m := range good {
			slot := rule.slot(m.Time.UTC())
			if len(seen) < rule.n && !seen[slot] {
				seen[slot], keep[m] = true, true
			}
		}
	}
	var gone []*Manifest
	for i := len(good) - 1; i >= 0; i-- {
		if !keep[good[i]] {
			gone = append(gone, good[i])
		}
	}
	return gone
}

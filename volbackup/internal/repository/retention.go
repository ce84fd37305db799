package repository

import (
	"fmt"
	"time"
)

// Retention is how many backups of a volume stay: the newest of each of so many
// days, weeks (ISO 8601) and months that have one, in UTC.
type Retention struct {
	KeepDaily   int `default:"7" placeholder:"N"`
	KeepWeekly  int `default:"4" placeholder:"N"`
	KeepMonthly int `default:"6" placeholder:"N"`
}

// Validate is kong's check after parsing.
func (k Retention) Validate() error {
	if k.KeepDaily < 0 || k.KeepWeekly < 0 || k.KeepMonthly < 0 {
		return fmt.Errorf("--keep-daily, --keep-weekly and --keep-monthly are not negative")
	}
	return nil
}

// Expired returns those of a volume's archives, oldest first, that may go.
//
// It counts days that have a backup, not days gone by, so a host that was off
// for a year loses nothing, and a clock that is wrong today expires nothing. An
// archive from the future was made while the clock was wrong: it stays until
// its time has come and takes nobody's place. One that is damaged, unreadable
// or was never verified takes nobody's place either and is for a person to
// remove. The newest verified archive stays whatever the numbers are.
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

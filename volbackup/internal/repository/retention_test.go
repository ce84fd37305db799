package repository

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// history returns archives with these times, in the order of a repository. They are
// verified, unless a letter follows the time: "d" is damaged, "u" has an unreadable
// manifest, "v" was never verified.
func history(t *testing.T, times ...string) []Archive {
	t.Helper()
	var all []Archive
	for _, text := range times {
		text, flag, _ := strings.Cut(text, " ")
		at, err := time.Parse(time.RFC3339, text)
		if err != nil {
			t.Fatal(err)
		}
		m := &Manifest{ID: at.Format(IDLayout), Time: at, Verified: at}
		a := Archive{Manifest: m, ID: m.ID}
		switch flag {
		case "d":
			m.Damaged = "damaged"
		case "v":
			m.Verified = time.Time{}
		case "u":
			a = Archive{ID: m.ID, Err: os.ErrInvalid}
		}
		all = append(all, a)
	}
	return all
}

func TestExpired(t *testing.T) {
	now := time.Date(2026, 3, 10, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		name  string
		keep  Retention
		times []string
		gone  []string // their times
	}{
		{"none", Retention{7, 4, 6}, nil, nil},
		{"the newest of a day is kept", Retention{2, 0, 0},
			[]string{"2026-03-08T01:00:00Z", "2026-03-09T01:00:00Z", "2026-03-09T02:00:00Z", "2026-03-10T01:00:00Z"},
			[]string{"2026-03-08T01:00:00Z", "2026-03-09T01:00:00Z"}},
		{"only days with a backup count", Retention{2, 0, 0},
			[]string{"2020-01-01T01:00:00Z", "2021-01-01T01:00:00Z", "2022-01-01T01:00:00Z"},
			[]string{"2020-01-01T01:00:00Z"}},
		{"weeks across a new year", Retention{0, 2, 0},
			[]string{"2025-12-28T01:00:00Z", "2025-12-29T01:00:00Z", "2026-01-04T01:00:00Z", "2026-01-05T01:00:00Z"},
			[]string{"2025-12-28T01:00:00Z", "2025-12-29T01:00:00Z"}},
		{"months", Retention{0, 0, 2},
			[]string{"2026-01-31T01:00:00Z", "2026-02-01T01:00:00Z", "2026-02-28T01:00:00Z", "2026-03-01T01:00:00Z"},
			[]string{"2026-01-31T01:00:00Z", "2026-02-01T01:00:00Z"}},
		{"all zero keeps the newest", Retention{0, 0, 0},
			[]string{"2026-03-01T01:00:00Z", "2026-03-02T01:00:00Z"}, []string{"2026-03-01T01:00:00Z"}},
		{"archives from the future are kept and do not count", Retention{1, 0, 0},
			[]string{"2026-03-09T01:00:00Z", "2026-03-10T01:00:00Z", "2036-01-01T01:00:00Z", "2036-01-02T01:00:00Z"},
			[]string{"2026-03-09T01:00:00Z"}},
		{"all archives are from the future after a clock was reset", Retention{1, 0, 0},
			[]string{"2027-03-09T01:00:00Z", "2027-03-10T01:00:00Z"}, nil},
		{"archives that are not known to be good are kept and do not count", Retention{1, 0, 0},
			[]string{"2026-03-01T01:00:00Z", "2026-03-02T01:00:00Z", "2026-03-03T01:00:00Z d", "2026-03-04T01:00:00Z u", "2026-03-05T01:00:00Z v"},
			[]string{"2026-03-01T01:00:00Z"}},
	} {
		var gone []string
		for _, m := range c.keep.Expired(history(t, c.times...), now) {
			gone = append(gone, m.Time.Format(time.RFC3339))
		}
		if !slices.Equal(gone, c.gone) {
			t.Errorf("%s: expired %v; want %v", c.name, gone, c.gone)
		}
	}
}

// In ten thousand random histories, with clock changes, damaged archives and a prune
// after each backup, the newest verified archive is never removed, no archive is
// removed that is damaged or from the future, and enough daily archives are kept.
func TestPruneKeepsNewest(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	if s, err := strconv.ParseUint(os.Getenv("HUB_SEED"), 10, 64); err == nil {
		seed = s
	}
	t.Logf("HUB_SEED=%d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	for i := range 10_000 {
		if wrong := randomHistory(random); wrong != "" {
			t.Fatalf("history %d: %s", i, wrong)
		}
	}
}

func randomHistory(random *rand.Rand) string {
	keep := Retention{random.IntN(4), random.IntN(4), random.IntN(4)}
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(random.IntN(365*24)) * time.Hour)
	var all []Archive
	for range 1 + random.IntN(30) {
		switch random.IntN(12) {
		case 0: // the clock is set forward or back
			now = now.Add(time.Duration(random.IntN(800)-400) * 24 * time.Hour)
		case 1: // the clock starts at 1970 after a dead battery
			now = time.Unix(0, 0).UTC().Add(time.Duration(random.IntN(100)) * time.Hour)
		case 2: // another backup at the same time
		default:
			now = now.Add(time.Duration(random.IntN(48)) * time.Hour)
		}
		m := &Manifest{Time: now, ID: fmt.Sprint(now.Format(IDLayout), random.IntN(3)), Verified: now}
		switch random.IntN(10) {
		case 0:
			m.Damaged = "damaged"
		case 1:
			m.Verified = time.Time{}
		}
		all = append(all, Archive{Manifest: m, ID: m.ID})
		slices.SortStableFunc(all, func(a, b Archive) int { return a.made().Compare(b.made()) })
		var good []Archive
		for _, a := range all {
			if a.Damaged == "" && !a.Verified.IsZero() {
				good = append(good, a)
			}
		}
		last := Newest(good, now)
		gone := map[*Manifest]bool{}
		for _, g := range keep.Expired(all, now) {
			if g == last {
				return fmt.Sprintf("the newest verified archive is expired: %s, now %s", g.ID, now)
			}
			if g.Damaged != "" || g.Verified.IsZero() || g.Time.After(now.Add(ClockError)) {
				return fmt.Sprintf("an archive is expired that is damaged, not verified or from the future: %s, now %s", g.ID, now)
			}
			gone[g] = true
		}
		days := map[string]bool{}
		before := map[string]bool{}
		for _, a := range good {
			if a.Time.After(now.Add(ClockError)) {
				continue
			}
			day := a.Time.Format(time.DateOnly)
			before[day] = true
			if !gone[a.Manifest] {
				days[day] = true
			}
		}
		if len(days) < min(keep.KeepDaily, len(before)) {
			return fmt.Sprintf("%d of %d days are kept; want %d", len(days), len(before), keep.KeepDaily)
		}
		all = slices.DeleteFunc(all, func(a Archive) bool { return gone[a.Manifest] })
	}
	return ""
}

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

// history makes archives of the times, in the order of a repository: verified,
// unless a letter says otherwise: "d" damaged, "u" unreadable manifest, "v" never verified.
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
		{"newest of a day", Retention{2, 0, 0},
			[]string{"2026-03-08T01:00:00Z", "2026-03-09T01:00:00Z", "2026-03-09T02:00:00Z", "2026-03-10T01:00:00Z"},
			[]string{"2026-03-08T01:00:00Z", "2026-03-09T01:00:00Z"}},
		{"days with a backup, not days gone by", Retention{2, 0, 0},
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
		{"the future takes no place and stays", Retention{1, 0, 0},
			[]string{"2026-03-09T01:00:00Z", "2026-03-10T01:00:00Z", "2036-01-01T01:00:00Z", "2036-01-02T01:00:00Z"},
			[]string{"2026-03-09T01:00:00Z"}},
		{"a clock that was reset sees only the future", Retention{1, 0, 0},
			[]string{"2027-03-09T01:00:00Z", "2027-03-10T01:00:00Z"}, nil},
		{"what is not known to be good takes no place and stays", Retention{1, 0, 0},
			[]string{"2026-03-01T01:00:00Z", "2026-03-02T01:00:00Z", "2026-03-03T01:00:00Z d", "2026-03-04T01:00:00Z u", "2026-03-05T01:00:00Z v"},
			[]string{"2026-03-01T01:00:00Z"}},
	} {
		var gone []string
		for _, m := range c.keep.Expired(history(t, c.times...), now) {
			gone = append(gone, m.Time.Format(time.RFC3339))
		}
		if !slices.Equal(gone, c.gone) {
			t.Errorf("%s: %v goes; want %v", c.name, gone, c.gone)
		}
	}
}

// Over ten thousand random histories, with clocks that step, archives that are
// damaged and a prune after each backup: the newest verified archive never goes,
// nothing goes that is damaged or from the future, and what stays is enough.
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
		case 0: // the clock is set, either way
			now = now.Add(time.Duration(random.IntN(800)-400) * 24 * time.Hour)
		case 1: // a dead battery
			now = time.Unix(0, 0).UTC().Add(time.Duration(random.IntN(100)) * time.Hour)
		case 2: // back in the same moment
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
				return fmt.Sprintf("the newest verified archive goes: %s, now %s", g.ID, now)
			}
			if g.Damaged != "" || g.Verified.IsZero() || g.Time.After(now.Add(ClockError)) {
				return fmt.Sprintf("not for prune to judge: %s, now %s", g.ID, now)
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
			return fmt.Sprintf("%d days stay of %d; want %d", len(days), len(before), keep.KeepDaily)
		}
		all = slices.DeleteFunc(all, func(a Archive) bool { return gone[a.Manifest] })
	}
	return ""
}

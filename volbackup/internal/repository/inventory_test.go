package repository

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"observability-hub/lib/sysexits"
)

func TestInventory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	i, err := ReadInventory(dir)
	if err != nil || len(i.Volumes) != 0 {
		t.Fatalf("no inventory: %v, %v", i, err)
	}
	if i.See("a", "", "", day) || !i.See("b", "refused", "a bind mount", day) || i.See("b", "refused", "", day) {
		t.Error("See does not report whether the reason is new")
	}
	i.See("gone", "", "", day)
	if !i.Miss("gone", day) || i.Miss("gone", day) {
		t.Error("Miss does not report whether the volume was listed before")
	}
	i.See("forgotten", "", "", day)
	i.Miss("forgotten", time.Time{})
	i.Miss("earlier", day.Add(-time.Hour))
	if err := i.Write(dir); err != nil {
		t.Fatal(err)
	}
	if i, err = ReadInventory(dir); err != nil {
		t.Fatal(err)
	}
	old, fresh := &Manifest{Time: day}, &Manifest{Time: day.Add(48 * time.Hour)}
	now := day.Add(49 * time.Hour)
	for _, c := range []struct {
		name     string
		archives int
		good     *Manifest
		want     State
		alarms   bool
	}{
		{"a", 0, nil, NeverBackedUp, true},
		{"a", 1, fresh, Current, false},
		{"a", 1, old, Stale, true},
		{"a", 1, nil, Stale, true},
		{"b", 0, nil, Excluded, false},
		{"b", 1, old, Excluded, false},
		{"gone", 1, old, Retired, false},
		{"earlier", 1, old, Retired, false},
		{"forgotten", 0, nil, NeverBackedUp, true},
		{"put", 1, old, Stale, true},
		{"put", 1, fresh, Current, false},
	} {
		got := i.State(c.name, c.archives, c.good, now, 26*time.Hour)
		if got != c.want || got.Alarms() != c.alarms {
			t.Errorf("%s with %d archives: %s; want %s", c.name, c.archives, got, c.want)
		}
	}
	if got := i.State("a", 1, old, now, 0); got != Current {
		t.Errorf("without a maximum age: %s", got)
	}
	for name, want := range map[string]time.Duration{"a": 0, "put": 0, "gone": 48 * time.Hour, "earlier": 48 * time.Hour} {
		if got := i.GoneFor(name, day.Add(time.Hour), now); got != want {
			t.Errorf("%s has not existed for %v; want %v", name, got, want)
		}
	}
}

// A damaged or truncated file is not taken for an empty inventory.
func TestInventoryDamaged(t *testing.T) {
	dir := t.TempDir()
	i := NewInventory()
	i.See("a", "", "", day)
	if err := i.Write(dir); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, inventoryFile)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for at := range good {
		bad := bytes.Clone(good)
		bad[at] ^= 4
		for _, b := range [][]byte{bad, good[:at]} {
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
			if got, err := ReadInventory(dir); sysexits.Code(err) != sysexits.Failed {
				t.Fatalf("byte %d: accepted as %v, %v", at, got, err)
			}
		}
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := i.Write(filepath.Join(file, "below")); sysexits.Code(err) != sysexits.CantCreate {
		t.Errorf("written below a file: %v", err)
	}
}

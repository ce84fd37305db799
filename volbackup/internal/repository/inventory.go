package repository

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"observability-hub/lib/sysexits"
)

// Inventory is what the last run knew of the volumes of the host: what a monitor
// must expect does not follow from the archives that there are. It is the file
// .volumes.json, written before the first volume is read.
type Inventory struct {
	Version int               `json:"version"`
	Volumes map[string]*Entry `json:"volumes"` // by the name under which archives are kept
}

// Entry is one volume of an inventory.
type Entry struct {
	First   time.Time `json:"first_seen"`
	Seen    time.Time `json:"last_seen"`          // when the volume was last listed, or its last archive was made
	Gone    bool      `json:"gone,omitempty"`     // the last list did not have it
	LeftOut string    `json:"left_out,omitempty"` // why it is not backed up; empty: it is
	Detail  string    `json:"detail,omitempty"`   // more about that
}

const inventoryFile = ".volumes.json"

// NewInventory returns an empty inventory.
func NewInventory() *Inventory {
	return &Inventory{Version: ManifestVersion, Volumes: map[string]*Entry{}}
}

// ReadInventory returns the inventory of the directory dir, an empty one if no run
// has written one yet.
func ReadInventory(dir string) (*Inventory, error) {
	i := NewInventory()
	path := filepath.Join(dir, inventoryFile)
	b, err := readSmall(path)
	if errors.Is(err, fs.ErrNotExist) {
		return i, nil
	}
	if err == nil {
		err = unseal(b, i)
	}
	if err == nil && i.Version != ManifestVersion {
		err = fmt.Errorf("version %d, which this volbackup does not know", i.Version)
	}
	if err != nil {
		return nil, sysexits.New(sysexits.Failed, "inventory_damaged", fmt.Errorf("inventory %s: %w", path, err)).
			WithHint("volbackup run writes it anew")
	}
	return i, nil
}

// Write replaces the inventory of the directory dir, and makes the directory.
func (i *Inventory) Write(dir string) error {
	b, err := seal(i)
	if err == nil {
		if err = os.Mkdir(dir, 0o700); err == nil {
			err = handOver(filepath.Dir(dir), dir)
		} else if errors.Is(err, fs.ErrExist) {
			err = nil
		}
		if err == nil {
			err = replace(filepath.Join(dir, inventoryFile), b)
		}
	}
	if err != nil {
		return Unwritable(fmt.Errorf("inventory: %w", err))
	}
	return nil
}

// See notes that a volume is there, and why it is left out, if it is. It reports
// whether the reason is new.
func (i *Inventory) See(name, leftOut, detail string, now time.Time) (isNew bool) {
	e := i.Volumes[name]
	if e == nil {
		e = &Entry{First: now}
		i.Volumes[name] = e
	}
	isNew = e.LeftOut != leftOut
	e.Seen, e.Gone, e.LeftOut, e.Detail = now, false, leftOut, detail
	return isNew
}

// Miss notes that a volume was not listed. last is when its newest archive was
// made; a volume without one is forgotten. It reports whether that is new.
func (i *Inventory) Miss(name string, last time.Time) (isNew bool) {
	e := i.Volumes[name]
	if last.IsZero() {
		delete(i.Volumes, name)
		return false
	}
	if e == nil {
		e = &Entry{First: last, Seen: last}
		i.Volumes[name] = e
	}
	isNew = !e.Gone
	e.Gone = true
	return isNew
}

// State is how a volume stands.
type State string

// States of a volume.
const (
	Current       State = "current"         // it has a verified archive that is new enough
	NeverBackedUp State = "never_backed_up" // it is there, is to be backed up, and has no archive
	Stale         State = "stale"           // it has no verified archive that is new enough
	Retired       State = "retired"         // Docker does not have it any more; its archives stay
	Excluded      State = "excluded"        // it is left out, for the reason in the inventory
)

// Alarms reports whether somebody has to look.
func (s State) Alarms() bool { return s == NeverBackedUp || s == Stale }

// State returns the state of a volume with so many archives, of which good is the
// newest verified one, nil if there is none. A maxAge of 0 takes any age.
func (i *Inventory) State(name string, archives int, good *Manifest, now time.Time, maxAge time.Duration) State {
	e := i.Volumes[name]
	switch {
	case e != nil && e.Gone:
		return Retired
	case e != nil && e.LeftOut != "":
		return Excluded
	case archives == 0:
		return NeverBackedUp
	case good == nil || maxAge > 0 && now.Sub(good.Time) > maxAge:
		return Stale
	}
	return Current
}

// GoneFor returns how long a retired volume has been gone at least: since it was
// last listed and since its newest archive was made. It is 0 for any other volume.
func (i *Inventory) GoneFor(name string, last, now time.Time) time.Duration {
	e := i.Volumes[name]
	if e == nil || !e.Gone {
		return 0
	}
	return min(now.Sub(e.Seen), now.Sub(last))
}

package repository

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"observability-hub/lib/statedir"
	"observability-hub/lib/sysexits"
)

// Inventory lists the volumes of the host that the last run found. A monitor needs it,
// because the archives do not show which volumes should have a backup. Its file is
// .volumes.json, which is written before the first volume is read.
type Inventory struct {
	Version int               `json:"version"`
	Volumes map[string]*Entry `json:"volumes"` // by the name under which archives are kept
}

// Entry is one volume of an inventory.
type Entry struct {
	First   time.Time `json:"first_seen"`
	Seen    time.Time `json:"last_seen"`          // when the volume was last listed, or its last archive was made
	Gone    bool      `json:"gone,omitempty"`     // the volume was not in the last list
	LeftOut string    `json:"left_out,omitempty"` // why the volume is not backed up, "" if it is backed up
	Detail  string    `json:"detail,omitempty"`   // details of LeftOut
}

const inventoryFile = ".volumes.json"

// NewInventory returns an empty inventory.
func NewInventory() *Inventory {
	return &Inventory{Version: ManifestVersion, Volumes: map[string]*Entry{}}
}

// ReadInventory returns the inventory of the directory dir, or an empty one if no run
// has written it yet.
func ReadInventory(dir string) (*Inventory, error) {
	i := NewInventory()
	path := filepath.Join(dir, inventoryFile)
	b, err := readSmall(path)
	if errors.Is(err, fs.ErrNotExist) {
		return i, nil
	}
	if _, ok := errors.AsType[*fs.PathError](err); ok {
		return nil, statedir.Unreadable(err)
	}
	if err == nil {
		err = unseal(b, i)
	}
	if err == nil && i.Version != ManifestVersion {
		err = fmt.Errorf("version %d is not supported by this volbackup", i.Version)
	}
	if err != nil {
		return nil, sysexits.New(sysexits.Failed, "inventory_damaged", fmt.Errorf("inventory %s: %w", path, err)).
			WithHint("volbackup run writes a new one")
	}
	return i, nil
}

// Write replaces the inventory of the directory dir, which it creates if necessary.
func (i *Inventory) Write(dir string) error {
	b, err := seal(i)
	if err == nil {
		if err = makeDir(dir); errors.Is(err, fs.ErrExist) {
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

// See records that a volume exists, and why it is left out, if it is. isNew reports
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

// Miss records that a volume was not listed. last is the time of its newest archive.
// If last is zero, the volume has no archive and is removed from the inventory. isNew
// reports whether the volume was listed before.
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

// State is the state of a volume's backups.
type State string

// States of a volume.
const (
	Current       State = "current"         // has a verified archive that is new enough
	NeverBackedUp State = "never_backed_up" // exists, is to be backed up, and has no archive
	Stale         State = "stale"           // has no verified archive that is new enough
	Retired       State = "retired"         // no longer exists in Docker; its archives are kept
	Excluded      State = "excluded"        // is left out, for the reason in the inventory
)

// Alarms reports whether the state needs an administrator's attention.
func (s State) Alarms() bool { return s == NeverBackedUp || s == Stale }

// State returns the state of a volume. archives is the number of its archives, and
// good is the newest verified one, nil if there is none. A maxAge of 0 accepts any age.
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

// GoneFor returns how long a retired volume has not existed, at least: the time since
// it was last listed, or since its newest archive was made, whichever is shorter. It
// returns 0 for any other volume.
func (i *Inventory) GoneFor(name string, last, now time.Time) time.Duration {
	e := i.Volumes[name]
	if e == nil || !e.Gone {
		return 0
	}
	return min(now.Sub(e.Seen), now.Sub(last))
}

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"observability-hub/lib/cli"
	"observability-hub/lib/record"
	"observability-hub/lib/sysexits"
	"observability-hub/lib/table"
	"observability-hub/volbackup/internal/repository"
)

type statusCmd struct {
	repositoryFlags
	engineFlags
	table.Flag
	MaxAge  time.Duration `placeholder:"D"`
	Volumes []string      `arg:"" optional:"" name:"volume" help:"Only these volumes."`
}

func (c *statusCmd) Validate() error {
	if c.MaxAge < 0 {
		return fmt.Errorf("--max-age must not be negative, got %v", c.MaxAge)
	}
	return nil
}

// Immediate implements [cli.Immediate].
func (c *statusCmd) Immediate() bool { return !c.isRestic() }

// Viewer implements [cli.Viewable].
func (c *statusCmd) Viewer(w io.Writer) cli.Viewer {
	return c.Show(w, table.Columns{"backup_status": {"volume", "state", "age_s", "archives", "damaged", "newest", "reason", "detail"}})
}

// Run prints the state of each volume: it compares the inventory with the
// manifests. It reads no archive and takes no lock.
func (c *statusCmd) Run(ctx context.Context, env *cli.Env) error {
	if err := checkVolumes(c.Volumes); err != nil {
		return err
	}
	e, err := c.engine(env, c.repositoryFlags, identityFlags{}, stagingFlags{}, scriptFlags{})
	if err != nil {
		return err
	}
	inventory, err := expected(e)
	if err != nil {
		return err
	}
	found, err := e.archives(ctx, c.Volumes, false)
	if err != nil {
		return err
	}
	return c.report(env, e, inventory, found)
}

// expected returns the inventory of an engine.
func expected(e engine) (*repository.Inventory, error) {
	dir, err := e.inventory()
	if err != nil {
		return nil, err
	}
	return repository.ReadInventory(dir)
}

// report prints a record for each volume and fails if one is too old or missing.
func (c *statusCmd) report(env *cli.Env, e engine, inventory *repository.Inventory, found map[string][]repository.Archive) error {
	all := map[string]bool{}
	for v := range found {
		all[v] = true
	}
	if len(c.Volumes) == 0 {
		for v := range inventory.Volumes {
			all[v] = true
		}
	}
	for _, v := range c.Volumes {
		all[v] = true
	}
	now := time.Now()
	var stale, never []string
	for _, v := range sortedKeys(all) {
		state, line := c.status(v, inventory, found[v], now, env.Service)
		switch state {
		case repository.Stale:
			stale = append(stale, v)
		case repository.NeverBackedUp:
			never = append(never, v)
		}
		if err := env.Stdout.Record(level(state), line); err != nil {
			return err
		}
	}
	if len(all) == 0 {
		return repository.Missing(errors.New(e.where() + ": no backup of any volume"))
	}
	var wrong []string
	if len(stale) > 0 {
		wrong = append(wrong, "no recent verified backup: "+strings.Join(stale, ", "))
	}
	if len(never) > 0 {
		wrong = append(wrong, "never backed up: "+strings.Join(never, ", "))
	}
	if len(wrong) == 0 {
		return nil
	}
	return sysexits.New(sysexits.Failed, "backup_stale", errors.New(strings.Join(wrong, "; "))).
		WithHint("journalctl -u volume-backup shows why; if a volume needs no backup, name it in --exclude or VOLBACKUP_EXCLUDE")
}

func level(s repository.State) string {
	if s.Alarms() {
		return record.Warn
	}
	return record.Info
}

// status returns the state of a volume, and its record.
func (c *statusCmd) status(v string, inventory *repository.Inventory, all []repository.Archive, now time.Time, service string) (repository.State, []byte) {
	var good []repository.Archive
	bad := 0
	for _, a := range all {
		if a.Manifest == nil || a.Damaged != "" {
			bad++
		} else if !a.Verified.IsZero() {
			good = append(good, a)
		}
	}
	last := repository.Newest(good, now)
	state := inventory.State(v, len(all), last, now, c.MaxAge)
	l := record.New(now, level(state), "backup_status", service)
	l.String("volume", v)
	l.Int("archives", int64(len(all)))
	l.Int("damaged", int64(bad))
	if last == nil {
		l.Null("newest")
		l.Null("age_s")
	} else {
		l.String("newest", last.ID)
		l.Float("age_s", now.Sub(last.Time).Seconds())
	}
	l.Bool("stale", state.Alarms())
	l.String("state", string(state))
	if e := inventory.Volumes[v]; state == repository.Excluded {
		l.String("reason", e.LeftOut)
		if e.Detail != "" {
			l.String("detail", e.Detail)
		}
	}
	return state, l.End()
}

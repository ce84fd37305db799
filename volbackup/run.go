package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"time"

	"observability-hub/lib/cli"
	"observability-hub/lib/record"
	"observability-hub/lib/statedir"
	"observability-hub/lib/sysexits"
	"observability-hub/volbackup/internal/repository"
)

type runCmd struct {
	repositoryFlags
	storeFlags
	scriptFlags
	engineFlags
	choiceFlags
	repository.Retention
	Timeout time.Duration `default:"6h" placeholder:"D"`
	Reread  bool
	Volumes []string `arg:"" optional:"" name:"volume" help:"Only these volumes; with -, those on stdin, one a line."`
}

func (c *runCmd) Validate() error {
	if c.Timeout <= 0 {
		return fmt.Errorf("--timeout must be greater than 0, got %v", c.Timeout)
	}
	return errors.Join(c.Retention.Validate(), c.choiceFlags.Validate())
}

// run is one run of the command: its flags, its state and its results.
type run struct {
	*runCmd
	env       *cli.Env
	engine    engine
	inventory *repository.Inventory
	dir       string // directory of the inventory
	begun     time.Time

	volumes, leftOut, unchanged, pruned int
	failed                              []error
	noted                               bool // the inventory was changed after plan wrote it
}

// Run backs up one group of volumes after the other. A failure of one volume does
// not stop the others.
func (c *runCmd) Run(ctx context.Context, env *cli.Env) error {
	names, err := c.names(env.Stdin)
	if err != nil {
		return err
	}
	if c.Repo == "" { // run creates a repository that is missing
		if c.StateDir, err = statedir.Resolve(c.StateDir, family); err != nil {
			return err
		}
	}
	e, err := c.engine(env, c.repositoryFlags, identityFlags{}, c.stagingFlags, c.scriptFlags)
	if err != nil {
		return err
	}
	switch e := e.(type) {
	case *directory:
		e.run = c
	case *restic:
		e.run = c
	}
	r := &run{runCmd: c, env: env, engine: e, begun: time.Now()}
	if err := e.begin(ctx); err != nil {
		return err
	}
	defer e.end()
	volumes, err := r.plan(ctx, names)
	if err != nil {
		return err
	}
	volumes = slices.DeleteFunc(volumes, func(v volume) bool {
		if v.Refused == "" || v.named { // the export of a named volume fails with the reason and a hint
			return false
		}
		r.done(outcome{v: v, started: time.Now(), err: &scriptError{errors.New(v.Refused), volumeRefused}})
		return true
	})
	for _, group := range groups(volumes) {
		e.backUp(ctx, group, r.done)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	settled := e.settle(ctx, r.done)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if settled != nil {
		r.failed, settled = append(r.failed, settled), nil
	}
	r.report()
	if r.noted {
		settled = r.inventory.Write(r.dir)
	}
	return errors.Join(partly(r.failed, r.volumes), settled)
}

// names returns the volumes that were named on the command line or on stdin.
func (c *runCmd) names(stdin io.Reader) ([]string, error) {
	names := c.Volumes
	if slices.Equal(names, []string{"-"}) {
		names = nil
		lines := bufio.NewScanner(stdin)
		for lines.Scan() {
			if name := strings.TrimSpace(lines.Text()); name != "" {
				names = append(names, name)
			}
		}
		if err := lines.Err(); err != nil {
			return nil, fmt.Errorf("read stdin: %w", err)
		}
		if len(names) == 0 {
			return nil, sysexits.New(sysexits.DataErr, "no_names", errors.New("no volume on stdin")).
				WithHint("manage_volume.sh list | jq -r .volume | volbackup run -")
		}
	}
	return names, checkVolumes(names)
}

// plan returns the volumes to back up. It writes the inventory before the first volume
// is read.
func (r *run) plan(ctx context.Context, names []string) ([]volume, error) {
	all, err := r.list(ctx)
	if err != nil {
		return nil, err
	}
	if r.dir, err = r.engine.inventory(); err != nil {
		return nil, err
	}
	if r.inventory, err = repository.ReadInventory(r.dir); errors.Is(err, fs.ErrPermission) {
		return nil, err
	} else if err != nil {
		r.env.Diag.Warn("inventory_damaged", err.Error())
		r.inventory = repository.NewInventory()
	}
	chosen, leftOut, err := r.choose(all)
	if err != nil && len(names) == 0 {
		return nil, err
	}
	if len(names) > 0 { // the other volumes are not part of this run
		chosen, leftOut = pick(all, names), nil
	}
	for _, v := range chosen {
		if v.Driver == "" { // manage_volume.sh list does not have the volume
			continue
		}
		why, detail := "", ""
		if e := r.inventory.Volumes[v.name]; e != nil && e.LeftOut == cannotBeRead { // keep the reason until done has the result
			why, detail = e.LeftOut, e.Detail
		}
		r.inventory.See(v.name, why, detail, r.begun)
	}
	for _, reason := range sortedKeys(leftOut) {
		for _, v := range leftOut[reason] {
			r.inventory.See(v.name, reason, "", r.begun)
		}
		r.sayLeftOut(reason, leftOut[reason], "")
	}
	if err := r.miss(ctx, all); err != nil {
		return nil, err
	}
	if err := r.inventory.Write(r.dir); err != nil { // on a full disk keep the old inventory, and let the backups report the error
		r.env.Diag.Warn("mark_failed", err.Error())
	}
	return chosen, nil
}

// miss records the volumes that no longer exist in Docker, but have archives or are in
// the inventory. Archives that put stored name no driver. If a volume has only such
// archives, it never existed in Docker and is ignored.
func (r *run) miss(ctx context.Context, all []volume) error {
	there := map[string]bool{}
	for _, v := range all {
		there[v.Volume], there[v.name] = true, true
	}
	found, err := r.engine.archives(ctx, nil, false)
	if err != nil {
		return err
	}
	names := map[string]bool{}
	for v := range r.inventory.Volumes {
		names[v] = true
	}
	for v := range found {
		names[v] = true
	}
	for _, v := range sortedKeys(names) {
		if there[v] {
			continue
		}
		last := repository.Newest(found[v], r.begun)
		switch {
		case last == nil && len(found[v]) > 0: // all archives are damaged: keep the entry
		case last == nil:
			r.inventory.Miss(v, time.Time{})
		case r.inventory.Volumes[v] != nil || last.Driver != "":
			if r.inventory.Miss(v, last.Time) {
				r.env.Diag.Warn("volume_gone", fmt.Sprintf("volume %s no longer exists; its backups (%d) are kept; see RETENTION in volbackup(1)", v, len(found[v])))
			}
		}
	}
	return nil
}

// done counts and prints the outcome of one volume. A volume that can never be backed
// up is left out, with a warning the first time, unless it is named on the command line.
func (r *run) done(o outcome) {
	why := refusal(o.err)
	switch {
	case o.v.named: // report the failure
	case why == isGone:
		r.noted = true
		r.inventory.Miss(o.v.name, time.Time{})
		r.sayLeftOut(why, []volume{o.v}, o.err.Error())
		return
	case why == cannotBeRead:
		r.noted = true
		if r.inventory.See(o.v.name, why, o.err.Error(), r.begun) {
			r.env.Diag.Warn("volume_left_out", fmt.Sprintf("volume %s is not backed up: %v", o.v.name, o.err))
		}
		r.sayLeftOut(why, []volume{o.v}, o.err.Error())
		return
	}
	if e := r.inventory.Volumes[o.v.name]; e != nil && e.LeftOut != "" && why == "" {
		r.inventory.See(o.v.name, "", "", r.begun)
		r.noted = true
	}
	r.volumes++
	if o.err != nil {
		r.failed = append(r.failed, fmt.Errorf("%s: %w", o.v.name, o.err))
	}
	if o.unchanged {
		r.unchanged++
	}
	r.pruned += o.pruned
	o.report(r.env)
}

// sayLeftOut prints the record of the volumes that are left out for the same reason.
func (r *run) sayLeftOut(reason string, volumes []volume, detail string) {
	const most = 100 // maximum number of names in the record
	r.leftOut += len(volumes)
	var names []string
	for _, v := range volumes[:min(len(volumes), most)] {
		names = append(names, v.Volume)
	}
	l := record.New(time.Now(), record.Info, "left_out", r.env.Service)
	l.String("reason", reason)
	l.Int("count", int64(len(volumes)))
	l.Strings("volumes", names)
	if detail != "" {
		l.String("detail", detail)
	}
	_ = r.env.Stdout.Record(record.Info, l.End()) // a failing stdout fails the run at its end, as in outcome.report
}

func (r *run) report() {
	level := record.Info
	if len(r.failed) > 0 {
		level = record.Error
	}
	now := time.Now()
	l := record.New(now, level, "backup_finished", r.env.Service)
	l.Int("volumes", int64(r.volumes))
	l.Int("stored", int64(r.volumes-r.unchanged-len(r.failed)))
	l.Int("unchanged", int64(r.unchanged))
	l.Int("failed", int64(len(r.failed)))
	l.Int("left_out", int64(r.leftOut))
	l.Int("pruned", int64(r.pruned))
	l.Float("duration_s", now.Sub(r.begun).Seconds())
	_ = r.env.Stdout.Record(level, l.End())
}

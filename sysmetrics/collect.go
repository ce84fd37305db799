package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"

	"observability-hub/lib/cli"
	"observability-hub/lib/record"
	"observability-hub/lib/statedir"
	"observability-hub/lib/sysexits"
	"observability-hub/sysmetrics/internal/statfs"
)

// collectCmd samples this host.
type collectCmd struct {
	stateFlags
	databaseFlags
	Flush      bool
	FlushEvery time.Duration `placeholder:"D"`
	Interval   time.Duration `placeholder:"D"`
	Host       string        `placeholder:"NAME"`

	Interfaces        []string `placeholder:"PATTERN"`
	InterfacesExclude []string `default:"auto" placeholder:"PATTERN"`
	Disks             []string `placeholder:"PATTERN"`
	DisksExclude      []string `default:"loop*,ram*,zram*,sr*,fd*,nbd*" placeholder:"PATTERN"`
	Mounts            []string `placeholder:"PATTERN"`
	MountsExclude     []string `default:"/boot,/boot/*" placeholder:"PATTERN"`
	FsTypes           []string `placeholder:"TYPE"`

	Rootfs    string `placeholder:"DIR"`
	Procfs    string `hidden:""`
	Sysfs     string `hidden:""`
	OsRelease string `hidden:""`
	Now       string `hidden:""`

	ask func(context.Context, []string) []statfs.Answer `kong:"-"` // used by tests: answers for the mounts of a copied /proc
}

func (c *collectCmd) Validate() error {
	if c.Interval < 0 || c.Interval > time.Hour {
		return fmt.Errorf("--interval must be from 0 to 1h, got %v", c.Interval)
	}
	if c.FlushEvery != 0 && (c.FlushEvery < time.Minute || c.FlushEvery > maxFlushEvery) {
		return fmt.Errorf("--flush-every must be 0, or from 1m to %v, got %v", maxFlushEvery, c.FlushEvery)
	}
	if _, err := c.wall(); err != nil {
		return err
	}
	if len(c.Host) > maxName {
		return fmt.Errorf("--host must not be longer than %d bytes", maxName)
	}
	return validate(c.stateFlags, c.databaseFlags)
}

// maxFlushEvery is less than the age at which hub-status reports the records in
// the spool as a problem, so that waiting for the time to send is never one.
const maxFlushEvery = 30 * time.Minute

// maxName is the maximum length of host and os, which precede the payload, in
// bytes.
const maxName = 255

// wall returns the time of --now, or zero if that flag was not given.
func (c *collectCmd) wall() (time.Time, error) {
	if c.Now == "" {
		return time.Time{}, nil
	}
	t, err := time.Parse(time.RFC3339Nano, c.Now)
	if err != nil {
		return t, fmt.Errorf("--now must be a time in RFC 3339, such as 2026-01-02T03:04:05Z, got %q", c.Now)
	}
	return t, nil
}

// reading is the result of one pass over the kernel's files.
type reading struct {
	snapshot
	machineID string
	resources []*resource
}

// written is what one pass read about a resource. It can write the payload.
type written interface{ write(payload) }

// resource becomes one record. It holds what was read, and notes on what could
// not be read.
type resource struct {
	metricType string
	state      written
	notes      notes
}

// Run takes one sample.
func (c *collectCmd) Run(ctx context.Context, env *cli.Env) error {
	return c.run(ctx, env)
}

// Immediate implements [cli.Immediate].
func (c *collectCmd) Immediate() bool { return !c.waits() }

// waits reports whether the run waits for a database or for the end of the
// interval.
func (c *collectCmd) waits() bool {
	return c.Flush || c.Interval > 0
}

func (c *collectCmd) run(ctx context.Context, env *cli.Env) error {
	root := strings.TrimRight(c.Rootfs, "/")
	c.Procfs, c.Sysfs = cmp.Or(c.Procfs, root+"/proc"), cmp.Or(c.Sysfs, root+"/sys")
	h, err := newHost(c.Procfs, c.Sysfs, cmp.Or(c.OsRelease, root+"/etc/os-release"))
	if err != nil {
		return sysexits.New(sysexits.Config, "no_procfs", err).WithHint("pass the directory where procfs is mounted: --procfs /proc, or in a container --rootfs with the root of the host")
	}
	h.rootfs = root
	switch {
	case c.ask != nil:
		h.ask = c.ask
	case root == "" && c.Procfs == "/proc":
		h.askHere = statfs.AskHere
	}
	dir, err := c.open(ctx, env)
	if code := sysexits.Code(err); code == sysexits.CantCreate || code == sysexits.Config {
		// Without state the tool still prints its numbers, with rates since boot.
		return errors.Join(c.sample(ctx, env, h, nil), err)
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	return c.sample(ctx, env, h, dir)
}

// clock returns the kernel's clocks or, for a copied /proc, the uptime in the
// copy.
func (c *collectCmd) clock(h *host) (clock, error) {
	k, err := readClock()
	if err != nil {
		return k, err
	}
	if wall, err := c.wall(); err != nil {
		return k, err
	} else if !wall.IsZero() {
		k.wall = wall
	}
	if c.Procfs == "/proc" {
		return k, nil
	}
	data, err := h.read("uptime")
	if err != nil {
		return k, nil // a copy without the file: use this machine's clocks
	}
	k.monotonic, err = parseUptime(data)
	k.boottime = k.monotonic
	return k, err
}

// stagingWait is how long collect --flush waits for another run to release the
// lock. hub-status.timer starts a run that holds it while it adds records to the
// spool. The unit has 10 seconds, of which the database may take 7.
const stagingWait = time.Second

// open resolves and locks the state directory.
func (c *collectCmd) open(ctx context.Context, env *cli.Env) (*statedir.Dir, error) {
	path, err := statedir.Resolve(c.StateDir, env.Service)
	if err != nil {
		return nil, err
	}
	wait := time.Duration(0)
	if c.Flush {
		wait = stagingWait
	}
	return statedir.Open(ctx, path, wait)
}

// sample reads the host, makes the records, and prints or delivers them. dir is
// nil if there is no state directory. If the state cannot be kept in dir, sample
// returns an error, but only after it has printed or delivered the records.
func (c *collectCmd) sample(ctx context.Context, env *cli.Env, h *host, dir *statedir.Dir) error {
	var prev *snapshot
	if dir != nil {
		var err error
		if prev, err = loadState(dir); err != nil {
			env.Diag.Warn("state_unreadable", err.Error()+"; the rates of this run are averages since boot")
		}
	}
	cur, err := c.read(ctx, h, prev)
	if err != nil {
		return err
	}
	if c.Interval > 0 {
		select {
		case <-time.After(c.Interval):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		prev = &cur.snapshot
		if cur, err = c.read(ctx, h, prev); err != nil {
			return err
		}
	}
	lines, err := c.records(env, h, prev, cur)
	if err != nil {
		return err
	}
	wait := c.Flush && c.sendLater(prev, cur)
	// The state is kept only after the records were printed or stored. If they
	// were not, the next run's window covers this run's window too.
	keep := nothing
	if dir != nil {
		// No fsync: after a power loss the boot is another one, and its counters
		// cannot be compared with these.
		keep = func() error { return dir.ReplaceVolatile(stateFile, cur.encode()) }
	}
	if c.Flush {
		batch := make([]entry, len(lines))
		for i, line := range lines {
			batch[i] = entry{line: line, host: c.Host, time: cur.clock.wall}
		}
		d := delivery{env: env, stateFlags: c.stateFlags, databaseFlags: c.databaseFlags, sampled: time.Now()}
		if wait {
			d.waitUntil = c.slots(cur).next(cur.clock.wall)
		}
		return d.finish(d.deliver(ctx, dir, batch, keep))
	}
	if err := env.Stdout.Record(record.Info, slices.Concat(lines...)); err != nil {
		return err
	}
	if c.waits() {
		return keep()
	}
	return cli.Uninterrupted(keep)
}

// slots returns the slots of --flush-every.
func (c *collectCmd) slots(r *reading) slots { return newSlots(c.FlushEvery, r.machineID, c.Host) }

// sendLater reports whether the records of this run wait in the spool for this
// host's next slot. In each slot the first run sends the whole spool, also if the
// database then fails: when a database is back after an hour, its hosts must not
// all come at once. cur gets the time of the last run that sent. sendLater needs
// that time and no other state, so a lost state only makes one run send early.
func (c *collectCmd) sendLater(prev *snapshot, cur *reading) bool {
	if c.FlushEvery == 0 {
		return false
	}
	// The state keeps milliseconds.
	if now := cur.clock.wall.Truncate(time.Millisecond); prev == nil || prev.sent.IsZero() || !c.slots(cur).same(prev.sent, now) {
		cur.sent = now
		return false
	}
	cur.sent = prev.sent
	return true
}

// read makes one pass over the kernel's files. From the previous pass it takes
// the mounts that hung, if that pass was in the same boot: after a reboot the
// mounts are other mounts.
func (c *collectCmd) read(ctx context.Context, h *host, prev *snapshot) (*reading, error) {
	r := &reading{}
	r.counters = make(counters, 256)
	var err error
	if r.bootID, err = h.bootID(); err != nil {
		r.bootID = "unknown" // then the sign of a reboot is a monotonic clock that went back
	}
	if prev != nil && prev.bootID == r.bootID {
		r.hung = prev.hung
	}
	if r.clock, err = c.clock(h); err != nil {
		return nil, err
	}
	r.machineID = h.machineID()
	for _, read := range []struct {
		metricType string
		state      func(*notes) written
	}{
		{"cpu", func(n *notes) written { return h.readCPU(r.counters, n) }},
		{"memory", func(n *notes) written { return h.readMemory(r.counters, n) }},
		{"disk", func(n *notes) written {
			return h.readDisk(ctx, diskFilter{
				mounts:  mountFilter{filter{c.Mounts, c.MountsExclude}, c.FsTypes},
				devices: filter{c.Disks, c.DisksExclude},
			}, r.clock, &r.hung, r.counters, n)
		}},
		{"network", func(n *notes) written {
			return h.readNetwork(interfaceFilter{c.Interfaces, c.InterfacesExclude}, r.counters, n)
		}},
	} {
		res := &resource{metricType: read.metricType}
		res.state = read.state(&res.notes)
		r.resources = append(r.resources, res)
	}
	return r, ctx.Err()
}

// records makes the four lines of a sample.
func (c *collectCmd) records(env *cli.Env, h *host, prev *snapshot, cur *reading) ([][]byte, error) {
	if c.Host == "" {
		var err error
		if c.Host, err = h.hostname(); err != nil {
			return nil, err
		}
	}
	w, os := newWindow(prev, &cur.snapshot), h.os()
	nothing := func() {}
	lines := make([][]byte, 0, 4)
	for _, r := range cur.resources {
		l := record.New(cur.clock.wall, record.Info, "sample", env.Service)
		l.String("host", c.Host)
		l.String("os", os)
		l.String("metric_type", r.metricType)
		more := nothing
		if r.metricType == "cpu" {
			more = func() { writeSelf(l) }
		}
		l.Object("payload", func() {
			r.state.write(payload{Line: l, window: w, notes: &r.notes})
			r.notes.write(l, w, cur, more)
		})
		lines = append(lines, l.End())
	}
	return lines, nil
}

// writeSelf adds the cost of this run so far: its CPU time in milliseconds and
// its maximum resident size in bytes.
func writeSelf(l *record.Line) {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return
	}
	l.Object("self", func() {
		l.Float("cpu_ms", float64(u.Utime.Nano()+u.Stime.Nano())/1e6)
		l.Int("max_rss", int64(u.Maxrss)<<10)
	})
}

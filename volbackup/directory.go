package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"observability-hub/lib/cli"
	"observability-hub/lib/command"
	"observability-hub/lib/record"
	"observability-hub/lib/statedir"
	"observability-hub/lib/sysexits"
	"observability-hub/volbackup/internal/repository"
)

// directory is the engine for a repository of plain files.
type directory struct {
	*repository.Repository
	env  *cli.Env
	keys identityFlags
	run  *runCmd // of run: its flags
	s    *store  // of run
}

func (d *directory) where() string { return d.Root }

func (d *directory) inventory() (string, error) { return d.Root, nil }

// begin locks the repository and repairs what a killed run left.
func (d *directory) begin(ctx context.Context) error {
	if d.run == nil {
		return repair(ctx, d.env, d.Repository, d.ClaimExisting)
	}
	s, err := d.run.store(ctx, d.env, d.Repository)
	if err != nil {
		return err
	}
	s.reread = d.run.Reread
	d.s = s
	return nil
}

func (d *directory) end() { _ = d.Release() }

// repair locks a repository and publishes or removes the files that a killed run left.
func repair(ctx context.Context, env *cli.Env, r *repository.Repository, claim func(context.Context) error) error {
	if err := claim(ctx); err != nil {
		return err
	}
	if err := r.Repair(); err != nil { // concerns single volumes, whose own backups will fail too
		env.Diag.Warn("mark_failed", err.Error())
	}
	return nil
}

// producer returns a producer that runs manage_volume.sh with the arguments.
func (d *directory) producer(args ...string) *producer {
	return &producer{args: append([]string{d.run.ManageVolume}, args...), said: said{Diag: d.env.Diag}}
}

// backUp stores the volumes one after the other. If volumes share containers, it stops
// the containers once and reads all volumes before it stores the first.
func (d *directory) backUp(ctx context.Context, group []volume, done func(outcome)) {
	if len(group) > 1 && d.together(ctx, group, done) {
		return
	}
	for _, v := range group {
		d.each(ctx, v, done, func(ctx context.Context, o *outcome) (bool, error) {
			p := d.producer("export", v.Volume)
			p.tar, p.trees, p.holds, p.dir = true, true, v.held(), v.Mountpoint
			defer o.wasDown(p)
			return d.s.put(ctx, o.m, p)
		})
		if ctx.Err() != nil {
			return
		}
	}
}

// each backs up one volume with put and reads the archive back. Only then it removes
// expired archives.
func (d *directory) each(ctx context.Context, v volume, done func(outcome), put func(context.Context, *outcome) (bool, error)) {
	o := outcome{v: v, started: time.Now()}
	end := progress(d.env, v.name, 0, d.s.progressed)
	func() {
		ctx, cancel := context.WithTimeoutCause(ctx, d.run.Timeout, fmt.Errorf("not done within %v", d.run.Timeout))
		defer cancel()
		for again := true; again; again = errors.Is(o.err, errBaseDamaged) {
			o.m = v.manifest()
			o.unchanged, o.err = put(ctx, &o)
		}
		if o.err != nil {
			return
		}
		if o.m.LinkOf == "" { // a link's file was read before it was linked
			if o.err = d.s.Check(ctx, o.m); o.err != nil {
				o.m.Damaged = o.err.Error()
				o.err = errors.Join(repository.DamagedError(v.name, o.m.ID, o.err), d.s.Update(o.m))
				return
			}
		}
		o.pruned, o.err = d.s.retire(d.run.Retention, o.m, time.Now())
	}()
	end()
	if ctx.Err() == nil {
		done(o)
	}
}

func (v volume) manifest() *repository.Manifest {
	return &repository.Manifest{Volume: v.name, Labels: v.Labels, Driver: v.Driver}
}

// readAll is a script that writes the tar streams of the volumes to descriptors 4, 5 and
// so on, and the exit status of each tar to descriptor 3. Its $0 is manage_volume.sh.
const readAll = `for ((n = 1; n <= $#; n++)); do
  path=VOLUME_PATH_$n status=0
  "$0" tar "${!path}" >&"$((n + 3))" 3>&- || status=$?
  echo "$status" >&3
done`

// together backs up volumes that share containers. It returns false if the volumes must
// be read one by one, because manage_volume.sh accepts only one volume or refuses one of
// them.
func (d *directory) together(ctx context.Context, group []volume, done func(outcome)) bool {
	timed, cancel := context.WithTimeoutCause(ctx, d.run.Timeout*time.Duration(len(group)), fmt.Errorf("not done within %v", d.run.Timeout))
	defer cancel()
	started := time.Now()
	var p *producer
	failed := func(err error) bool {
		if ctx.Err() != nil { // the whole run is ending
			return true
		}
		for _, v := range group {
			o := outcome{v: v, started: started, err: err}
			if p != nil {
				o.wasDown(p)
			}
			done(o)
		}
		return true
	}
	names, needs := []string{}, []need{}
	bases, spools := make([]*repository.Manifest, len(group)), make([]*os.File, len(group))
	var err error
	for i, v := range group {
		if bases[i], err = d.s.base(v.name); err != nil {
			return failed(err)
		}
		names, needs = append(names, v.Volume), append(needs, need{v.name, bases[i], v.Mountpoint})
	}
	if err := d.s.checkRoom(true, needs...); err != nil {
		return failed(err)
	}
	p = d.producer(slices.Concat([]string{"with"}, names, []string{"--", "bash", "-c", readAll, d.run.ManageVolume}, names)...)
	for i := range group {
		if spools[i], err = d.s.stage(); err != nil {
			return failed(err)
		}
		defer d.s.unstage(spools[i])
		p.extra = append(p.extra, spools[i])
	}
	if err := p.startWithFD3(timed, nil); err != nil {
		return failed(err)
	}
	defer p.close()
	ended := p.wait()
	statuses := strings.Fields(string(p.readFD3()))
	if status := command.Status(ended); len(statuses) == 0 && (status == sysexits.Usage || status == sysexits.DataErr) {
		return false
	}
	if len(statuses) < len(group) {
		if timed.Err() != nil {
			return failed(context.Cause(timed))
		}
		return failed(d.s.spoolError(spools[len(statuses)], p.failed(ended)))
	}
	p.said.passOn()
	for i, v := range group {
		d.each(ctx, v, done, func(ctx context.Context, o *outcome) (bool, error) {
			m := o.m
			m.Time = started
			d.s.name(m)
			o.wasDown(p)
			status, err := strconv.Atoi(statuses[i])
			if err != nil || status > 1 {
				last, _ := p.said.last()
				return false, d.s.spoolError(spools[i], sysexits.New(sysexits.Unavailable, "command_failed", fmt.Errorf("tar: exit status %s: %s", statuses[i], last)).
					WithHint("run manage_volume.sh export by hand to see its messages"))
			}
			changed := status == 1 || p.said.saw("started_meanwhile")
			return d.s.keep(ctx, m, bases[i], spools[i], "", ending{consistency: p.consistency(changed)})
		})
	}
	return true
}

func (d *directory) settle(context.Context, func(outcome)) error { return nil }

// grace is how long run keeps every archive, even several archives of one day: an
// administrator may need this morning's state in the afternoon.
const grace = 24 * time.Hour

// retire removes the expired archives of a volume. made is its newest archive, which was
// just verified.
func (s *store) retire(keep repository.Retention, made *repository.Manifest, now time.Time) (removed int, err error) {
	all, err := s.Archives(made.Volume)
	if err != nil {
		return 0, err
	}
	for _, m := range keep.Expired(all, now) {
		if m.ID == made.ID || m.Time.After(now.Add(-grace)) {
			continue
		}
		if err := s.Remove(m); err != nil {
			return removed, err
		}
		removed++
	}
	return removed, nil
}

func (d *directory) archives(_ context.Context, volumes []string, _ bool) (map[string][]repository.Archive, error) {
	if len(volumes) == 0 {
		var err error
		if volumes, err = d.Volumes(); err != nil {
			return nil, err
		}
	}
	found := map[string][]repository.Archive{}
	for _, v := range volumes {
		all, err := d.Archives(v)
		if err != nil {
			return nil, err
		}
		found[v] = all
	}
	return found, nil
}

func (d *directory) record(volume string, a repository.Archive) []byte {
	l := record.New(time.Now(), record.Info, "archive", d.env.Service)
	if a.Err != nil {
		l.String("volume", volume)
		l.String("id", a.ID)
		l.String("damaged", a.Err.Error())
	} else {
		fields(a.Manifest, l)
	}
	return l.End()
}

func (d *directory) find(ctx context.Context, volume, id string) (*repository.Manifest, func(context.Context, io.Writer) (string, error), func(), error) {
	m, err := d.Find(volume, id)
	if err != nil {
		return nil, nil, nil, err
	}
	identities, err := d.keys.identitiesFor(m)
	if err != nil {
		return nil, nil, nil, err
	}
	f, err := d.Open(ctx, m)
	if err != nil {
		return nil, nil, nil, repository.DamagedError(volume, m.ID, err)
	}
	return m, func(ctx context.Context, w io.Writer) (string, error) { return pour(ctx, f, m, identities, w) }, func() { f.Close() }, nil
}

func (d *directory) verify(ctx context.Context, names []string, deep bool) error {
	if err := d.begin(ctx); err != nil {
		return err
	}
	defer d.end()
	if len(names) == 0 {
		var err error
		if names, err = d.Volumes(); err != nil {
			return err
		}
	}
	bad, seen, closed := 0, 0, 0
	var noKey error
	for _, arg := range names {
		volume, id, err := repository.ParseArchive(arg)
		if err != nil {
			return err
		}
		all, err := d.Archives(volume)
		if err != nil {
			return err
		}
		for _, a := range all {
			if id != "" && a.ID != id {
				continue
			}
			seen++
			deep := deep
			wrong := d.wrong(ctx, a, deep)
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if errors.Is(wrong, fs.ErrPermission) { // not damage, and true for the other archives too
				return statedir.Unreadable(wrong)
			}
			if sysexits.Code(wrong) == sysexits.Config { // a missing key is not damage, and the stored bytes were verified
				closed++
				noKey, wrong, deep = wrong, nil, false
			}
			if wrong != nil {
				bad++
			}
			if err := d.mark(a, wrong); err != nil {
				d.env.Diag.Warn("mark_failed", err.Error())
			}
			if err := d.reportVerified(volume, a, wrong, deep); err != nil {
				return err
			}
		}
	}
	if seen == 0 {
		return repository.Missing(fmt.Errorf("%s: no backup", d.Root))
	}
	var failed []error
	if bad > 0 {
		failed = append(failed, sysexits.New(sysexits.DataErr, "archives_damaged", fmt.Errorf("%d of %d archives are damaged", bad, seen)).
			WithHint("make new archives: volbackup run; cat and restore no longer use the damaged ones by default"))
	}
	if closed > 0 {
		failed = append(failed, fmt.Errorf("only the stored bytes of %d of %d archives were checked: %w", closed, seen, noKey))
	}
	return errors.Join(failed...)
}

// wrong verifies an archive and returns the error.
func (d *directory) wrong(ctx context.Context, a repository.Archive, deep bool) error {
	if a.Err != nil {
		return a.Err
	}
	total := a.StoredBytes
	if deep { // the archive is read twice
		total *= 2
	}
	ctx, read := repository.Counted(ctx)
	defer progress(d.env, "verify "+a.Volume+"@"+a.ID, total, read.Load)()
	if err := d.Check(ctx, a.Manifest); err != nil || !deep {
		return err
	}
	identities, err := d.keys.identitiesFor(a.Manifest)
	if err != nil {
		return err
	}
	f, err := os.Open(d.Path(a.Manifest))
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = pour(ctx, f, a.Manifest, identities, io.Discard)
	return err
}

// mark records the result of a verification in the manifest.
func (d *directory) mark(a repository.Archive, wrong error) error {
	if a.Manifest == nil {
		return nil
	}
	a.Damaged = ""
	if wrong != nil {
		a.Damaged = wrong.Error()
	} else {
		a.Verified = time.Now().UTC().Truncate(time.Millisecond)
	}
	return d.Update(a.Manifest)
}

func (d *directory) reportVerified(volume string, a repository.Archive, wrong error, deep bool) error {
	level := record.Info
	l := record.New(time.Now(), level, "archive_verified", d.env.Service)
	if wrong != nil {
		level = record.Error
		l = record.New(time.Now(), level, "archive_verify_failed", d.env.Service)
	}
	l.String("volume", volume)
	l.String("id", a.ID)
	l.Bool("ok", wrong == nil)
	l.Bool("deep", deep)
	if wrong != nil {
		l.String("error", wrong.Error())
	}
	return d.env.Stdout.Record(level, l.End())
}

// fields adds the fields of a manifest to a record.
func fields(m *repository.Manifest, l *record.Line) {
	l.String("volume", m.Volume)
	l.String("id", m.ID)
	l.String("file", m.File)
	l.String("made", m.Time.Format(record.TimeFormat))
	l.Int("bytes", m.Bytes)
	l.Int("stored_bytes", m.StoredBytes)
	l.Int("entries", m.Entries)
	l.String("sha256", m.SHA256)
	l.String("content_sha256", m.Content)
	l.String("consistency", m.Consistency)
	l.Bool("encrypted", len(m.Recipients) > 0)
	text := func(key, value string) {
		if value == "" {
			l.Null(key)
		} else {
			l.String(key, value)
		}
	}
	text("link_of", m.LinkOf)
	verified := ""
	if !m.Verified.IsZero() {
		verified = m.Verified.Format(record.TimeFormat)
	}
	text("verified", verified)
	text("damaged", m.Damaged)
}

// sortedKeys returns the sorted keys of a map.
func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

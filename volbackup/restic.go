package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
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
	"observability-hub/volbackup/internal/tarcheck"
)

// restic is the engine for a repository of the program restic, for example on S3,
// SFTP or a rest-server. restic's own variables hold its location and password. The
// snapshots of a volume have the tag volume=NAME.
type restic struct {
	env     *cli.Env
	host    string
	state   repositoryFlags // directory of the inventory
	staging stagingFlags
	script  scriptFlags
	run     *runCmd // of run: its flags

	outcomes []outcome        // of run: volumes that settle still has to verify
	ahead    bool             // of run: there are snapshots with the tag aheadTag
	added    map[string]int64 // of run: how many bytes sendAhead added for each volume
	opened   bool             // a call has succeeded, so the password is right
}

func newRestic(env *cli.Env, state repositoryFlags, staging stagingFlags, script scriptFlags) (*restic, error) {
	host, err := os.Hostname()
	if err != nil {
		return nil, fmt.Errorf("host name: %w", err)
	}
	return &restic{env: env, host: host, state: state, staging: staging, script: script}, nil
}

func (r *restic) where() string { return "the restic repository" }

func (r *restic) inventory() (string, error) {
	dir, err := statedir.Resolve(r.state.StateDir, family)
	if err != nil {
		return "", err
	}
	if err := statedir.MkdirAll(dir, 0o700); err != nil {
		return "", statedir.Unwritable(err)
	}
	return filepath.Join(dir, "restic"), nil
}

// begin removes stale locks. restic does not remove the locks of live processes.
func (r *restic) begin(ctx context.Context) error {
	return r.within(ctx, func(ctx context.Context) error {
		_, err := r.call(ctx, "unlock")
		return err
	})
}

func (r *restic) end() {}

// within limits a step to the time of --timeout. restic by itself tries for a
// quarter of an hour to reach a repository that does not answer.
func (r *restic) within(ctx context.Context, step func(context.Context) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, r.run.Timeout, sysexits.New(sysexits.Unavailable, "restic_failed", fmt.Errorf("not done within %v", r.run.Timeout)).
		WithHint("see whether the repository is reachable: restic snapshots"))
	defer cancel()
	return step(ctx)
}

const (
	resticTag = "volume-backup"
	volumeTag = "volume="
	aheadTag  = "volume-backup-ahead" // of the snapshots that sendAhead makes
)

// snapshot is a snapshot as restic snapshots --json prints it.
type snapshot struct {
	ID       string    `json:"id"`
	ShortID  string    `json:"short_id"`
	Time     time.Time `json:"time"`
	Hostname string    `json:"hostname"`
	Paths    []string  `json:"paths"`
	Tags     []string  `json:"tags"`
}

// volume returns the name of the volume in a snapshot.
func (s snapshot) volume() string {
	for _, tag := range s.Tags {
		if v, ok := strings.CutPrefix(tag, volumeTag); ok {
			return v
		}
	}
	return ""
}

// call runs restic and returns what it prints.
func (r *restic) call(ctx context.Context, args ...string) ([]byte, error) {
	return r.callAccepting(ctx, sysexits.OK, args...)
}

// callAccepting is call, for which the exit status accepted is a success too.
func (r *restic) callAccepting(ctx context.Context, accepted int, args ...string) ([]byte, error) {
	// Dependent: if the run is killed, restic is killed too. restic's own lock is then
	// stale, and the next unlock removes it.
	out, messages, err := command.Cmd{Args: append([]string{"restic"}, args...), Dependent: true}.Run(ctx)
	if err != nil && ctx.Err() == nil && accepted != sysexits.OK && command.Status(err) == accepted {
		return out, nil
	}
	if err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return out, resticFailed("restic "+args[0], string(messages), command.Status(err), r.opened, err)
	}
	r.opened = true
	return out, nil
}

// resticFailed returns the error for a restic that failed. From version 0.17 on the
// exit status gives the reason. Earlier versions, such as Debian's 0.14, exit with
// status 1 for any reason, so their messages are searched.
//
// restic also reports a wrong password if the network damages the list of its keys. So if
// opened says that an earlier call of the run has succeeded, the settings are right, and
// the unit may try again.
func resticFailed(what, said string, code int, opened bool, err error) error {
	const (
		noRepository = "create it with restic init; if it exists, see whether it is reachable: restic snapshots"
		locked       = "wait for the other restic process; if it is dead, run: restic unlock"
	)
	passwordStatus, wrongPassword := sysexits.Config, "RESTIC_PASSWORD_FILE must name a file with the password of that repository"
	if opened {
		passwordStatus, wrongPassword = sysexits.Unavailable, "restic opened the repository with this password before, so the network or the server damages data: try again, and then run restic check"
	}
	status, hint := sysexits.Unavailable, "see whether the repository is reachable: restic snapshots"
	switch code {
	case 10:
		hint = noRepository
	case 11:
		status, hint = sysexits.TempFail, locked
	case 12:
		status, hint = passwordStatus, wrongPassword
	default:
		for _, known := range []struct {
			text, hint string
			status     int
		}{
			{"executable file not found", "apt-get install restic", sysexits.Config},
			{"Please specify repository location", "set RESTIC_REPOSITORY in /etc/observability-hub/volume-backup.env", sysexits.Config},
			{"wrong password", wrongPassword, passwordStatus},
			{"no password", "set RESTIC_PASSWORD_FILE", sysexits.Config},
			{"an empty password is not a password", "set RESTIC_PASSWORD_FILE", sysexits.Config},
			{"Resolving password failed", "RESTIC_PASSWORD_FILE must name a file that the user of this run can read", sysexits.Config},
			{"Is there a repository at", noRepository, sysexits.Unavailable},
			{"already locked", locked, sysexits.TempFail},
		} {
			if strings.Contains(said+err.Error(), known.text) {
				status, hint = known.status, known.hint
				break
			}
		}
	}
	return sysexits.New(status, "restic_failed", fmt.Errorf("%s: %s", what, cmp.Or(lastLine(said), err.Error()))).WithHint(hint)
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	for _, line := range lines {
		if strings.HasPrefix(line, "Fatal: ") {
			return line
		}
	}
	return lines[len(lines)-1]
}

// snapshots returns the snapshots of the volumes, or of all volumes if none is
// named, oldest first.
func (r *restic) snapshots(ctx context.Context, volumes []string) ([]snapshot, error) {
	all, err := r.tagged(ctx, resticTag)
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(s snapshot) bool {
		return len(volumes) > 0 && !slices.Contains(volumes, s.volume()) || repository.CheckVolume(s.volume()) != nil
	})
	slices.SortStableFunc(all, func(a, b snapshot) int { return a.Time.Compare(b.Time) })
	return all, nil
}

// tagged returns the snapshots with a tag, in the order in which restic lists them.
func (r *restic) tagged(ctx context.Context, tag string, options ...string) (all []snapshot, err error) {
	out, err := r.call(ctx, append([]string{"snapshots", "--json", "--no-lock", "--tag", tag}, options...)...)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(out, &all); err != nil {
		return nil, fmt.Errorf("restic snapshots: %w", err)
	}
	return all, nil
}

// snapshot returns the snapshot VOLUME@ID. Without an ID it returns the newest
// snapshot of this host or, if this host has none, of the only other host.
func (r *restic) snapshot(ctx context.Context, volume, id string) (snapshot, error) {
	all, err := r.snapshots(ctx, []string{volume})
	if err != nil {
		return snapshot{}, err
	}
	hosts := map[string]bool{}
	best := -1
	for i, s := range all {
		hosts[s.Hostname] = true
		if id != "" && (s.ID == id || s.ShortID == id) || id == "" && s.Hostname == r.host {
			best = i
		}
	}
	if best < 0 && id == "" && len(hosts) == 1 {
		best = len(all) - 1
	}
	switch {
	case best >= 0:
		return all[best], nil
	case id == "" && len(hosts) > 1:
		return snapshot{}, sysexits.New(sysexits.Usage, "usage", fmt.Errorf("%s: backups of %d other hosts", volume, len(hosts))).
			WithHint("name one as VOLUME@ID; volbackup list --engine restic shows them")
	}
	return snapshot{}, sysexits.New(sysexits.Failed, "no_backups", fmt.Errorf("%s: no such backup in the restic repository", volume)).
		WithHint("volbackup list --engine restic shows all backups")
}

// resticBackup is the script that runs while the containers are stopped. Its
// arguments are the names of the volumes. For each volume it prints restic's summary
// and exit status.
const resticBackup = `for ((n = 1; n <= $#; n++)); do
  path=VOLUME_PATH_$n status=0
  restic backup --quiet --json --tag ` + resticTag + ` --tag "` + volumeTag + `${!n}" -- "${!path:-$VOLUME_PATH}" || status=$?
  echo
  echo "status $status"
done`

// resticIncomplete is restic's exit status for a snapshot that lacks files.
const resticIncomplete = 3

// sendAhead makes a snapshot of each volume while its containers still run. The snapshot
// is not a backup, and settle removes it. It is restic's parent for the backup, which
// then sends only what has changed since. So containers are not down while a large
// volume is sent. If the repository does not take data, no container is stopped.
func (r *restic) sendAhead(ctx context.Context, group []volume) error {
	for _, v := range group {
		if !v.held() || v.Mountpoint == "" || v.Refused != "" {
			continue
		}
		dir, err := os.Open(v.Mountpoint)
		if err != nil { // manage_volume.sh gives the reason
			continue
		}
		dir.Close()
		r.ahead = true
		// Files that change or vanish meanwhile are left to the backup.
		out, err := r.callAccepting(ctx, resticIncomplete, "backup", "--quiet", "--json", "--tag", aheadTag, "--", v.Mountpoint)
		if err != nil {
			return err
		}
		if r.added == nil {
			r.added = map[string]int64{}
		}
		r.added[v.name] += summaryOf(string(out)).Added
	}
	return nil
}

// forgetAhead removes the snapshots of sendAhead, also those that killed runs left.
func (r *restic) forgetAhead(ctx context.Context) error {
	all, err := r.tagged(ctx, aheadTag, "--host", r.host)
	if err != nil || len(all) == 0 {
		return err
	}
	args := []string{"forget"}
	for _, s := range all {
		args = append(args, s.ID)
	}
	_, err = r.call(ctx, args...)
	return err
}

// backUp stops the containers of the volumes once, and makes a snapshot of each volume.
func (r *restic) backUp(ctx context.Context, group []volume, _ func(outcome)) {
	started := time.Now()
	outcomes := make([]outcome, len(group))
	for i, v := range group {
		outcomes[i] = outcome{v: v, m: v.manifest(), started: started}
	}
	fail := func(err error) {
		for i := range outcomes {
			outcomes[i].err = err
		}
	}
	var named, names []string
	for _, v := range group {
		named, names = append(named, v.Volume), append(names, v.name)
	}
	if err := r.within(ctx, func(ctx context.Context) error { return r.sendAhead(ctx, group) }); err != nil {
		fail(err)
		r.outcomes = append(r.outcomes, outcomes...)
		return
	}
	err := r.within(ctx, func(ctx context.Context) error {
		p := &producer{args: slices.Concat([]string{r.script.ManageVolume, "with"}, named, []string{"--", "bash", "-c", resticBackup, "bash"}, names), said: said{Diag: r.env.Diag}}
		out, err := p.open(ctx, "", nil)
		if err != nil {
			return err
		}
		defer p.close()
		text, readErr := io.ReadAll(io.LimitReader(out, 1<<20))
		ended := p.wait()
		for i := range outcomes {
			outcomes[i].wasDown(p)
		}
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case ended != nil:
			return p.failed(ended)
		case readErr != nil:
			return readErr
		}
		p.said.passOn()
		parts := strings.SplitAfter(string(text), "\nstatus ")
		for i := range outcomes {
			if i+1 >= len(parts) {
				outcomes[i].err = errors.New("restic backup: it did not run")
				continue
			}
			status, _, _ := strings.Cut(parts[i+1], "\n")
			outcomes[i].err = r.snapshotted(ctx, outcomes[i].m, parts[i], status, &p.said)
			outcomes[i].m.Consistency = p.consistency(p.said.saw("started_meanwhile"))
		}
		return nil
	})
	if err != nil && len(group) > 1 && ctx.Err() == nil && (sysexits.Code(err) == sysexits.Usage || sysexits.Code(err) == sysexits.DataErr) {
		for _, v := range group { // one by one, as directory.together does
			r.backUp(ctx, []volume{v}, nil)
		}
		return
	}
	if err != nil {
		fail(err)
	}
	r.outcomes = append(r.outcomes, outcomes...)
}

// summary is the last line that restic backup --json prints.
type summary struct {
	ID        string `json:"snapshot_id"`
	Processed int64  `json:"total_bytes_processed"`
	Added     int64  `json:"data_added"`
}

func summaryOf(output string) (s summary) {
	for line := range strings.Lines(output) {
		_ = json.Unmarshal([]byte(line), &s) // other lines have none of these fields
	}
	return s
}

// snapshotted sets the fields of m from restic's output. It removes a snapshot that
// lacks files, because an incomplete snapshot must never be the newest.
func (r *restic) snapshotted(ctx context.Context, m *repository.Manifest, text, status string, said *said) error {
	summary := summaryOf(text)
	m.ID, m.Bytes, m.StoredBytes = summary.ID, summary.Processed, summary.Added+r.added[m.Volume]
	code, err := strconv.Atoi(status)
	last, _ := said.last()
	switch {
	case err != nil:
		return fmt.Errorf("restic backup: unknown exit status %q", status)
	case code == resticIncomplete && summary.ID != "":
		_, forgot := r.call(ctx, "forget", summary.ID)
		return errors.Join(sysexits.New(sysexits.Failed, "restic_failed", fmt.Errorf("restic backup: some files could not be read: %s", last)).
			WithHint("run as root, or with the capability CAP_DAC_READ_SEARCH; the incomplete snapshot is removed"), forgot)
	case code != 0:
		return resticFailed("restic backup", last, code, r.opened, fmt.Errorf("exit status %d", code))
	case summary.ID == "":
		return errors.New("restic backup: it succeeded, but printed no snapshot id")
	}
	return nil
}

// settle checks the repository once, and only then removes expired snapshots and those
// of sendAhead. If no volume was backed up, the repository is probably unreachable, and
// the next run removes them.
func (r *restic) settle(ctx context.Context, done func(outcome)) error {
	good := slices.ContainsFunc(r.outcomes, func(o outcome) bool { return o.err == nil })
	var checked error
	if good {
		checked = r.within(ctx, func(ctx context.Context) error { return r.check(ctx, false) })
	}
	pruned := 0
	for _, o := range r.outcomes {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if o.err == nil {
			o.err = checked
		}
		if o.err == nil {
			o.err = r.within(ctx, func(ctx context.Context) (err error) {
				o.pruned, err = r.forget(ctx, o.v.name, r.run.Retention)
				return err
			})
		}
		pruned += o.pruned
		done(o)
	}
	if good && r.ahead {
		if err := r.within(ctx, r.forgetAhead); err != nil {
			return err
		}
	}
	if pruned == 0 {
		return nil
	}
	return r.within(ctx, func(ctx context.Context) error {
		_, err := r.call(ctx, "prune")
		return err
	})
}

func (r *restic) archives(ctx context.Context, volumes []string, everyHost bool) (map[string][]repository.Archive, error) {
	all, err := r.snapshots(ctx, volumes)
	if err != nil {
		return nil, err
	}
	found := map[string][]repository.Archive{}
	for _, s := range all {
		if !everyHost && s.Hostname != r.host {
			continue
		}
		m := &repository.Manifest{Volume: s.volume(), ID: s.ID, Time: s.Time, Verified: s.Time, Driver: s.Hostname}
		found[s.volume()] = append(found[s.volume()], repository.Archive{ID: s.ID, Manifest: m})
	}
	return found, nil
}

func (r *restic) record(volume string, a repository.Archive) []byte {
	l := record.New(time.Now(), record.Info, "snapshot", r.env.Service)
	l.String("volume", volume)
	l.String("id", a.ID)
	l.String("made", a.Time.UTC().Format(record.TimeFormat))
	l.String("host", a.Driver)
	return l.End()
}

func (r *restic) verify(ctx context.Context, _ []string, deep bool) error {
	wrong := r.check(ctx, deep)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	level := record.Info
	if wrong != nil {
		level = record.Error
	}
	l := record.New(time.Now(), level, "repository_verified", r.env.Service)
	l.Bool("ok", wrong == nil)
	l.Bool("deep", deep)
	if wrong != nil {
		l.String("error", wrong.Error())
	}
	return errors.Join(r.env.Stdout.Record(level, l.End()), wrong)
}

// find restores a snapshot into the staging directory, where restic verifies every
// byte. It does not use restic dump, which writes neither hard links nor the root
// directory.
func (r *restic) find(ctx context.Context, volume, id string) (*repository.Manifest, func(context.Context, io.Writer) (string, error), func(), error) {
	s, err := r.snapshot(ctx, volume, id)
	if err != nil {
		return nil, nil, nil, err
	}
	if len(s.Paths) != 1 {
		return nil, nil, nil, fmt.Errorf("snapshot %s has %d directories, not one", s.ShortID, len(s.Paths))
	}
	dir, remove, err := scratch(cmp.Or(r.staging.Staging, os.TempDir()))
	if err != nil {
		return nil, nil, nil, err
	}
	if _, err := r.call(ctx, "restore", s.ID, "--target", dir, "--verify"); err != nil {
		remove()
		return nil, nil, nil, err
	}
	m := &repository.Manifest{Volume: volume, ID: s.ID}
	return m, func(ctx context.Context, w io.Writer) (string, error) {
		p := &producer{args: []string{r.script.ManageVolume, "tar", filepath.Join(dir, s.Paths[0])}}
		in, err := p.open(ctx, "", nil)
		if err != nil {
			return "", err
		}
		var tar tarcheck.Check
		_, err = io.Copy(io.MultiWriter(w, &tar), repository.Interruptible(ctx, in))
		m.Bytes, m.Entries = tar.Bytes, tar.Entries
		err = errors.Join(err, tar.Close())
		p.close()
		if _, ended := p.finish(); ended != nil && err == nil {
			err = ended
		}
		return "", err
	}, remove, nil
}

// check verifies the repository. With deep it reads every byte.
func (r *restic) check(ctx context.Context, deep bool) error {
	args := []string{"check"}
	if deep {
		args = append(args, "--read-data")
	}
	_, err := r.call(ctx, args...)
	if e, ok := errors.AsType[*sysexits.Error](err); ok && e.Code == sysexits.Unavailable && strings.Contains(e.Error(), "repository contains errors") {
		return sysexits.New(sysexits.DataErr, "archives_damaged", e.Err).WithHint("restic check --read-data says what is damaged; RESTIC in volbackup(1) says how to repair it")
	}
	return err
}

// forget removes expired snapshots of a volume. It always keeps the newest one.
func (r *restic) forget(ctx context.Context, volume string, keep repository.Retention) (removed int, err error) {
	out, err := r.call(ctx, "forget", "--json", "--group-by", "host", "--host", r.host, "--tag", resticTag+","+volumeTag+volume, "--keep-last", "1",
		"--keep-daily", strconv.Itoa(keep.KeepDaily), "--keep-weekly", strconv.Itoa(keep.KeepWeekly), "--keep-monthly", strconv.Itoa(keep.KeepMonthly))
	if err != nil {
		return 0, err
	}
	var groups []struct{ Remove []snapshot }
	if err := json.Unmarshal(out, &groups); err != nil {
		return 0, nil // restic prints no JSON if no snapshot matches
	}
	for _, g := range groups {
		removed += len(g.Remove)
	}
	return removed, nil
}
